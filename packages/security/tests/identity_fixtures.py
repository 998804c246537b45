# SPDX-License-Identifier: Apache-2.0
"""A real OpenID Connect provider on 127.0.0.1 whose keys, documents and answers a test can spoil."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import threading
import time
import warnings
from collections import Counter
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, parse_qsl, unquote_plus, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from tradewind.security.policy.schema import Issuer

if TYPE_CHECKING:
    from collections.abc import Iterator

CLIENT_ID = "tradewind-ui"
AUDIENCE = "tradewind"
REDIRECT_URI = "http://127.0.0.1:8080/auth/callback"
DISCOVERY = "/.well-known/openid-configuration"


@cache
def key_of(name: str) -> Any:
    """A private key for each name: `ec...`, `ed...`, `weak...` (RSA with 1024 bits), or RSA."""
    if name.startswith("ec"):
        return ec.generate_private_key(ec.SECP256R1())
    if name.startswith("ed"):
        return ed25519.Ed25519PrivateKey.generate()
    # A key that is too short is what the test is about.
    return rsa.generate_private_key(public_exponent=65537, key_size=1024 if name.startswith("weak") else 2048)


def algorithm_of(name: str) -> str:
    return {"ec": "ES256", "ed": "EdDSA"}.get(name[:2], "RS256")


def jwk(name: str, **members: object) -> dict[str, Any]:
    """The public key of a name as the provider publishes it; a member that is None is left out."""
    kind = {"ec": ECAlgorithm, "ed": OKPAlgorithm}.get(name[:2], RSAAlgorithm)
    public = json.loads(kind.to_jwk(key_of(name).public_key()))
    public.pop("key_ops", None)
    entry = {**public, "kid": name, "use": "sig", "alg": algorithm_of(name), **members}
    return {member: value for member, value in entry.items() if value is not None}


def pem(name: str) -> bytes:
    return bytes(key_of(name).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def b64(data: bytes | dict[str, Any]) -> str:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def forged_with_hmac(claims: dict[str, Any], secret: bytes, kid: str) -> str:
    """A token whose HS256 secret is what everybody can read."""
    body = f"{b64({'alg': 'HS256', 'typ': 'JWT', 'kid': kid})}.{b64(claims)}"
    return f"{body}.{b64(hmac.new(secret, body.encode(), hashlib.sha256).digest())}"


class Clock:
    """Seconds that only a test moves, or that pass by a step with each look."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.step = 0.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


