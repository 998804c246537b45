# SPDX-License-Identifier: Apache-2.0
"""The RBAC manager: organization, workspace, deployment and Dag roles, OIDC and API tokens."""

from tradewind.security._version import __version__

__all__ = ["__version__"]
