# SPDX-License-Identifier: Apache-2.0
"""Logins with a real provider, and what a provider, a browser or an attacker may bring instead."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx
import pytest
from identity_fixtures import AUDIENCE, CLIENT_ID, DISCOVERY, REDIRECT_URI, IdentityProvider, jwk, running_provider

from tradewind.security.exceptions import CredentialError, NotFoundError, SettingsError, StoreUnavailableError
from tradewind.security.identity.directory import Directory
from tradewind.security.identity.discovery import Provider
from tradewind.security.identity.jwks import KeySet
from tradewind.security.identity.oidc import Login, LoginFlow, Transaction
from tradewind.security.policy.schema import Issuer

if TYPE_CHECKING:
    from collections.abc import Iterator

START_SECONDS = 60.0
SECRET_VARIABLE, SECRET = "CORP_SECRET", "s:e+c r%t"
EVENT = "http://schemas.openid.net/event/backchannel-logout"


@pytest.fixture(scope="module")
def mock_url() -> Iterator[str]:
    """The issuer of `oidc-provider-mock`, a provider that others wrote."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    user = {"sub": "u-9", "email": "bob@acme.example", "name": "Bob", "groups": ["data"]}
    process = subprocess.Popen(
        [sys.executable, "-m", "oidc_provider_mock", "--port", str(port), "--user-claims", json.dumps(user)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                httpx.get(f"{url}/jwks").raise_for_status()
                break
            except httpx.HTTPError:
                assert process.poll() is None, "the provider did not start"
                assert time.monotonic() < deadline, "the provider does not answer"
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def idp() -> Iterator[IdentityProvider]:
    with running_provider() as provider:
        yield provider


def flow_of(idp: IdentityProvider, now: Any = time.time, **fields: Any) -> LoginFlow:
    return LoginFlow(KeySet(Provider(idp.issuer(**fields))), now)


async def login(idp: IdentityProvider, flow: LoginFlow | None = None, **parameters: str) -> Login:
    flow = flow or flow_of(idp)
    url, transaction = await flow.begin(REDIRECT_URI, "/dags")
    return await flow.finish(transaction, idp.redirect(url, **parameters))


async def refusal(idp: IdentityProvider, flow: LoginFlow | None = None, **parameters: str) -> str:
    with pytest.raises(CredentialError) as caught:
        await login(idp, flow, **parameters)
    return caught.value.reason


async def test_a_person_logs_in_with_a_browser_at_a_provider_that_others_wrote(
    mock_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SECRET_VARIABLE, SECRET)  # it knows no public clients, and takes any secret
    issuer = Issuer(name="corp", issuer=mock_url, client_id="us", client_secret_env=SECRET_VARIABLE)
    flow = Directory([issuer]).login("corp")
    url, transaction = await flow.begin(REDIRECT_URI, "/dags?x=1")
    async with httpx.AsyncClient() as browser:
        page = await browser.get(url)
        assert "Authorize" in page.text
        answer = await browser.post(url, data={"sub": "u-9"})
    callback = urlsplit(answer.headers["Location"])
    assert f"{callback.scheme}://{callback.netloc}{callback.path}" == REDIRECT_URI
    found = await flow.finish(transaction, dict(parse_qsl(callback.query)))
    assert (found.principal.id, found.principal.name) == ("bob@acme.example", "Bob")
    assert found.principal.groups == {"corp:data"}
    assert found.principal.ends_at is None
    assert (found.issuer, found.subject, found.next) == ("corp", "u-9", "/dags?x=1")

    leave = await flow.logout_url("http://127.0.0.1:8080/", found.id_token)
    assert leave is not None
    async with httpx.AsyncClient() as browser:
        assert (await browser.get(leave)).status_code == 200


async def test_a_person_who_declines_at_a_provider_that_others_wrote_is_not_logged_in(mock_url: str) -> None:
    flow = Directory([Issuer(name="corp", issuer=mock_url, client_id="us")]).login("corp")
    url, transaction = await flow.begin(REDIRECT_URI, "/")
    async with httpx.AsyncClient() as browser:
        answer = await browser.post(url, data={"action": "deny"})
    # It does not give `state` back with a refusal, which RFC 6749 section 4.1.2.1 asks for.
    brought = {**dict(parse_qsl(urlsplit(answer.headers["Location"]).query)), "state": transaction["state"]}
    with pytest.raises(CredentialError, match="access_denied"):
        await flow.finish(transaction, brought)


async def test_the_url_asks_for_a_code_with_pkce_state_and_nonce(idp: IdentityProvider) -> None:
    idp.metadata["authorization_endpoint"] += "?tenant=1"
    url, transaction = await flow_of(idp, scopes=("openid", "groups")).begin(REDIRECT_URI, "/")
    asked = parse_qs(urlsplit(url).query)
    assert asked.pop("code_challenge")[0] not in (transaction["verifier"], "")
    assert asked == {
        "tenant": ["1"],
        "response_type": ["code"],
        "client_id": [CLIENT_ID],
        "redirect_uri": [REDIRECT_URI],
        "scope": ["openid groups"],
        "state": [transaction["state"]],
        "nonce": [transaction["nonce"]],
        "code_challenge_method": ["S256"],
    }
    assert transaction["verifier"] not in url
    assert 43 <= len(transaction["verifier"]) <= 128
    assert len({transaction["state"], transaction["nonce"], transaction["verifier"]}) == 3
    assert json.loads(json.dumps(transaction)) == transaction


async def test_a_login_tells_what_a_logout_will_name(idp: IdentityProvider) -> None:
    found = await login(idp)
    assert (found.principal.id, found.subject, found.session) == ("alice@acme.example", "u-1", "s-1")
    assert found.next == "/dags"
    assert found.id_token.count(".") == 2
    assert found.id_token not in repr(found)


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"nonce": "other"}, "wrong_nonce"),
        ({"nonce": None}, "wrong_nonce"),
        ({"nonce": ["x"]}, "wrong_nonce"),
        ({"nonce": "ä"}, "wrong_nonce"),
        ({"aud": AUDIENCE}, "wrong_audience"),
        ({"aud": [CLIENT_ID, "other"]}, "wrong_audience"),
        ({"aud": [CLIENT_ID, "other"], "azp": "other"}, "wrong_audience"),
        ({"aud": CLIENT_ID, "azp": "other"}, "wrong_audience"),
        ({"iss": "https://other.example"}, "wrong_issuer"),
        ({"iat": None}, "missing_claim"),
        ({"exp": None}, "missing_claim"),
        ({"exp": 1}, "expired"),
        ({"sub": None}, "missing_claim"),
        ({"key": "evil"}, "unknown_key"),
        ({"key": "evil", "headers": {"kid": "a"}}, "bad_signature"),
        ({"headers": {"typ": "at+jwt"}}, "wrong_type"),
    ],
)
async def test_an_id_token_that_is_not_ours_is_refused(
    idp: IdentityProvider, claims: dict[str, Any], reason: str
) -> None:
    idp.id_token_claims = claims
    assert await refusal(idp) == reason