class IdentityProvider:
    """The state of a provider.

    Args:
        url: Its issuer.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.keys = [jwk("a")]
        self.metadata: dict[str, Any] = {
            "issuer": url,
            "authorization_endpoint": f"{url}/authorize",
            "token_endpoint": f"{url}/token",
            "userinfo_endpoint": f"{url}/userinfo",
            "end_session_endpoint": f"{url}/logout?realm=x",
            "device_authorization_endpoint": f"{url}/device",
            "jwks_uri": f"{url}/jwks",
        }
        self.requests: Counter[str] = Counter()
        self.forms: list[dict[str, str]] = []
        # By path: status, body and seconds before each half of it.
        self.spoiled: dict[str, tuple[int, bytes, float]] = {}
        self.user: dict[str, Any] = {"sub": "u-1", "email": "alice@acme.example", "groups": ["sre"], "sid": "s-1"}
        self.userinfo: dict[str, Any] = {"sub": "u-1"}
        self.id_token_claims: dict[str, Any] = {}
        self.secret: str | None = None
        self.codes: dict[str, dict[str, str]] = {}
        self.agreed = False

    def issuer(self, **fields: Any) -> Issuer:
        """The policy's entry for it."""
        entry = {"name": "corp", "issuer": self.url, "client_id": CLIENT_ID, "audience": AUDIENCE, **fields}
        return Issuer.model_validate(entry)

    def claims(self, **claims: Any) -> dict[str, Any]:
        """Claims of a token that is fine; one that is None is left out."""
        now = int(time.time())
        every = {"iss": self.url, "aud": AUDIENCE, "iat": now, "exp": now + 600, **self.user, **claims}
        return {name: value for name, value in every.items() if value is not None}

    def token(self, key: str = "a", headers: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token; claims and headers replace those of one that is fine."""
        signed = {"kid": key, **(headers or {})}
        present = {name: value for name, value in signed.items() if value is not None}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", jwt.InsecureKeyLengthWarning)
            # Unlike jwt.encode it signs whatever an attacker could.
            return jwt.PyJWS().encode(
                json.dumps(self.claims(**claims)).encode(), key_of(key), algorithm_of(key), present
            )

    def redirect(self, url: str, **parameters: str) -> dict[str, str]:
        """What the browser brings back when it follows a login's URL and the user agrees."""
        asked = dict(parse_qsl(urlsplit(url).query))
        code = secrets.token_urlsafe(16)
        self.codes[code] = asked
        return {"code": code, "state": asked["state"], **parameters}

    def answer(self, path: str, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        if path == DISCOVERY:
            return 200, self.metadata
        if path == "/jwks":
            return 200, {"keys": self.keys}
        if path == "/userinfo":
            return (200, self.userinfo) if authorization == "Bearer access-1" else (401, {"error": "invalid_token"})
        if path == "/device":
            return 200, {
                "device_code": "dev-1",
                "user_code": "ABCD-EFGH",
                "verification_uri": f"{self.url}/activate",
                "expires_in": 600,
                "interval": 1,
            }
        if path == "/token":
            return self._token(form, authorization)
        return 404, {"error": "not_found"}

    def _token(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        client, secret = form.get("client_id"), form.get("client_secret")
        if authorization.startswith("Basic "):
            user, _, password = base64.b64decode(authorization[6:]).decode().partition(":")
            client, secret = unquote_plus(user), unquote_plus(password)
        if client != CLIENT_ID or secret != self.secret:
            return 401, {"error": "invalid_client"}
        if form["grant_type"].endswith("device_code"):
            if not self.agreed:
                return 400, {"error": "authorization_pending"}
            return 200, {"access_token": "access-1", "id_token": self.token(aud=CLIENT_ID)}
        asked = self.codes.pop(form["code"], None)
        challenge = b64(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if asked is None or asked["redirect_uri"] != form["redirect_uri"] or asked["code_challenge"] != challenge:
            return 400, {"error": "invalid_grant"}
        claims = {"aud": CLIENT_ID, "nonce": asked["nonce"], **self.id_token_claims}
        return 200, {"access_token": "access-1", "token_type": "Bearer", "id_token": self.token(**claims)}


class _Handler(BaseHTTPRequestHandler):
    provider: IdentityProvider

    def do_GET(self) -> None:
        self._respond({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        form = {name: values[0] for name, values in parse_qs(body).items()}
        self.provider.forms.append(form)
        self._respond(form)

    def _respond(self, form: dict[str, str]) -> None:
        path = urlsplit(self.path).path
        self.provider.requests[path] += 1
        seconds = 0.0
        if path in self.provider.spoiled:
            status, body, seconds = self.provider.spoiled[path]
        else:
            status, document = self.provider.answer(path, form, self.headers.get("Authorization", ""))
            body = json.dumps(document).encode()
        try:
            self.send_response(status)
            if status in {301, 302}:
                self.send_header("Location", f"{self.provider.url}/elsewhere")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            for half in (body[: len(body) // 2], body[len(body) // 2 :]):
                time.sleep(seconds)
                self.wfile.write(half)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@contextmanager
def running_provider() -> Iterator[IdentityProvider]:
    """Start a provider on a free port of 127.0.0.1."""
    handler = type("Handler", (_Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    provider = handler.provider = IdentityProvider(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
