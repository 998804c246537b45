# SPDX-License-Identifier: Apache-2.0
"""A client's requests to a provider: authentication and errors (RFC 6749 sections 2.3 and 5)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import quote_plus

import httpx

from tradewind.security.exceptions import CredentialError, SettingsError, StoreUnavailableError
from tradewind.security.identity._fetch import request_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tradewind.security.identity.discovery import Provider

# What a provider may say of a login; anything else would be the provider's own words in our log.
_ERRORS = frozenset(
    {
        "access_denied",
        "account_selection_required",
        "authorization_pending",
        "consent_required",
        "expired_token",
        "interaction_required",
        "invalid_client",
        "invalid_grant",
        "invalid_request",
        "invalid_scope",
        "login_required",
        "server_error",
        "slow_down",
        "temporarily_unavailable",
        "unauthorized_client",
        "unsupported_grant_type",
        "unsupported_response_type",
    }
)


def reason_of(error: object) -> str:
    """Give the reason for the audit log that stands for a provider's `error`."""
    return error if isinstance(error, str) and error in _ERRORS else "provider_error"


def client_id_of(provider: Provider) -> str:
    """Give our client there.

    Raises:
        SettingsError: The issuer has none.
    """
    issuer = provider.issuer
    if not issuer.client_id or issuer.workload:
        raise SettingsError(f"issuer {issuer.name!r}: logins need client_id, and workload: false")
    return issuer.client_id


async def client_request(provider: Provider, url: str | None, form: Mapping[str, str], what: str) -> dict[str, object]:
    """Post a form as our client and give the answer.

    Args:
        provider: Whose endpoint.
        url: The endpoint, None where the provider has none.
        form: Fields.
        what: What is asked for, for messages.

    Raises:
        CredentialError: The provider refuses; the reason is its error code.
        StoreUnavailableError: It gives no usable answer, or has no such endpoint.
        SettingsError: The client's secret is not in the environment.
    """
    name = provider.issuer.name
    if url is None:
        raise StoreUnavailableError(f"identity provider {name!r} has no endpoint for: {what}")
    client_id, secret = client_id_of(provider), _secret(provider)
    fields, auth = dict(form), None
    if secret is None:
        fields["client_id"] = client_id
    else:
        methods = (await provider.metadata()).token_endpoint_auth_methods
        if methods and "client_secret_basic" not in methods:
            fields |= {"client_id": client_id, "client_secret": secret}
        else:
            auth = httpx.BasicAuth(quote_plus(client_id), quote_plus(secret))
    status, answer = await request_json(
        "POST", url, provider=name, what=what, form=fields, auth=auth, timeout_seconds=provider.timeout_seconds
    )
    if status != 200:  # noqa: PLR2004
        raise CredentialError(reason_of(answer.get("error")))
    return answer


def _secret(provider: Provider) -> str | None:
    variable = provider.issuer.client_secret_env
    if variable is None:
        return None
    secret = os.environ.get(variable)
    if not secret:
        raise SettingsError(f"issuer {provider.issuer.name!r}: environment variable {variable} (its secret) is not set")
    return secret
