"""The call chain of each access: a replay with an observer that unwinds the guest's stack.

Chains repeat, so each is kept once and an access has its number. A trace with checkpoints is
replayed in parts, those that are wanted, some at once. What was found is kept in the cache.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final

import numpy as np

from workbench.core.build import source_key
from workbench.trace import findings, fleet, parts
from workbench.trace.columns import integers
from workbench.trace.events import EventObserver
from workbench.trace.guest import Builder
from workbench.trace.reader import Trace
from workbench.trace.replayer import Replay
from workbench.trace.symbols import SymbolTable
from workbench.trace.unwind import Unwinder

__all__ = ["MOST_CHAINS", "NO_CHAIN", "Chain", "Stacks", "names", "of_trace"]

MOST_CHAINS: Final = 1 << 18
NO_CHAIN: Final = -1
_PARTS: Final = 8
_KEPT: Final = 16
_MAX_CACHE_BYTES: Final = 512 << 20
_HEAD: Final = struct.Struct("<QQQ?")

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
    each_access = True

    def __init__(
        self, replay: Replay, devices: tuple[str, ...], first: int, last: int, most: int
    ) -> None:
        super().__init__()
        machine: Any = replay.machine
        self.found = Stacks()
        self._unwinder = Unwinder(machine)
        self._replay = replay
        self._machine = machine
        self._devices = devices
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
            wanted = any(fnmatchcase(device, pattern) for pattern in self._devices)
            self._wanted[device] = wanted
        return wanted

    def _number(self, pc: int) -> int:
        chain = self._unwinder.chain(pc)
        self.found.has_orc = self._unwinder.has_orc
        number = self._numbers.get(chain)
        if number is None:
            if len(self._numbers) >= MOST_CHAINS:
                return NO_CHAIN
            number = self._numbers[chain] = len(self._numbers)
            self.found.chains.append(chain)
        return number


def of_trace(
    trace: Trace,
    devices: Sequence[str] = (),
    first: int = 0,
    last: int = 1 << 62,
    *,
    jobs: int | None = None,
    build: Builder | None = None,
) -> Stacks:
    """Replay a trace up to `last`, and unwind at each access from `first` on to devices with one of
    these names (with * and ?; all without).

    A trace with checkpoints is cut into the same parts whatever `jobs` is (by default a process for
    each core), and a part does not know the others, so neither does the result.
    """
    wanted = tuple(devices) or ("*",)
    asked = {"devices": list(wanted), "first": first, "last": last, "engine": source_key()}
    name = findings.name_of("stacks", trace, asked)
    found = _load(name, trace)
    if found is None:
        watched = (wanted, first, last, trace.rows("accesses"))
        found = _of_parts(trace, watched, jobs) if build is None else None
        if found is None:
            replay = Replay(trace, build=build)
            observer = _Observer(replay, *watched)
            replay.machine.observers.append(observer)
            result = replay.run()
            found = observer.found
            found.diverged = result.divergence is not None
        if not found.diverged and build is None:
            _keep(name, found)
    return found


def _of_parts(
    trace: Trace, watched: tuple[tuple[str, ...], int, int, int], jobs: int | None
) -> Stacks | None:
    """The same from the checkpoints in the trace; None if there are none, or if they do not fit."""
    _, first, last, _ = watched
    plan = [
        part
        for part in parts.plan(trace, _PARTS)
        if part.start <= last and (part.end is None or part.end >= first)
    ]
    if len(plan) < 2 and plan[0].checkpoint == parts.BEGINNING:
        return None
    seqs = np.concatenate(
        [np.empty(0, np.int64), *(integers(b["seq"]) for b in trace.batches("accesses", ("seq",)))]
    )
    found = Stacks()
    numbers: dict[Chain, int] = {}
    calls = [(trace.path, part, False, _Observer, watched) for part in plan]
    for outcome in fleet.spread(parts.replay_part, calls, jobs=jobs):
        if outcome is None or outcome.result.divergence is not None or outcome.result.message:
            return None
        before = int(np.searchsorted(seqs, outcome.first))
        missing = before - len(found.of_access)
        if missing < 0 or (missing and outcome.start != plan[0].start):
            return None
        found.of_access.extend([NO_CHAIN] * missing)
        own = [numbers.setdefault(chain, len(numbers)) for chain in outcome.found.chains]
        found.of_access.extend(
            NO_CHAIN if n == NO_CHAIN else own[n] for n in outcome.found.of_access
        )
        found.has_orc |= outcome.found.has_orc
    found.chains = list(numbers)
    return found


def _keep(name: str, found: Stacks) -> None:
    lengths = np.array([len(chain) for chain in found.chains], "<u2")
    pcs = np.array([pc for chain in found.chains for pc in chain], "<u8")
    of_access = np.array(found.of_access, "<i4")
    head = _HEAD.pack(len(lengths), len(pcs), len(of_access), found.has_orc)
    data = b"".join((head, lengths.tobytes(), pcs.tobytes(), of_access.tobytes()))
    if len(data) <= _MAX_CACHE_BYTES:
        findings.keep(name, data, _KEPT)


def _load(name: str, trace: Trace) -> Stacks | None:
    data = findings.load(name, _MAX_CACHE_BYTES)
    if data is None:
        return None
    try:
        count, frames, accesses, has_orc = _HEAD.unpack_from(data)
        at = _HEAD.size
        lengths = np.frombuffer(data, "<u2", count, at)
        pcs = np.frombuffer(data, "<u8", frames, at + 2 * count).tolist()
        of_access = np.frombuffer(data, "<i4", accesses, at + 2 * count + 8 * frames)
        inside = of_access.min(initial=-1) >= -1 and of_access.max(initial=-1) < count
        if int(lengths.sum()) != frames or accesses > trace.rows("accesses") or not inside:
            return None
    except (ValueError, OverflowError, struct.error):
        return None
    ends = np.cumsum(lengths, dtype=np.int64).tolist()
    chains = [tuple(pcs[end - n : end]) for end, n in zip(ends, lengths.tolist(), strict=True)]
    return Stacks(chains, array("i", of_access.tolist()), has_orc)


def names(chain: Chain, table: SymbolTable | None, *, offsets: bool = True) -> list[str]:
    """The functions of a chain, the innermost first. A return address may already be behind the
    function that called, so the byte before it is looked up.
    """
    if table is None:
        return [f"{pc:#x}" for pc in chain]
    name = table.text if offsets else table.function
    return [name(pc - 1 if n and pc else pc) for n, pc in enumerate(chain)]
