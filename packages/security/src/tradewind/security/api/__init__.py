# SPDX-License-Identifier: Apache-2.0
"""The `/auth` app: logins, tokens, bindings, and the pages that go with them."""

__all__: list[str] = []