async def test_an_id_token_for_several_that_names_us_as_its_party_is_accepted(idp: IdentityProvider) -> None:
    idp.id_token_claims = {"aud": ["other", CLIENT_ID], "azp": CLIENT_ID}
    assert (await login(idp)).subject == "u-1"


async def test_the_state_that_comes_back_must_be_the_one_sent(idp: IdentityProvider) -> None:
    flow = flow_of(idp)
    url, transaction = await flow.begin(REDIRECT_URI, "/")
    brought = idp.redirect(url)
    other = (await flow.begin(REDIRECT_URI, "/"))[1]
    for state in (other["state"], "", "ä", None):
        query = {name: value for name, value in {**brought, "state": state}.items() if value is not None}
        with pytest.raises(CredentialError, match="wrong_state"):
            await flow.finish(transaction, query)
    for mixed in (other, {**transaction, "state": "ä"}):
        with pytest.raises(CredentialError, match="wrong_state"):
            await flow.finish(mixed, brought)
    assert idp.requests["/token"] == 0


async def test_a_transaction_serves_once(idp: IdentityProvider) -> None:
    flow = flow_of(idp)
    url, transaction = await flow.begin(REDIRECT_URI, "/")
    await flow.finish(transaction, idp.redirect(url))
    with pytest.raises(CredentialError, match="transaction_replayed"):
        await flow.finish(transaction, idp.redirect(url))


async def test_a_code_that_was_used_is_refused_by_the_provider(idp: IdentityProvider) -> None:
    flow, other = flow_of(idp), flow_of(idp)
    url, transaction = await flow.begin(REDIRECT_URI, "/")
    brought = idp.redirect(url)
    await flow.finish(transaction, brought)
    with pytest.raises(CredentialError, match="invalid_grant"):
        await other.finish(transaction, brought)


async def test_a_code_of_another_browser_is_of_no_use(idp: IdentityProvider) -> None:
    flow = flow_of(idp)
    theirs = idp.redirect((await flow.begin(REDIRECT_URI, "/"))[0])
    ours = (await flow.begin(REDIRECT_URI, "/"))[1]
    with pytest.raises(CredentialError, match="invalid_grant"):
        await flow.finish(ours, {"code": theirs["code"], "state": ours["state"]})


