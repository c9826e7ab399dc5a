"""One long trace in parts, each from a checkpoint in the trace to the next that was chosen.

A part is replayed anywhere: in a process of its own, on another machine. That the parts together
are the run is checked where they meet: a part ends with the event before the one with which the
next begins, and, for a verification, in the state in which the next begins.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from workbench.core.machine import Machine
from workbench.errors import FormatError
from workbench.trace import fleet, tables
from workbench.trace.guest import Builder
from workbench.trace.protocol import StopLike
from workbench.trace.reader import Trace, open_trace
from workbench.trace.replayer import Replay, ReplayResult, Verifier, inputs_of, take_before
from workbench.trace.stored import Stored, listed

BEGINNING: Final = -1
Watch = Callable[..., Any]
"""Makes an observer of a part that is about to be replayed; its `found` is the part's result."""


@dataclass(frozen=True, slots=True)
class Part:
    """Where a part begins: at a checkpoint, or at the beginning; and where it ends, if before the
    end of the trace.
    """

    checkpoint: int
    start: int
    end: int | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a part went: where it began, the place of its first event, states, what was found."""

    start: int
    first: int
    result: ReplayResult
    start_digest: str
    end_digest: str
    found: Any


def plan(trace: Trace, most: int) -> list[Part]:
    """Cut a trace into so many parts or fewer, about equally long; one if it cannot be cut."""
    try:
        icounts = listed(trace)[0] if trace.closed else []
    except FormatError:
        icounts = []
    cuts: list[int] = []
    for n in range(1, most):
        wanted = trace.icount * n // most
        nearest = min(range(len(icounts)), key=lambda i: abs(icounts[i] - wanted), default=None)
        if nearest is not None and nearest not in cuts and icounts[nearest] < trace.icount:
            cuts.append(nearest)
    starts = [(BEGINNING, 0), *((i, icounts[i]) for i in sorted(cuts))]
    ends = [*(start for _, start in starts[1:]), None]
    return [Part(i, start, end) for (i, start), end in zip(starts, ends, strict=True)]


class PartReplay(Replay):
    """A replay of one part. Raises `FormatError` for a checkpoint that is none."""

    def __init__(
        self, trace: Trace, part: Part, *, digests: bool = False, build: Builder | None = None
    ) -> None:
        super().__init__(trace, build=build)
        self.part = part
        self._digests = digests
        self.start_digest = ""
        if part.checkpoint != BEGINNING:
            self.machine.observers.remove(self.observer)
            self.observer = self.verifier = _PartVerifier(trace, part.start)
            self.machine.observers.append(self.observer)

    @property
    def first(self) -> int:
        """The place of the first event of this part."""
        verifier = self.verifier
        return verifier.first if isinstance(verifier, _PartVerifier) else 0

    def _advance(self) -> StopLike:
        part, machine = self.part, self.machine
        inputs = deque(inputs_of(self.trace))
        points = [p for p in self._digest_points() if part.checkpoint < 0 or p[1] > part.start]
        if part.end is not None:
            points = [p for p in points if p[1] <= part.end]
        elif self.trace.end is not None:
            points = points[:-1]  # the last one is that of the end
        seqs = [*(seq for seq, _, _ in points), None]
        # All inputs from the beginning: the checkpoint says how many of them have been.
        machine.inputs.replay(take_before(inputs, seqs[0]))
        if part.checkpoint != BEGINNING:
            stored = Stored(self.trace, cast(Machine, machine))
            if part.checkpoint >= len(stored.icounts):
                raise FormatError(stored.problem or "a checkpoint is gone")
            stored.load(part.checkpoint, lambda _: True)
        if self._digests:
            self.start_digest = machine.digest().hex()
        more: list[Any] = []
        for (_, icount, scope), following in zip(points, seqs[1:], strict=True):
            stop = self._run_to(icount, more)
            if stop.kind not in ("icount", "halted"):
                return stop
            assert self.verifier is not None
            digest = machine.digest() if scope == tables.FULL else b""
            clock = machine.clock
            self.verifier.on_digest(scope, digest, clock.icount, clock.now_ps)
            more = take_before(inputs, following)
        return self._run_to_end(more) if part.end is None else self._run_to(part.end, more)

    def _give(self, inputs: list[Any]) -> None:
        cast(Machine, self.machine).inputs.extend(inputs)

    def _wrong_stop(self, stop: StopLike) -> str:
        if self.part.end is None:
            return super()._wrong_stop(stop)
        icount = self.machine.clock.icount
        if stop.kind in ("icount", "halted") and icount == self.part.end:
            return ""
        return f"the replay did not come to instruction {self.part.end:,}"

    def _last_digest(self) -> str:
        if self.part.end is None:
            return super()._last_digest()
        if isinstance(self.verifier, _PartVerifier):
            self.verifier.settle()
        return self.machine.digest().hex() if self._digests else ""


class _PartVerifier(Verifier):
    """Compares from a checkpoint on. Which events at its instruction count are before it nobody
    has noted: they are those that this part does not make.
    """

    def __init__(self, trace: Trace, start: int) -> None:
        super().__init__(iter(()), cut=False, version=trace.version)
        self.first = 0
        self._trace = trace
        self._start = start
        self._here: list[tables.Event] = []
        self._append = self._collect

    def _collect(self, event: tables.Event) -> None:
        if event[1] <= self._start:
            self._here.append(event)
            return
        self.settle()
        self._append(event)

    def settle(self) -> None:
        """Find the events of this part in the recording."""
        if self._append != self._collect:
            return
        groups = self._trace.numbered_groups(self._start)
        recorded: list[tables.Event] = []
        at = self._trace.events
        rest: list[tables.Event] = []
        for first, group in groups:
            behind = next((n for n, e in enumerate(group) if e[1] > self._start), len(group))
            recorded += [e for e in group[:behind] if e[1] == self._start]
            at, rest = first + behind, group[behind:]
            if rest:
                break
        self._append = self._compare
        self._expected = iter(rest)
        self._groups = (group for _, group in groups)
        self.first = self.index = at - len(self._here)
        known = recorded[len(recorded) - len(self._here) :] if self._here else []
        for event, expected in itertools.zip_longest(self._here, known):
            if event != expected:
                self._diverge(event, expected)
            self.index += 1


def replay_part(
    path: str, part: Part, digests: bool, watch: Watch | None, arguments: tuple[Any, ...]
) -> Outcome | None:
    """Replay one part of a trace, in any process; None if its checkpoint cannot be used."""
    with open_trace(path) as trace, contextlib.suppress(FormatError):
        replay = PartReplay(trace, part, digests=digests)
        observer = None
        if watch is not None:
            observer = watch(replay, *arguments)
            replay.machine.observers.append(observer)
        result = replay.run()
        found = None if observer is None else observer.found
        return Outcome(part.start, replay.first, result, replay.start_digest, result.digest, found)
    return None


def joined(outcomes: Sequence[Outcome | None], *, digests: bool) -> list[Outcome] | None:
    """The outcomes, if the parts are the whole run and each is as it was recorded; else None."""
    good = [outcome for outcome in outcomes if outcome is not None]
    if len(good) < len(outcomes) or not all(outcome.result.identical for outcome in good):
        return None
    for one, other in itertools.pairwise(good):
        if one.result.icount != other.start or one.result.events != other.first:
            return None
        if digests and one.end_digest != other.start_digest:
            return None
    return good


def verify(
    path: str, most: int, *, jobs: int | None = None, scheduler: str | None = None
) -> ReplayResult | None:
    """Replay a trace in parts and compare it; None if that does not show that it is identical.

    Then the replay as a whole says what is different, or does without the checkpoints.
    """
    started = time.monotonic()
    with open_trace(path) as trace:
        parts = plan(trace, most)
    if len(parts) < 2:
        return None
    calls = [(path, part, True, None, ()) for part in parts]
    outcomes = list(fleet.spread(replay_part, calls, jobs=jobs, scheduler=scheduler))
    good = joined(outcomes, digests=True)
    if good is None:
        return None
    return replace(good[-1].result, wall_s=time.monotonic() - started)
