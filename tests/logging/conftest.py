# SPDX-License-Identifier: Apache-2.0
"""Google Cloud Storage and Azure Blob Storage as local servers."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest
from support.object_storage import AzuriteServer, GcsServer, running_azurite, running_gcs

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.register_assert_rewrite("store_contract")


@pytest.fixture(scope="session")
def gcs() -> Iterator[GcsServer]:
    """A Google Cloud Storage."""
    with running_gcs() as server:
        yield server


@pytest.fixture(scope="session")
def azurite(tmp_path_factory) -> Iterator[AzuriteServer]:
    """An Azure Blob Storage."""
    with running_azurite(tmp_path_factory.mktemp("azurite")) as server:
        yield server


@pytest.fixture
def gcs_bucket(gcs: GcsServer) -> str:
    """A new bucket."""
    name = f"logs-{secrets.token_hex(4)}"
    gcs.create_bucket(name)
    return name


@pytest.fixture
def azure_container(azurite: AzuriteServer) -> str:
    """A new container."""
    name = f"logs-{secrets.token_hex(4)}"
    azurite.create_container(name)
    return name
