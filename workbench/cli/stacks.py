"""Call chains for the commands that show them: the replay, and the chain of an access by `seq`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from workbench.cli import engine, text
from workbench.cli.text import complain

if TYPE_CHECKING:
    from workbench.trace.reader import Trace
    from workbench.trace.stacks import Stacks
    from workbench.trace.symbols import SymbolTable

StackOf = Callable[[int], list[str]]
"""The callers of the access with this `seq`, the innermost first."""


def load(trace: Trace, devices: Sequence[str], first: int = 0, last: int = 1 << 62) -> Stacks:
    """Replay a trace for its call chains; says so when the replay was another."""
    from workbench.trace import stacks

    engine.prepare()
    found = stacks.of_trace(trace, devices, first, last)
    if found.diverged:
        complain("the replay differs from the recording; from there on, call chains are missing")
    elif found.chains and not found.has_orc:
        complain(
            "the guest has no ORC tables that could be found; only frame pointers are followed"
        )
    return found


def by_seq(trace: Trace, found: Stacks, table: SymbolTable | None) -> StackOf:
    """Give the callers of an access by its `seq`."""
    import numpy as np

    from workbench.trace.columns import integers
    from workbench.trace.stacks import names

    parts = [integers(batch["seq"]) for batch in trace.batches("accesses", ("seq",))]
    places = np.concatenate(parts) if parts else np.zeros(0, np.int64)
    known: dict[int, list[str]] = {}

    def of(seq: int) -> list[str]:
        number = int(np.searchsorted(places, seq))
        which = found.of_access[number] if number < len(found.of_access) else -1
        if which < 0:
            return []
        callers = known.get(which)
        if callers is None:
            callers = [text.safe(name) for name in names(found.chains[which], table)[1:]]
            known[which] = callers
        return callers

    return of
