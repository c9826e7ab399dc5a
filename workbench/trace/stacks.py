"""The call chain of each access: a replay with an observer that unwinds the guest's stack.

Chains repeat, so each is kept once and an access has its number.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from workbench.trace.events import EventObserver
from workbench.trace.guest import Builder
from workbench.trace.reader import Trace
from workbench.trace.replayer import Replay
from workbench.trace.symbols import SymbolTable
from workbench.trace.unwind import Unwinder

__all__ = ["MOST_CHAINS", "NO_CHAIN", "Chain", "Stacks", "names", "of_trace"]

MOST_CHAINS: Final = 1 << 18
NO_CHAIN: Final = -1

Chain = tuple[int, ...]
"""PC of the access, then return addresses, the innermost first."""


@dataclass(slots=True)
class Stacks:
    """Chains, and the number of that of each access; `NO_CHAIN` where none was asked for."""

    chains: list[Chain] = field(default_factory=list)
    of_access: array[int] = field(default_factory=lambda: array("i"))
    has_orc: bool = False
    diverged: bool = False
    """The replay was not the recording: chains from there on are missing."""

    def chain(self, number: int) -> Chain:
        """The chain of an access, by its number in the log (from 0); empty when unknown."""
        which = self.of_access[number] if 0 <= number < len(self.of_access) else NO_CHAIN
        return () if which == NO_CHAIN else self.chains[which]


class _Observer(EventObserver):
    def __init__(
        self, replay: Replay, device: Callable[[str], bool], first: int, last: int, most: int
    ) -> None:
        super().__init__()
        machine: Any = replay.machine
        self.found = Stacks()
        self.unwinder = Unwinder(machine)
        self._replay = replay
        self._machine = machine
        self._device = device
        self._first, self._last, self._most = first, last, most
        self._wanted: dict[str, bool] = {}
        self._numbers: dict[Chain, int] = {}

    def on_access(
        self, kind: str, device: str, offset: int, size: int, is_write: bool, value: int,
        addr: int, icount: int, pc: int, count: int = 1,
    ) -> None:  # fmt: skip
        if icount > self._last:
            self._replay.interrupt()
            self._machine.interrupt()
            return
        if len(self.found.of_access) >= self._most:
            return
        self.found.of_access.append(
            self._number(pc) if icount >= self._first and self._is_wanted(device) else NO_CHAIN
        )

    def _is_wanted(self, device: str) -> bool:
        wanted = self._wanted.get(device)
        if wanted is None:
            wanted = self._wanted[device] = self._device(device)
        return wanted

    def _number(self, pc: int) -> int:
        chain = self.unwinder.chain(pc)
        number = self._numbers.get(chain)
        if number is None:
            if len(self._numbers) >= MOST_CHAINS:
                return NO_CHAIN
            number = self._numbers[chain] = len(self._numbers)
            self.found.chains.append(chain)
        return number


def of_trace(
    trace: Trace,
    device: Callable[[str], bool] = lambda _: True,
    first: int = 0,
    last: int = 1 << 62,
    build: Builder | None = None,
) -> Stacks:
    """Replay a trace up to `last`, and unwind at each access of these devices from `first` on."""
    replay = Replay(trace, build=build)
    observer = _Observer(replay, device, first, last, trace.rows("accesses"))
    replay.machine.observers.append(observer)
    result = replay.run()
    found = observer.found
    found.has_orc = observer.unwinder.has_orc
    found.diverged = result.divergence is not None
    return found


def names(chain: Chain, table: SymbolTable | None, *, offsets: bool = True) -> list[str]:
    """The functions of a chain, the innermost first. A return address may already be behind the
    function that called, so the byte before it is looked up.
    """
    if table is None:
        return [f"{pc:#x}" for pc in chain]
    name = table.text if offsets else table.function
    return [name(pc - 1 if n and pc else pc) for n, pc in enumerate(chain)]
