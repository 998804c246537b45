# SPDX-License-Identifier: Apache-2.0
"""Which Bearer tokens are accepted, and whom they make of their bearer."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from identity_fixtures import CLIENT_ID, IdentityProvider, b64, forged_with_hmac, jwk, pem, running_provider

from tradewind.security.exceptions import CredentialError
from tradewind.security.identity.bearer import BearerVerifier
from tradewind.security.identity.claims import principal_of, teams_of
from tradewind.security.policy.schema import Issuer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="module")
def server() -> Iterator[IdentityProvider]:
    with running_provider() as provider:
        yield provider


@pytest.fixture
def idp(server: IdentityProvider) -> IdentityProvider:
    server.keys = [jwk("a"), jwk("ec"), jwk("weak")]
    server.spoiled.clear()
    server.requests.clear()
    return server


async def reason(verifier: BearerVerifier, token: Any) -> str:
    with pytest.raises(CredentialError) as caught:
        await verifier.verify(token)
    return caught.value.reason


@pytest.mark.parametrize("key", ["a", "ec"])
async def test_a_token_of_a_trusted_issuer_is_accepted(idp: IdentityProvider, key: str) -> None:
    verifier, token = BearerVerifier([idp.issuer()]), idp.token(key, exp=int(time.time()) + 300, name="Alice")
    assert verifier.trusts(token) == idp.issuer()
    principal = await verifier.verify(token)
    assert (principal.id, principal.kind, principal.name) == ("alice@acme.example", "user", "Alice")
    assert principal.groups == {"corp:sre"}
    assert principal.roles == frozenset()
    assert (principal.session, principal.token, principal.scopes) == (None, None, None)
    assert principal.ends_at == pytest.approx(time.time() + 300, abs=3)


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"iss": "https://other.example"}, "untrusted_issuer"),
        ({"iss": None}, "untrusted_issuer"),
        ({"iss": ["x"]}, "untrusted_issuer"),
        ({"aud": None}, "wrong_audience"),
        ({"aud": "other"}, "wrong_audience"),
        ({"aud": CLIENT_ID, "nonce": "n"}, "wrong_audience"),
        ({"aud": []}, "wrong_audience"),
        ({"aud": [["tradewind"]]}, "wrong_audience"),
        ({"aud": {"tradewind": 1}}, "wrong_audience"),
        ({"aud": "tradewind-ui tradewind"}, "wrong_audience"),
        ({"cnf": {"jkt": "x"}}, "wrong_type"),
        ({"exp": None}, "missing_claim"),
        ({"exp": "soon"}, "malformed"),
        ({"exp": True}, "malformed"),
        ({"exp": float("nan")}, "malformed"),
        ({"exp": float("inf")}, "malformed"),
        ({"exp": 10**400}, "malformed"),
        ({"exp": -1}, "malformed"),
        ({"nbf": [1]}, "malformed"),
        ({"iat": {}}, "malformed"),
        ({"sub": None}, "missing_claim"),
        ({"sub": ""}, "missing_claim"),
        ({"sub": "x" * 300}, "missing_claim"),
        ({"sub": "a\nb"}, "missing_claim"),
        ({"sub": "\ud800"}, "missing_claim"),
        ({"sub": 7}, "missing_claim"),
    ],
)
async def test_claims_that_are_wrong_are_refused(idp: IdentityProvider, claims: dict[str, Any], expected: str) -> None:
    assert await reason(BearerVerifier([idp.issuer()]), idp.token(**claims)) == expected


@pytest.mark.parametrize(
    ("claim", "seconds", "expected"),
    [
        ("exp", -29, None),
        ("exp", -31, "expired"),
        ("exp", -60, "expired"),
        ("nbf", 29, None),
        ("nbf", 31, "not_yet_valid"),
        ("nbf", 60, "not_yet_valid"),
        ("iat", 29, None),
        ("iat", 31, "not_yet_valid"),
        ("iat", 60, "not_yet_valid"),
    ],
)
async def test_clocks_may_differ_by_the_leeway_and_no_more(
    idp: IdentityProvider, claim: str, seconds: int, expected: str | None
) -> None:
    now = 1_800_000_000
    verifier = BearerVerifier([idp.issuer(leeway=30)], now=lambda: now)
    token = idp.token(**{"iat": now - 100, "exp": now + 100, claim: now + seconds})
    if expected is None:
        assert (await verifier.verify(token)).id == "alice@acme.example"
    else:
        assert await reason(verifier, token) == expected


def _unsigned(idp: IdentityProvider) -> str:
    return jwt.encode(idp.claims(), None, algorithm="none", headers={"kid": "a"})


def _unsigned_in_disguise(idp: IdentityProvider) -> str:
    return f"{b64({'alg': 'nOnE', 'kid': 'a'})}.{b64(idp.claims())}."


def _without_signature(idp: IdentityProvider) -> str:
    return idp.token().rpartition(".")[0] + "."


def _own_key_in_header(idp: IdentityProvider) -> str:
    return idp.token("evil", headers={"kid": "evil", "jwk": jwk("evil"), "jku": "http://evil.example", "x5c": ["AA=="]})


def _own_key_under_known_id(idp: IdentityProvider) -> str:
    return idp.token("evil", headers={"kid": "a", "jwk": jwk("evil")})


def _changed_claims(idp: IdentityProvider) -> str:
    header, _, signature = idp.token().split(".")
    return f"{header}.{b64(idp.claims(email='root@acme.example'))}.{signature}"


def _changed_header(idp: IdentityProvider) -> str:
    _, claims, signature = idp.token().split(".")
    return f"{b64({'alg': 'RS256', 'kid': 'a', 'x': 1})}.{claims}.{signature}"


def _other_curve(idp: IdentityProvider) -> str:
    _, claims, signature = idp.token("ec").split(".")
    return f"{b64({'alg': 'RS256', 'kid': 'ec'})}.{claims}.{signature}"


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (_unsigned, "alg_not_allowed"),
        (_unsigned_in_disguise, "alg_not_allowed"),
        (lambda idp: forged_with_hmac(idp.claims(), pem("a"), "a"), "alg_not_allowed"),
        (lambda idp: forged_with_hmac(idp.claims(), jwk("a")["n"].encode(), "a"), "alg_not_allowed"),
        (lambda idp: idp.token("ed"), "alg_not_allowed"),
        (lambda idp: f"{b64({'alg': ['RS256']})}.{b64(idp.claims())}.AA", "alg_not_allowed"),
        (lambda idp: f"{b64({'kid': 'a'})}.{b64(idp.claims())}.AA", "alg_not_allowed"),
        (_without_signature, "bad_signature"),
        (_own_key_in_header, "unknown_key"),
        (_own_key_under_known_id, "bad_signature"),
        (_changed_claims, "bad_signature"),
        (_changed_header, "bad_signature"),
        (_other_curve, "unknown_key"),
        (lambda idp: idp.token(headers={"kid": "../../dev/null"}), "unknown_key"),
        (lambda idp: idp.token(headers={"kid": "b"}), "unknown_key"),
        (lambda idp: idp.token("weak"), "unknown_key"),
        (lambda idp: idp.token(headers={"typ": "logout+jwt"}), "wrong_type"),
        (lambda idp: idp.token(headers={"typ": "secevent+jwt"}), "wrong_type"),
        (lambda idp: idp.token(headers={"crit": ["exp"], "exp": 1}), "malformed"),
        (lambda idp: idp.token() + ".x", "malformed"),
        (lambda idp: " " + idp.token(), "malformed"),
        (lambda idp: idp.token() + "\n", "malformed"),
        (lambda idp: idp.token() + "=", "malformed"),
        (lambda idp: idp.token(x="y" * 17_000), "oversized"),
        (lambda idp: "x" * 10_000_000, "oversized"),
        (lambda idp: f"{b64(b'[' * 8000)}.{b64(b'{}')}.AA", "malformed"),
        (lambda idp: f"{b64({'alg': 'RS256'})}.{b64(b'[]')}.AA", "malformed"),
        (lambda idp: "a.b.c.d.e", "malformed"),
        (lambda idp: "..", "malformed"),
        (lambda idp: "", "malformed"),
        (lambda idp: None, "malformed"),
        (lambda idp: idp.token().encode(), "malformed"),
    ],
)
async def test_forged_and_broken_tokens_are_refused(
    idp: IdentityProvider, make: Callable[[IdentityProvider], Any], expected: str
) -> None:
    assert await reason(BearerVerifier([idp.issuer()]), make(idp)) == expected


async def test_an_access_token_by_its_type_is_accepted(idp: IdentityProvider) -> None:
    token = idp.token(headers={"typ": "application/at+JWT"})
    assert (await BearerVerifier([idp.issuer()]).verify(token)).id == "alice@acme.example"


async def test_the_refusal_tells_the_audit_who_it_claimed_to_be_and_shows_no_token(idp: IdentityProvider) -> None:
    token = idp.token(aud="other")
    with pytest.raises(CredentialError) as caught:
        await BearerVerifier([idp.issuer()]).verify(token)
    assert caught.value.subject == "u-1"
    assert token.split(".")[1] not in f"{caught.value!r}{caught.value.__cause__!r}{caught.value.__dict__}"


async def test_an_issuer_without_audience_has_no_bearer_tokens(idp: IdentityProvider) -> None:
    verifier, token = BearerVerifier([idp.issuer(audience=None)]), idp.token(aud=CLIENT_ID)
    assert verifier.trusts(token) is None
    assert await reason(verifier, token) == "untrusted_issuer"


def test_what_is_no_token_of_an_issuer_is_not_trusted(idp: IdentityProvider) -> None:
    verifier = BearerVerifier([idp.issuer()])
    for token in ("", "twr_abc_def_00000000", "a.b.c", idp.token(iss="airflow"), idp.token(x="y" * 17_000)):
        assert verifier.trusts(token) is None


async def test_a_provider_that_is_down_lets_nobody_in(idp: IdentityProvider) -> None:
    idp.spoiled["/jwks"] = (500, b"", 0.0)
    assert await reason(BearerVerifier([idp.issuer()]), idp.token()) == "key_server_down"


async def test_two_issuers_that_share_a_key_id_do_not_share_the_key(idp: IdentityProvider) -> None:
    with running_provider() as other:
        other.keys = [jwk("other", kid="a")]
        verifier = BearerVerifier([idp.issuer(), other.issuer(name="partner")])
        good = other.token("other", headers={"kid": "a"})
        assert (await verifier.verify(good)).groups == {"partner:sre"}
        assert (await verifier.verify(idp.token())).groups == {"corp:sre"}
        assert await reason(verifier, other.token("a")) == "bad_signature"


async def test_one_provider_may_be_two_issuers_told_apart_by_audience(idp: IdentityProvider) -> None:
    people = idp.issuer()
    jobs = idp.issuer(name="ci", audience="tradewind-ci", client_id=None, workload=True)
    verifier = BearerVerifier([people, jobs])
    assert (await verifier.verify(idp.token())).kind == "user"
    assert (await verifier.verify(idp.token(aud="tradewind-ci"))).id == "ci:u-1"
    assert await reason(verifier, idp.token(aud="neither")) == "wrong_audience"


async def test_a_verified_token_is_not_verified_again_for_a_minute_and_not_after_its_end(idp: IdentityProvider) -> None:
    now = [time.time()]
    verifier = BearerVerifier([idp.issuer()], now=lambda: now[0])
    short, long = idp.token(exp=int(now[0]) + 20), idp.token(exp=int(now[0]) + 3000)
    first = await verifier.verify(long)
    assert await verifier.verify(long) is first
    await verifier.verify(short)
    now[0] += 59
    assert await verifier.verify(long) is first
    assert await reason(verifier, short) == "expired"
    now[0] += 2
    again = await verifier.verify(long)
    assert again == first
    assert again is not first


async def test_so_many_tokens_are_remembered_and_no_more(idp: IdentityProvider) -> None:
    idp.keys = [jwk("ed")]
    verifier = BearerVerifier([idp.issuer(algorithms=("EdDSA",))])
    tokens = [idp.token("ed", jti=str(number)) for number in range(4097)]
    principals = [await verifier.verify(token) for token in tokens]
    assert await verifier.verify(tokens[1]) is principals[1]
    assert await verifier.verify(tokens[0]) is not principals[0]


async def test_a_refusal_is_not_remembered(idp: IdentityProvider) -> None:
    now = [time.time()]
    verifier = BearerVerifier([idp.issuer()], now=lambda: now[0])
    token = idp.token(nbf=int(now[0]) + 100)
    assert await reason(verifier, token) == "not_yet_valid"
    now[0] += 100
    assert (await verifier.verify(token)).id == "alice@acme.example"


_verifier = BearerVerifier([Issuer(name="corp", issuer="http://127.0.0.1:9", audience="tradewind")])
_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.text() | st.binary() | st.none() | st.from_regex(r"[\w-]{0,40}(\.[\w-]{0,40}){0,5}"))
@settings(deadline=None)
def test_no_text_or_bytes_raise_anything_but_a_refusal(token: Any) -> None:
    assert _verifier.trusts(token) is None
    with pytest.raises(CredentialError):
        asyncio.run(_verifier.verify(token))


@given(
    st.dictionaries(st.sampled_from(["alg", "typ", "kid", "crit", "b64", "zip"]), _values),
    st.dictionaries(st.sampled_from(["aud", "exp", "nbf", "sub", "email"]), _values),
    st.sampled_from(["RS256", None]),
    st.binary(max_size=80),
)
@settings(deadline=None)
def test_no_header_or_claims_raise_anything_but_a_refusal(
    header: dict[str, Any], claims: dict[str, Any], alg: str | None, signature: bytes
) -> None:
    header |= {"alg": alg} if alg else {}
    claims["iss"] = "http://127.0.0.1:9"
    with pytest.raises(CredentialError):
        asyncio.run(
            _verifier.verify(f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}.{b64(signature)}")
        )


@given(
    st.dictionaries(st.sampled_from(["sub", "email", "email_verified", "preferred_username", "groups", "x"]), _values)
)
@settings(deadline=None)
def test_no_verified_claims_make_anything_but_a_principal_or_a_refusal(claims: dict[str, Any]) -> None:
    bind = [{"claim": "x", "equals": "y", "role": "r"}]
    for workload in (False, True):
        issuer = Issuer(
            name="corp", issuer="https://idp", audience="a", workload=workload, bind=bind if workload else ()
        )
        try:
            outcome = principal_of(issuer, claims).id
        except CredentialError as error:
            outcome = error.reason
        assert outcome.isprintable()


@pytest.mark.parametrize(
    ("user_claim", "claims", "expected"),
    [
        (None, {"email": "a@x", "preferred_username": "al"}, "a@x"),
        (None, {"email": "a@x", "email_verified": True}, "a@x"),
        (None, {"email": "a@x", "email_verified": False, "preferred_username": "al"}, "al"),
        (None, {"email": "a@x", "email_verified": "false"}, "u-1"),
        (None, {"email": "a@x", "email_verified": False, "preferred_username": "root@x"}, "u-1"),
        (None, {"preferred_username": "al@x"}, "al@x"),
        (None, {}, "u-1"),
        (None, {"email": ["a@x"], "preferred_username": 7}, "u-1"),
        (None, {"email": "a@x\n"}, "u-1"),
        ("sub", {"email": "a@x"}, "u-1"),
        ("upn", {"upn": "al", "email": "a@x"}, "al"),
        ("upn", {"email": "a@x"}, None),
        ("upn", {"upn": " "}, None),
        ("email", {"email": "a@x", "email_verified": False}, None),
    ],
)
def test_the_users_id_is_the_claim_that_the_policy_names(
    user_claim: str | None, claims: dict[str, Any], expected: str | None
) -> None:
    issuer = Issuer(name="corp", issuer="https://idp", audience="a", user_claim=user_claim)
    if expected is None:
        with pytest.raises(CredentialError, match="missing_claim"):
            principal_of(issuer, {"sub": "u-1", **claims})
    else:
        assert principal_of(issuer, {"sub": "u-1", **claims}).id == expected


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (["sre", "data"], {"corp:sre", "corp:data"}),
        ("sre", {"corp:sre"}),
        (["other:admins"], {"corp:other:admins"}),
        (["sre", 7, None, ["x"], ""], {"corp:sre"}),
        ({"sre": 1}, set()),
        (None, set()),
    ],
)
def test_groups_carry_their_issuers_name(groups: object, expected: set[str]) -> None:
    issuer = Issuer(name="corp", issuer="https://idp", audience="a", groups_claim="roles")
    assert principal_of(issuer, {"sub": "u-1", "groups": ["never"], "roles": groups}).groups == expected


def test_groups_of_an_issuer_make_members_of_teams() -> None:
    issuer = Issuer(name="corp", issuer="https://idp", audience="a", teams={"sre": "operations", "data": "analysts"})
    assert teams_of(issuer, {"corp:sre", "corp:none", "other:data"}) == {"operations"}
    assert teams_of(issuer, set()) == frozenset()


@pytest.mark.parametrize(
    ("claims", "roles"),
    [
        ({"repository": "acme/etl"}, {"deployer"}),
        ({"repository": ["acme/etl", "acme/web"]}, {"deployer"}),
        ({"repository": "acme/etl-evil"}, set()),
        ({"repository": "evil/acme/etl"}, set()),
        ({"repository": {"acme/etl": 1}}, set()),
        ({"protected": "true"}, {"viewer"}),
        ({"protected": True}, {"viewer"}),
        ({"protected": 1}, set()),
        ({}, set()),
    ],
)
def test_a_workload_has_the_roles_that_its_claims_are_bound_to(claims: dict[str, Any], roles: set[str]) -> None:
    issuer = Issuer.model_validate(
        {
            "name": "ci",
            "issuer": "https://ci",
            "audience": "tradewind",
            "workload": True,
            "bind": [
                {"claim": "repository", "equals": "acme/etl", "role": "deployer"},
                {"claim": "protected", "equals": "true", "role": "viewer"},
            ],
        }
    )
    principal = principal_of(issuer, {"sub": "repo:acme/etl", "groups": ["sre"], "exp": 1e9, **claims})
    assert (principal.id, principal.kind, principal.groups) == ("ci:repo:acme/etl", "workload", frozenset())
    assert principal.roles == roles
