"""Moves by functions, against the same done instruction by instruction."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from workbench.trace import symbols
from workbench.trace.reader import Trace
from workbench.trace.timeline import Timeline
from workbench.tui import commands, flow, moves
from workbench.tui.session import Session
from workbench.tui.view import View

Point = tuple[int, int, int]
"""Count, PC, stack pointer."""


def never() -> bool:
    return False


class Run:
    """A stretch of the demo, every instruction of it written down."""

    def __init__(self, trace: Trace) -> None:
        self.timeline = Timeline(trace)
        self.span = symbols.of_trace(trace).span
        self.points: list[Point] = []

    def read(self, rng: random.Random, count: int) -> None:
        """Read around an access."""
        icounts = self.timeline.trace.accesses["icount"].to_pylist()
        self.timeline.seek(max(rng.choice(icounts) - count // 2, 0))
        self.points = [self.here()]
        for _ in range(count):
            self.timeline.step()
            self.points.append(self.here())

    def here(self) -> Point:
        cpu = self.timeline.machine.cpu
        return self.timeline.icount, cpu.linear_pc, cpu.get("rsp")

    def after(self, place: int, wanted: Callable[[Point], bool]) -> Point | None:
        return next((p for p in self.points[place + 1 :] if wanted(p)), None)

    def call_at(self, place: int) -> int:
        """Where the call at a place comes back; 0 if there is none."""
        self.timeline.seek(self.points[place][0])
        found = moves._here(self.timeline)
        return found.address + found.size if found is not None and found.is_call else 0


@pytest.fixture
def run(trace: Trace) -> Run:
    return Run(trace)


def handlers(run: Run, first: int, last: int) -> bool:
    """Was the guest interrupted between two counts?"""
    return any(first <= n <= last for n in run.timeline.interrupts()[0])


@pytest.mark.parametrize("seed", range(3))
def test_calls_as_a_whole_there_and_back(run: Run, seed: int) -> None:
    rng = random.Random(seed)
    run.read(rng, 3000)
    timeline, seen = run.timeline, 0
    for place in range(2500):
        count, _, sp = run.points[place]
        behind = run.points[place + 1][2] == sp - 8 and run.call_at(place)
        if not behind or seen == 12:
            continue
        back = run.after(place, lambda p, sp=sp, behind=behind: p[1:] == (behind, sp))  # type: ignore[misc]
        if back is None or handlers(run, count, back[0]):
            continue
        seen += 1
        timeline.seek(count)
        assert moves.over(timeline, never) is None
        assert run.here() == back
        assert moves.over_back(timeline, never) is None
        assert run.here() == run.points[place]
        # In the middle of it, on any level below.
        inside = rng.randrange(place + 1, place + back[0] - count)
        if run.points[inside][2] != sp - 8:
            continue
        timeline.seek(run.points[place + 1][0])
        frames = ((0, 0, 0), (behind, sp, 0)) if rng.random() < 0.5 else ()
        assert moves.finish(timeline, never, frames, run.span) is None
        assert run.here() == back
        timeline.seek(run.points[inside][0])
        assert moves.finish_back(timeline, never, frames, run.span) is None
        assert run.here() == run.points[place]
    assert seen > 3


@pytest.mark.parametrize("seed", range(3))
def test_until_the_function_changes(run: Run, seed: int) -> None:
    rng = random.Random(seed)
    run.read(rng, 2500)
    timeline, seen = run.timeline, 0
    for place in rng.sample(range(500, 2000), 40):
        count, pc, _ = run.points[place]
        span = run.span(pc)
        assert span is not None
        changed = run.after(place, lambda p, span=span: run.span(p[1]) != span)  # type: ignore[misc]
        if changed is not None and not handlers(run, count, changed[0]):
            timeline.seek(count)
            assert moves.function(timeline, never, run.span) is None
            assert run.here() == changed
            seen += 1
        entered = next(
            (n for n in range(place - 1, 0, -1)
             if run.span(run.points[n][1]) != run.span(run.points[n - 1][1])), None
        )  # fmt: skip
        if entered is not None and not handlers(run, run.points[entered][0] - 100, count):
            timeline.seek(count)
            assert moves.function_back(timeline, never, run.span) is None
            assert run.here() == run.points[entered]
            seen += 1
    assert seen > 10


def test_without_symbols_a_function_ends_at_a_call_or_a_return(run: Run) -> None:
    run.read(random.Random(1), 400)
    timeline = run.timeline
    timeline.seek(run.points[0][0])
    assert moves.function(timeline, never, lambda pc: None) is None
    place = timeline.icount - run.points[0][0]
    assert run.here() == run.points[place]
    assert run.points[place][2] != run.points[place - 1][2]  # it was pushed or popped


def test_a_breakpoint_in_a_call_ends_it(session: Session) -> None:
    session.go_to_row(40)
    travel = session.travel
    while moves._here(session.timeline).is_call is False:  # type: ignore[arg-type,union-attr]
        session.travel.step(1)
    start = session.icount
    travel.step(1)
    travel.step(3)
    assert session.moment is not None
    inside = session.icount
    session.toggle_breakpoint(session.moment.pc)
    session.go(start)
    travel.over()
    assert (session.icount, session.message) == (inside, "breakpoint")
    travel.finish()
    assert session.icount > inside
    travel.finish(False)
    assert session.icount <= inside
    session.breakpoints.clear()
    session.go(start)
    travel.over()
    behind = session.icount
    assert behind > inside
    travel.over(False)
    assert session.icount == start


def test_commands_and_ends(session: Session, view: View) -> None:
    session.go(0)
    for what in ("over", "finish", "function", "block"):
        commands.run(view, f"back {what}")
        assert session.icount == 0
    session.go(session.end_icount)
    for what in ("over", "function"):
        commands.run(view, f"step {what}")
        assert session.icount == session.end_icount


def test_ways_out() -> None:
    # 0: jne 0x40; 2: call 0x100; 7: jmp [rax]; 9: jmp 0; b: mov rsp, rax; e: ret
    code = bytes.fromhex("753e" "e8f9000000" "ff20" "ebf5" "4889c4" "c3")  # fmt: skip
    assert len(code) == 15

    def read(address: int, count: int) -> bytes:
        return code[address : address + count] if address < len(code) else b""

    ways = flow.of_function(read, 0, len(code), 64, lambda a: a < len(code))
    assert ways is not None
    assert (ways.always, ways.targets, ways.calls) == ({2, 7, 14}, {0x40}, {2: 7})
    assert ways.other_stack
    reached = flow.reached(read, 9, 64)
    assert reached is not None
    assert (reached.always, reached.targets, reached.other_stack) == ({2}, {0x40}, False)
    assert flow.calls_before(read, 7, 64) == {2}
    assert flow.of_function(read, 0, 1 << 20, 64, lambda a: True) is None
