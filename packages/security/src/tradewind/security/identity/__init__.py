# SPDX-License-Identifier: Apache-2.0
"""Identity providers: logins by OpenID Connect, and Bearer tokens of issuers that the policy trusts.

`directory` is the entrance; nothing here knows the database or FastAPI.
"""

__all__: list[str] = []
