// SPDX-License-Identifier: Apache-2.0
// A certified OpenID provider with one public client, ours. Arguments: port, address of Airflow.
import { pathToFileURL } from "node:url";
import path from "node:path";
import process from "node:process";

const modules = process.env.NODE_PATH;
const { default: Provider } = await import(pathToFileURL(path.join(modules, "oidc-provider", "lib", "index.js")));

const [port, airflow] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;
const provider = new Provider(issuer, {
  clients: [
    {
      client_id: "airflow",
      token_endpoint_auth_method: "none",
      grant_types: ["authorization_code"],
      response_types: ["code"],
      redirect_uris: [`${airflow}/auth/callback`],
      post_logout_redirect_uris: [`${airflow}/auth/logged-out`],
      backchannel_logout_uri: `${airflow}/auth/logout/backchannel`,
      backchannel_logout_session_required: true,
    },
  ],
  claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["name", "groups"] },
  conformIdTokenClaims: false,
  // Its own dispatcher refuses to send a back-channel logout to this machine.
  fetch: (url, { dispatcher, ...options }) => globalThis.fetch(url, options),
  features: { backchannelLogout: { enabled: true }, devInteractions: { enabled: true } },
  findAccount: (_context, id) => ({
    accountId: id,
    claims: () => ({
      sub: id,
      email: `${id}@acme.example`,
      email_verified: true,
      name: id,
      groups: id === "alice" ? ["sre"] : [],
    }),
  }),
  pkce: { required: () => true },
});
provider.listen(Number(port), "127.0.0.1", () => console.log("listening"));
