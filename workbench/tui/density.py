"""How densely a run accesses each device: counts by device over equal stretches of the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from workbench.trace.columns import coded, integers

if TYPE_CHECKING:
    from workbench.trace.reader import Trace

BUCKETS: Final = 1024
_MOST_DEVICES: Final = 256
OTHERS: Final = "(others)"


class Density:
    """Accesses by device and bucket; `read` fills it, in any thread."""

    def __init__(self, end_icount: int) -> None:
        self.end_icount = max(end_icount, 1)
        self.counts: dict[str, Any] = {}
        self.complete = False

    def read(self, trace: Trace, stopping: Callable[[], bool]) -> None:
        """Count all accesses of a trace."""
        for batch in trace.batches("accesses", ("icount", "device")):
            if stopping():
                return
            places = integers(batch["icount"]).astype(np.float64) * (BUCKETS / self.end_icount)
            places = np.clip(places.astype(np.int64), 0, BUCKETS - 1)
            codes, names = coded(batch["device"])
            for code, name in enumerate(names):
                found = np.bincount(places[codes == code], minlength=BUCKETS)
                self._add(name or "(nobody)", found)
        self.complete = True

    def _add(self, name: str, found: Any) -> None:
        if name not in self.counts and len(self.counts) >= _MOST_DEVICES:
            name = OTHERS
        self.counts[name] = self.counts.get(name, 0) + found

    def devices(self) -> list[str]:
        """Names, the busiest first."""
        totals = {name: int(found.sum()) for name, found in list(self.counts.items())}
        return sorted(totals, key=lambda name: (-totals[name], name))

    def columns(self, name: str | None, width: int) -> list[int]:
        """Counts of a device, or of all, for `width` columns."""
        held = list(self.counts.values()) if name is None else [self.counts[name]]
        whole = sum(held) if held else np.zeros(BUCKETS, np.int64)
        edges = np.linspace(0, BUCKETS, width + 1).astype(np.int64)
        sums = np.concatenate(([0], np.cumsum(whole)))
        if width <= BUCKETS:
            return [int(n) for n in sums[edges[1:]] - sums[edges[:-1]]]
        return [int(whole[min(x * BUCKETS // width, BUCKETS - 1)]) for x in range(width)]
