"""How far to run at a time, so that a run looks up ten times a second."""

from __future__ import annotations

import time
from typing import Final

SLICE_SECONDS: Final = 0.1
_FIRST: Final = 2_000_000
_LEAST: Final = 10_000
_MOST: Final = 500_000_000


class Pace:
    """Chooses slices of instructions that take about `SLICE_SECONDS`; where they end is never seen
    by the guest.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._insns = min(_FIRST, most)
        self._from_icount = 0
        self._from_s = 0.0

    def start(self, icount: int, *bounds: int | None) -> int:
        """Begin a slice at `icount`; returns where it ends, at the latest at the nearest bound."""
        self._from_icount = icount
        self._from_s = time.monotonic()
        return min([icount + self._insns, *(bound for bound in bounds if bound is not None)])

    def end(self, icount: int) -> None:
        """Learn from the slice that began last, which came to `icount`."""
        done = icount - self._from_icount
        if done < self._insns // 4:
            return
        took_s = max(time.monotonic() - self._from_s, 1e-6)
        factor = min(4.0, max(0.25, SLICE_SECONDS * done / (took_s * self._insns)))
        self._insns = max(_LEAST, min(self._most, int(self._insns * factor)))
