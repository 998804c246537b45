# SPDX-License-Identifier: Apache-2.0
"""The routes of the `/auth` app, by what they are about."""
