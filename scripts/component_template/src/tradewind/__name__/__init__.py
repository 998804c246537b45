# SPDX-License-Identifier: Apache-2.0
"""$summary"""

from tradewind.$name._version import __version__

__all__ = ["__version__"]
