# SPDX-License-Identifier: Apache-2.0
"""What may be used once only, remembered by this process."""

from __future__ import annotations

import threading
from collections import OrderedDict

# A multiple of the logins of one process in the minutes after which their age refuses them anyway.
_SIZE = 10_000


class Once:
    """The ids that were used last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._used: OrderedDict[str, None] = OrderedDict()

    def first(self, name: str) -> bool:
        """Tell whether this is the first use."""
        with self._lock:
            if name in self._used:
                return False
            self._used[name] = None
            if len(self._used) > _SIZE:
                self._used.popitem(last=False)
            return True
