# SPDX-License-Identifier: Apache-2.0
"""The policy: what a file says, and what follows from it for one principal."""

__all__: list[str] = []