@pytest.mark.parametrize(
    ("seconds", "reason"), [(299, None), (301, "transaction_expired"), (-60, "transaction_expired")]
)
async def test_a_login_must_end_within_five_minutes(idp: IdentityProvider, seconds: int, reason: str | None) -> None:
    url, transaction = await flow_of(idp, now=lambda: time.time() - seconds).begin(REDIRECT_URI, "/")
    flow, brought = flow_of(idp), idp.redirect(url)
    if reason is None:
        assert (await flow.finish(transaction, brought)).subject == "u-1"
    else:
        with pytest.raises(CredentialError, match=reason):
            await flow.finish(transaction, brought)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, value) for key in Transaction.__annotations__ for value in (None, 7j, [])),
        ("issuer", "other"),
        ("at", "1"),
    ],
)
async def test_a_transaction_that_is_not_ours_is_refused(idp: IdentityProvider, key: str, value: object) -> None:
    flow = flow_of(idp)
    url, transaction = await flow.begin(REDIRECT_URI, "/")
    with pytest.raises(CredentialError, match="bad_transaction"):
        await flow.finish({**transaction, key: value}, idp.redirect(url))


@pytest.mark.parametrize("announced", [True, False])
async def test_an_answer_of_another_provider_is_refused(idp: IdentityProvider, announced: bool) -> None:
    idp.metadata["authorization_response_iss_parameter_supported"] = announced
    assert await refusal(idp, iss="https://other.example") == "wrong_issuer"
    assert (await login(idp, iss=idp.url)).subject == "u-1"
    if announced:
        assert await refusal(idp) == "wrong_issuer"


@pytest.mark.parametrize(
    ("error", "reason"), [("access_denied", "access_denied"), ("<script>", "provider_error"), ("", "provider_error")]
)
async def test_an_error_of_the_provider_is_the_reason_where_it_is_a_known_one(
    idp: IdentityProvider, error: str, reason: str
) -> None:
    assert await refusal(idp, error=error, error_description="<b>x</b>") == reason
    assert idp.requests["/token"] == 0


@pytest.mark.parametrize("code", ["", "x" * 5000])
async def test_an_answer_without_a_usable_code_is_refused(idp: IdentityProvider, code: str) -> None:
    assert await refusal(idp, code=code) == "invalid_request"


@pytest.mark.parametrize(
    ("methods", "in_form"), [(None, False), (["client_secret_basic"], False), (["client_secret_post"], True)]
)
async def test_a_client_with_a_secret_proves_itself_as_the_provider_wants(
    idp: IdentityProvider, monkeypatch: pytest.MonkeyPatch, methods: list[str] | None, in_form: bool
) -> None:
    monkeypatch.setenv(SECRET_VARIABLE, SECRET)
    idp.secret, idp.metadata["token_endpoint_auth_methods_supported"] = SECRET, methods
    assert (await login(idp, flow_of(idp, client_secret_env=SECRET_VARIABLE))).subject == "u-1"
    assert ("client_secret" in idp.forms[-1]) is in_form
    assert "code_verifier" in idp.forms[-1]


