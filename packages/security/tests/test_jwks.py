# SPDX-License-Identifier: Apache-2.0
"""What is read from a provider, how often, and what is kept when it fails."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from identity_fixtures import DISCOVERY, Clock, IdentityProvider, jwk, key_of, running_provider
from jwt.algorithms import RSAAlgorithm

from tradewind.security.exceptions import CredentialError, StoreUnavailableError
from tradewind.security.identity.discovery import Provider, metadata_of
from tradewind.security.identity.jwks import KeySet
from tradewind.security.identity.oidc import LoginFlow
from tradewind.security.policy.schema import Issuer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def idp() -> Iterator[IdentityProvider]:
    with running_provider() as provider:
        yield provider


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(idp: IdentityProvider, clock: Clock) -> KeySet:
    return KeySet(Provider(idp.issuer(), timeout_seconds=2, clock=clock))


async def refused(keys: KeySet, kid: str | None, alg: str = "RS256") -> str:
    with pytest.raises(CredentialError) as caught:
        await keys.key(kid, alg)
    return caught.value.reason


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"issuer": "https://other.example"}, "calls itself 'https://other.example'"),
        ({"issuer": None}, "calls itself None"),
        ({"jwks_uri": None}, "no jwks_uri"),
        ({"jwks_uri": "http://keys.example/jwks"}, "jwks_uri is no https URL"),
        ({"jwks_uri": "file:///etc/passwd"}, "jwks_uri is no https URL"),
        ({"jwks_uri": ["https://keys.example"]}, "jwks_uri is no https URL"),
        ({"jwks_uri": "https://[bad/jwks"}, "jwks_uri is no https URL"),
        ({"token_endpoint": "http://token.example/token"}, "token_endpoint is no https URL"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "authorization_endpoint is no https URL"),
        ({"end_session_endpoint": "https://me:secret@idp.example/"}, "end_session_endpoint is no https URL"),
    ],
)
async def test_a_discovery_document_that_may_mislead_is_refused_with_the_reason(
    idp: IdentityProvider, changes: dict[str, Any], message: str
) -> None:
    idp.metadata.update(changes)
    with pytest.raises(StoreUnavailableError, match="identity provider 'corp'") as caught:
        await Provider(idp.issuer()).metadata()
    assert message in str(caught.value)


@given(
    st.dictionaries(
        st.sampled_from(["issuer", "jwks_uri", "token_endpoint", "token_endpoint_auth_methods_supported"]),
        st.none()
        | st.text()
        | st.lists(st.text())
        | st.just("https://idp")
        | st.builds("https://{}".format, st.text()),
    )
)
def test_no_discovery_document_raises_anything_but_that_it_cannot_be_used(document: dict[str, Any]) -> None:
    try:
        uri = metadata_of(Issuer(name="corp", issuer="https://idp", audience="a"), document).jwks_uri
    except StoreUnavailableError as error:
        uri = f"https: {error}"
    assert uri.startswith("https:")


def test_plain_http_is_for_providers_of_this_machine() -> None:
    document = {"issuer": "https://idp", "jwks_uri": "http://127.0.0.1/jwks"}
    with pytest.raises(StoreUnavailableError, match="jwks_uri is no https URL"):
        metadata_of(Issuer(name="corp", issuer="https://idp", audience="a"), document)


async def test_an_answer_that_is_too_large_is_refused_however_good_it_is(idp: IdentityProvider, keys: KeySet) -> None:
    idp.keys = [jwk("a", padding="x" * 600_000)]
    with pytest.raises(StoreUnavailableError, match="keys"):
        await keys.key("a", "RS256")


async def test_the_issuer_must_be_equal_to_the_last_slash(idp: IdentityProvider) -> None:
    with pytest.raises(StoreUnavailableError, match=f"calls itself '{idp.url}', the policy's `issuer` is '{idp.url}/'"):
        await Provider(idp.issuer(issuer=f"{idp.url}/")).metadata()
    idp.metadata["issuer"] = f"{idp.url}/"
    metadata = await Provider(idp.issuer(issuer=f"{idp.url}/")).metadata()
    assert metadata.jwks_uri == f"{idp.url}/jwks"


@pytest.mark.parametrize("path", [DISCOVERY, "/jwks"])
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param((500, b"{}", 0.0), id="error-500"),
        pytest.param((404, b"{}", 0.0), id="error-404"),
        pytest.param((302, b"{}", 0.0), id="redirect"),
        pytest.param((200, b"<html>", 0.0), id="no-json"),
        pytest.param((200, b"\xff\xfe{}", 0.0), id="no-text"),
        pytest.param((200, b"[]", 0.0), id="no-object"),
        pytest.param((200, b'{"a":' * 100_000, 0.0), id="deep"),
        pytest.param((200, b'{"keys": {}}', 0.0), id="no-keys"),
        pytest.param((200, b'{"keys": []}', 0.7), id="slow"),
    ],
)
async def test_a_bad_answer_makes_the_provider_unavailable(
    idp: IdentityProvider, path: str, answer: tuple[int, bytes, float]
) -> None:
    idp.spoiled[path] = answer
    with pytest.raises(StoreUnavailableError, match="corp"):
        await KeySet(Provider(idp.issuer(), timeout_seconds=1)).key("a", "RS256")
    assert idp.requests["/elsewhere"] == 0


async def test_a_provider_that_is_not_there_is_unavailable_and_only_its_name_is_told() -> None:
    with running_provider() as gone:
        issuer = gone.issuer()
    with pytest.raises(StoreUnavailableError) as caught:
        await Provider(issuer).metadata()
    assert str(caught.value) == "identity provider 'corp' gives no usable answer (discovery)"


async def test_documents_are_read_once_an_hour(idp: IdentityProvider, keys: KeySet, clock: Clock) -> None:
    for _ in range(5):
        await keys.key("a", "RS256")
    assert idp.requests == {DISCOVERY: 1, "/jwks": 1}
    clock.now += 3601
    await keys.key("a", "RS256")
    assert idp.requests == {DISCOVERY: 2, "/jwks": 2}


async def test_a_key_that_was_taken_back_is_refused_after_the_hour(
    idp: IdentityProvider, keys: KeySet, clock: Clock
) -> None:
    await keys.key("a", "RS256")
    idp.keys = [jwk("b")]
    clock.now += 3601
    assert await refused(keys, "a") == "unknown_key"


async def test_a_rotated_key_is_accepted_within_ten_seconds(idp: IdentityProvider, keys: KeySet, clock: Clock) -> None:
    await keys.key("a", "RS256")
    idp.keys = [jwk("a"), jwk("b")]
    clock.now += 9.9
    assert await refused(keys, "b") == "unknown_key"
    clock.now += 0.1
    assert (await keys.key("b", "RS256")).key_id == "b"


async def test_unknown_ids_cause_one_request_in_ten_seconds(idp: IdentityProvider, keys: KeySet, clock: Clock) -> None:
    await keys.key("a", "RS256")
    for _ in range(3):
        clock.now += 10
        for number in range(20):
            assert await refused(keys, f"unknown-{number}") == "unknown_key"
    assert idp.requests["/jwks"] == 1 + 3


async def test_concurrent_unknown_ids_cause_one_request(idp: IdentityProvider, keys: KeySet, clock: Clock) -> None:
    await keys.key("a", "RS256")
    idp.keys = [jwk("a"), jwk("b")]
    clock.now += 10
    found = await asyncio.gather(*(keys.key("b", "RS256") for _ in range(50)))
    assert {key.key_id for key in found} == {"b"}
    assert idp.requests["/jwks"] == 2


def test_event_loops_of_several_threads_share_one_request(idp: IdentityProvider, keys: KeySet) -> None:
    body = json.dumps({"keys": idp.keys}).encode()
    idp.spoiled["/jwks"] = (200, body, 0.1)

    def ask(_: int) -> str | None:
        return asyncio.run(keys.key("a", "RS256")).key_id

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == ["a"] * 8
    assert idp.requests == {DISCOVERY: 1, "/jwks": 1}


async def test_a_request_that_is_given_up_does_not_take_the_others_with_it(idp: IdentityProvider, keys: KeySet) -> None:
    idp.spoiled["/jwks"] = (200, json.dumps({"keys": idp.keys}).encode(), 0.2)
    first = asyncio.create_task(keys.key("a", "RS256"))
    others = [asyncio.create_task(keys.key("a", "RS256")) for _ in range(3)]
    await asyncio.sleep(0.1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert [key.key_id for key in await asyncio.gather(*others)] == ["a"] * 3
    assert idp.requests["/jwks"] == 1


def test_a_loop_that_ended_in_the_middle_does_not_block_the_next(idp: IdentityProvider, clock: Clock) -> None:
    keys = KeySet(Provider(idp.issuer(), timeout_seconds=2, retry_seconds=0, clock=clock))
    idp.spoiled["/jwks"] = (200, b'{"keys": []}', 0.3)

    async def give_up() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(keys.key("a", "RS256"), 0.2)

    asyncio.run(give_up())
    del idp.spoiled["/jwks"]
    assert asyncio.run(keys.key("a", "RS256")).key_id == "a"


async def test_nobody_is_sent_to_a_provider_that_is_gone_while_its_document_still_serves(
    idp: IdentityProvider, clock: Clock
) -> None:
    provider = Provider(idp.issuer(), timeout_seconds=2, clock=clock)
    flow = LoginFlow(KeySet(provider))
    await flow.begin("https://airflow.example/auth/callback", "/")
    idp.spoiled[DISCOVERY] = (503, b"", 0.0)
    await flow.begin("https://airflow.example/auth/callback", "/")
    clock.now += 10
    with pytest.raises(StoreUnavailableError):
        await flow.begin("https://airflow.example/auth/callback", "/")
    assert (await provider.metadata()).authorization_endpoint


async def test_the_last_good_keys_serve_while_the_provider_is_down(
    idp: IdentityProvider, keys: KeySet, clock: Clock
) -> None:
    await keys.key("a", "RS256")
    idp.spoiled[DISCOVERY] = idp.spoiled["/jwks"] = (503, b"", 0.0)
    clock.now += 3601
    before = idp.requests.total()
    for _ in range(5):
        assert (await keys.key("a", "RS256")).key_id == "a"
        assert await refused(keys, "b") == "unknown_key"
    assert idp.requests.total() - before == 2


async def test_a_failing_provider_is_asked_once_in_ten_seconds_and_recovers(
    idp: IdentityProvider, keys: KeySet, clock: Clock
) -> None:
    idp.spoiled[DISCOVERY] = (500, b"", 0.0)
    for _ in range(5):
        with pytest.raises(StoreUnavailableError):
            await keys.key("a", "RS256")
    assert idp.requests == {DISCOVERY: 1}
    idp.spoiled.clear()
    clock.now += 10
    assert (await keys.key("a", "RS256")).key_id == "a"


async def test_a_provider_that_failed_slowly_is_asked_again_after_ten_seconds_not_twenty(
    idp: IdentityProvider, keys: KeySet, clock: Clock
) -> None:
    idp.spoiled[DISCOVERY] = (500, b"", 0.0)
    started, clock.step = clock.now, 1.0
    with pytest.raises(StoreUnavailableError):
        await keys.key("a", "RS256")
    clock.step = 0.0
    idp.spoiled.clear()
    asked = []
    for seconds in range(10, 15):
        clock.now = started + seconds
        try:
            asked.append((await keys.key("a", "RS256")).key_id)
        except StoreUnavailableError:
            asked.append(None)
    assert asked[-1] == "a"


async def test_only_one_request_waits_while_old_keys_are_renewed(
    idp: IdentityProvider, keys: KeySet, clock: Clock
) -> None:
    await keys.key("a", "RS256")
    clock.now += 3601
    idp.spoiled["/jwks"] = (200, json.dumps({"keys": idp.keys}).encode(), 0.5)
    first = asyncio.create_task(keys.key("a", "RS256"))
    await asyncio.sleep(0.2)
    assert (await keys.key("a", "RS256")).key_id == "a"
    assert not first.done()
    await first


private = {**json.loads(RSAAlgorithm.to_jwk(key_of("p"))), "kid": "a", "alg": "RS256"}
private.pop("key_ops")


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(jwk("a", use="enc"), id="for-encryption"),
        pytest.param(jwk("a", use=None, key_ops=["encrypt"]), id="operations-without-verify"),
        pytest.param(jwk("a", alg="RS512"), id="other-algorithm"),
        pytest.param(jwk("a", alg="HS256"), id="symmetric-algorithm"),
        pytest.param({"kty": "oct", "k": "c2VjcmV0", "kid": "a", "alg": "HS256"}, id="symmetric"),
        pytest.param({"kty": "oct", "k": "c2VjcmV0", "kid": "a", "alg": "RS256"}, id="symmetric-in-disguise"),
        pytest.param(jwk("ec", kid="a", alg="RS256"), id="curve-in-disguise"),
        pytest.param(private, id="private"),
        pytest.param(jwk("a", n=7), id="modulus-no-text"),
        pytest.param(jwk("a", n="!"), id="modulus-no-base64"),
        pytest.param(jwk("a", n=None), id="no-modulus"),
        pytest.param(jwk("a", kid=["a"]), id="id-no-text"),
        pytest.param(jwk("a", kty=None), id="no-type"),
        pytest.param("a", id="no-object"),
    ],
)
async def test_an_unusable_key_is_ignored_and_hides_no_other(
    idp: IdentityProvider, keys: KeySet, entry: object
) -> None:
    idp.keys = [entry, jwk("b")]  # type: ignore[list-item]
    assert await refused(keys, "a") == "unknown_key"
    assert (await keys.key("b", "RS256")).key_id == "b"


@pytest.mark.parametrize(("name", "alg"), [("a", "RS256"), ("ec", "ES256"), ("ed", "EdDSA")])
async def test_a_key_without_alg_is_used_for_the_algorithms_of_its_type(
    idp: IdentityProvider, keys: KeySet, name: str, alg: str
) -> None:
    idp.keys = [jwk(name, alg=None, use=None)]
    assert (await keys.key(name, alg)).algorithm_name == alg
    for other in {"RS256", "ES256", "ES384", "EdDSA", "HS256", "none"} - {alg}:
        assert await refused(keys, name, other) == "unknown_key"


async def test_a_token_without_key_id_means_the_only_key_that_fits(idp: IdentityProvider, clock: Clock) -> None:
    def fresh() -> KeySet:
        return KeySet(Provider(idp.issuer(), clock=clock))

    idp.keys = [jwk("a"), jwk("ec"), jwk("b", use="enc")]
    assert (await fresh().key(None, "RS256")).key_id == "a"
    idp.keys = [jwk("a"), jwk("b")]
    assert await refused(fresh(), None) == "unknown_key"
    idp.keys = [jwk("a"), jwk("b", kid="a")]
    assert await refused(fresh(), "a") == "unknown_key"


@pytest.mark.parametrize("kid", ["../../etc/passwd", "' OR 1=1 --", "http://evil.example/jwks", "", "\x00", "ä" * 5000])
async def test_a_key_id_is_only_ever_compared(idp: IdentityProvider, keys: KeySet, kid: str) -> None:
    assert await refused(keys, kid) == "unknown_key"
    assert set(idp.requests) == {DISCOVERY, "/jwks"}
