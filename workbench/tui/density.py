"""How densely a run accesses each device: counts by device over equal stretches of the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from workbench.trace.columns import coded, integers

if TYPE_CHECKING:
    import pyarrow as pa

    from workbench.trace.reader import Trace

BUCKETS: Final = 2048
_MOST_DEVICES: Final = 256
OTHERS: Final = "(others)"
Count = Callable[[int, int, int], "Density"]


class Density:
    """Accesses by device and bucket; `read` fills it, in any thread."""

    def __init__(self, end_icount: int) -> None:
        self.end_icount = max(end_icount, 1)
        self.span = self.end_icount
        """Instructions that all buckets together are for."""
        self.counts: dict[str, Any] = {}
        self._pieces = 0

    def read(
        self, pieces: int, count: Count, stopping: Callable[[], bool], at_a_time: int = 1
    ) -> None:
        """Count the pieces of a table that have not been counted yet: up to the last of `pieces`.

        `stopping` is asked every so many; `count` does as `counted` for a trace.
        """
        while self._pieces < pieces and not stopping():
            last = min(self._pieces + at_a_time, pieces)
            self._take(count(self._pieces, last, self.span))
            self._pieces = last

    def _take(self, more: Density) -> None:
        self._cover(more.span)
        for name, found in more.counts.items():
            self._add(name, found)

    def count(self, batch: pa.Table) -> None:
        """Count the accesses of a piece."""
        icounts = integers(batch["icount"])
        self._cover(int(icounts[-1]) if len(icounts) else 0)
        places = icounts.astype(np.float64) * (BUCKETS / self.span)
        places = np.clip(places.astype(np.int64), 0, BUCKETS - 1)
        codes, names = coded(batch["device"])
        for code, name in enumerate(names):
            found = np.bincount(places[codes == code], minlength=BUCKETS)
            self._add(name or "(nobody)", found)

    def extend(self, end_icount: int) -> None:
        """The run has become longer."""
        self.end_icount = max(end_icount, self.end_icount)

    def _cover(self, icount: int) -> None:
        """Let each bucket be for twice as many instructions, as often as it takes."""
        while icount > self.span:
            self.span *= 2
            for name, held in self.counts.items():
                pairs = held.reshape(-1, 2).sum(axis=1)
                self.counts[name] = np.concatenate((pairs, np.zeros_like(pairs)))

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
        used = BUCKETS * min(self.end_icount / self.span, 1.0)
        edges = np.linspace(0, used, width + 1).astype(np.int64)
        sums = np.concatenate(([0], np.cumsum(whole)))
        if width <= used:
            return [int(n) for n in sums[edges[1:]] - sums[edges[:-1]]]
        return [int(whole[min(int(x * used / width), BUCKETS - 1)]) for x in range(width)]


def counted(trace: Trace, first: int, last: int, span: int) -> Density:
    """Count some pieces of the accesses, with buckets for a span."""
    found = Density(span)
    for number in range(first, last):
        found.count(trace.piece("accesses", number, ("icount", "device")))
    return found