async def test_a_wrong_secret_is_refused_and_told_to_nobody(
    idp: IdentityProvider, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv(SECRET_VARIABLE, "Wr0ngSecret")
    idp.secret = SECRET
    flow = flow_of(idp, client_secret_env=SECRET_VARIABLE)
    with pytest.raises(CredentialError, match="invalid_client") as caught:
        await login(idp, flow)
    assert "Wr0ngSecret" not in f"{caplog.text}{caught.value!r}{vars(caught.value)}{vars(flow)}"


async def test_a_secret_that_is_not_in_the_environment_is_named_by_its_variable(
    idp: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SECRET_VARIABLE, raising=False)
    with pytest.raises(SettingsError, match="issuer 'corp': environment variable CORP_SECRET"):
        await login(idp, flow_of(idp, client_secret_env=SECRET_VARIABLE))


async def test_claims_of_the_user_endpoint_are_read_only_where_the_id_token_lacks_them(idp: IdentityProvider) -> None:
    await login(idp)
    assert idp.requests["/userinfo"] == 0
    idp.id_token_claims = {"groups": None}
    idp.userinfo = {"sub": "u-1", "groups": ["data"], "email": "root@acme.example"}
    found = await login(idp)
    assert found.principal.groups == {"corp:data"}
    assert found.principal.id == "alice@acme.example"


async def test_an_address_of_the_user_endpoint_needs_to_be_verified_there(idp: IdentityProvider) -> None:
    idp.id_token_claims = {"email": None, "email_verified": True}
    idp.userinfo = {"sub": "u-1", "email": "root@acme.example", "email_verified": False}
    assert (await login(idp)).principal.id == "u-1"


@pytest.mark.parametrize("answer", [{"sub": "u-2", "groups": ["root"]}, {"groups": ["root"]}])
async def test_claims_of_another_user_are_refused(idp: IdentityProvider, answer: dict[str, Any]) -> None:
    idp.id_token_claims, idp.userinfo = {"groups": None}, answer
    assert await refusal(idp) == "wrong_subject"


@pytest.mark.parametrize("path", [DISCOVERY, "/jwks", "/token", "/userinfo"])
@pytest.mark.parametrize("answer", [(500, b"{}", 0.0), (302, b"{}", 0.0), (200, b"<html>", 0.0), (200, b"[]", 0.0)])
async def test_a_provider_that_fails_lets_nobody_in_and_only_its_name_is_told(
    idp: IdentityProvider, path: str, answer: tuple[int, bytes, float]
) -> None:
    idp.id_token_claims = {"groups": None}
    idp.spoiled[path] = answer
    with pytest.raises(StoreUnavailableError, match="identity provider 'corp'") as caught:
        await login(idp)
    assert idp.url not in str(caught.value)


@pytest.mark.parametrize("answer", [{}, {"id_token": None}, {"id_token": 7}, {"id_token": ""}, {"id_token": "a.b"}])
async def test_an_answer_without_an_id_token_is_refused(idp: IdentityProvider, answer: dict[str, Any]) -> None:
    idp.spoiled["/token"] = (200, json.dumps({"access_token": "access-1", **answer}).encode(), 0.0)
    assert await refusal(idp) in {"missing_claim", "malformed"}


async def test_the_logout_url_keeps_the_endpoints_query_and_is_none_without_an_endpoint(idp: IdentityProvider) -> None:
    flow = flow_of(idp)
    url = await flow.logout_url("http://127.0.0.1:8080/", "hint")
    assert url is not None
    assert parse_qs(urlsplit(url).query) == {
        "realm": ["x"],
        "client_id": [CLIENT_ID],
        "post_logout_redirect_uri": ["http://127.0.0.1:8080/"],
        "id_token_hint": ["hint"],
    }
    assert "id_token_hint" not in str(await flow.logout_url("http://127.0.0.1:8080/"))
    del idp.metadata["end_session_endpoint"]
    assert await flow_of(idp).logout_url("http://127.0.0.1:8080/") is None


def logout_token(idp: IdentityProvider, **claims: Any) -> str:
    every = {
        "aud": CLIENT_ID,
        "events": {EVENT: {}},
        "jti": "j-1",
        "email": None,
        "groups": None,
        "headers": {"typ": "logout+jwt"},
        **claims,
    }
    return idp.token(**every)


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({}, ("u-1", "s-1")),
        ({"sid": None}, ("u-1", None)),
        ({"sub": None}, (None, "s-1")),
        ({"headers": {}}, ("u-1", "s-1")),
    ],
)
async def test_a_logout_token_names_the_sessions_that_end(
    idp: IdentityProvider, claims: dict[str, Any], expected: tuple[str | None, str | None]
) -> None:
    assert await flow_of(idp).verify_logout_token(logout_token(idp, **claims)) == expected


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"sub": None, "sid": None}, "missing_claim"),
        ({"jti": None}, "missing_claim"),
        ({"iat": None}, "missing_claim"),
        ({"exp": None}, "missing_claim"),
        ({"events": None}, "no_logout_event"),
        ({"events": {EVENT: None}}, "no_logout_event"),
        ({"events": [EVENT]}, "no_logout_event"),
        ({"events": {"other": {}}}, "no_logout_event"),
        ({"nonce": "n"}, "nonce_in_logout_token"),
        ({"iat": int(time.time()) - 400}, "expired"),
        ({"exp": 1}, "expired"),
        ({"aud": AUDIENCE}, "wrong_audience"),
        ({"iss": "https://other.example"}, "wrong_issuer"),
        ({"key": "evil", "headers": {"kid": "a"}}, "bad_signature"),
        ({"headers": {"typ": "at+jwt"}}, "wrong_type"),
    ],
)
async def test_a_logout_token_that_is_wrong_ends_nothing(
    idp: IdentityProvider, claims: dict[str, Any], reason: str
) -> None:
    with pytest.raises(CredentialError) as caught:
        await flow_of(idp).verify_logout_token(logout_token(idp, **claims))
    assert caught.value.reason == reason


async def test_a_logout_token_serves_once(idp: IdentityProvider) -> None:
    flow = flow_of(idp)
    await flow.verify_logout_token(logout_token(idp))
    with pytest.raises(CredentialError, match="replayed"):
        await flow.verify_logout_token(logout_token(idp))
    assert await flow.verify_logout_token(logout_token(idp, jti="j-2")) == ("u-1", "s-1")


async def test_a_logout_token_is_no_bearer_token_and_no_id_token(idp: IdentityProvider) -> None:
    bearer = Directory([idp.issuer(audience=CLIENT_ID)]).bearer
    with pytest.raises(CredentialError, match="wrong_type"):
        await bearer.verify(logout_token(idp))
    idp.id_token_claims = {"headers": {"typ": "logout+jwt"}}
    assert await refusal(idp) == "wrong_type"


@pytest.mark.parametrize("secret", [None, SECRET])
async def test_a_terminal_logs_in_once_the_person_has_agreed(
    idp: IdentityProvider, monkeypatch: pytest.MonkeyPatch, secret: str | None
) -> None:
    monkeypatch.setenv(SECRET_VARIABLE, SECRET)
    idp.secret = secret
    flow = flow_of(idp, client_secret_env=SECRET_VARIABLE if secret else None)
    device = await flow.device_begin()
    assert idp.forms[-1]["client_id"] == CLIENT_ID
    assert (device.user_code, device.verification_uri) == ("ABCD-EFGH", f"{idp.url}/activate")
    assert (device.expires_in, device.interval) == (600, 1)
    assert device.device_code not in repr(device)
    assert await flow.device_poll(device.device_code) is None
    idp.agreed = True
    found = await flow.device_poll(device.device_code)
    assert found is not None
    assert found.principal.id == "alice@acme.example"


@pytest.mark.parametrize("error", ["expired_token", "access_denied", "slow_down"])
async def test_a_terminal_is_told_why_its_login_does_not_go_on(idp: IdentityProvider, error: str) -> None:
    idp.spoiled["/token"] = (400, json.dumps({"error": error}).encode(), 0.0)
    with pytest.raises(CredentialError, match=error):
        await flow_of(idp).device_poll("dev-1")


async def test_a_provider_without_device_flow_says_so(idp: IdentityProvider) -> None:
    del idp.metadata["device_authorization_endpoint"]
    with pytest.raises(StoreUnavailableError, match="'corp' has no endpoint for: device login"):
        await flow_of(idp).device_begin()


def test_logins_are_of_issuers_with_a_client_and_not_of_workloads(idp: IdentityProvider) -> None:
    people, tokens = idp.issuer(), idp.issuer(name="tokens", client_id=None)
    jobs = idp.issuer(name="ci", workload=True)
    directory = Directory([tokens, people, jobs])
    assert directory.logins == (people,)
    for name in ("tokens", "ci", "nobody"):
        with pytest.raises(NotFoundError, match=name):
            directory.login(name)


async def test_a_new_policy_keeps_the_keys_of_the_issuers_that_did_not_change(idp: IdentityProvider) -> None:
    before = Directory([idp.issuer()])
    await before.bearer.verify(idp.token())
    after = Directory([idp.issuer(), idp.issuer(name="new", audience="new")], before)
    await after.bearer.verify(idp.token())
    assert after.login("corp") is before.login("corp")
    assert idp.requests["/jwks"] == 1
    changed = Directory([idp.issuer(algorithms=("ES256",))], after)
    with pytest.raises(CredentialError, match="alg_not_allowed"):
        await changed.bearer.verify(idp.token())
    assert Directory(changed.issuers, changed).bearer is changed.bearer


async def test_an_issuer_that_left_the_policy_is_not_trusted_any_more(idp: IdentityProvider) -> None:
    before = Directory([idp.issuer()])
    token = idp.token()
    await before.bearer.verify(token)
    with pytest.raises(CredentialError, match="untrusted_issuer"):
        await Directory([], before).bearer.verify(token)


async def test_a_login_accepts_a_key_that_was_rotated_meanwhile(idp: IdentityProvider) -> None:
    flow = LoginFlow(KeySet(Provider(idp.issuer(), retry_seconds=0)))
    await login(idp, flow)
    idp.keys = [jwk("b")]
    idp.id_token_claims = {"key": "b"}
    assert (await login(idp, flow)).subject == "u-1"
