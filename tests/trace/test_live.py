"""Time travel while a machine is recorded never changes what is recorded."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from workbench.core.config import MachineConfig
from workbench.core.layout import WATCH_WRITE
from workbench.errors import TraceWriteError
from workbench.firmware import demo
from workbench.trace.guest import Guest
from workbench.trace.live import LiveTimeline
from workbench.trace.moved import Moved
from workbench.trace.reader import Trace, open_trace
from workbench.trace.replayer import Replay
from workbench.trace.session import Limits, Outcome, Recording
from workbench.trace.timeline import Timeline


def recording(path: Path) -> Recording:
    config = MachineConfig(ram_bytes=64 << 20, rtc_epoch_s=1_767_225_600, seed=1)
    guest = Guest(demo.image(), kernel_path="demo.elf")
    return Recording(str(path), config.to_json(), guest, limits=Limits(icount=50_000_000))


def travel(path: Path) -> LiveTimeline:
    timeline = LiveTimeline(recording(path))
    timeline.kept.spacing_icount, timeline.kept.saving_share = 200_000, 1e9
    timeline.kept.gap_s = 0
    return timeline


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The run that nobody looks at."""
    return recording(tmp_path_factory.mktemp("plain") / "plain.wbt").run()


def act(timeline: LiveTimeline, rng: random.Random, pcs: list[int]) -> None:
    pcs.append(timeline.machine.cpu.get("rip"))
    timeline.breakpoints = set(rng.sample(pcs, min(len(pcs), rng.randrange(4))))
    stack = timeline.machine.cpu.get("rsp") & ~7
    timeline.watches = [(stack - 64, stack, rng.choice([1, 2, 3]))] * rng.randrange(2)
    match rng.randrange(10):
        case 0:
            timeline.seek(rng.randrange(timeline.end_icount + 1))
        case 1:
            timeline.step(rng.randrange(1, 300))
        case 2:
            timeline.step_back(rng.randrange(1, 300))
        case 3:
            timeline.go(until=timeline.icount + rng.randrange(200_000))
        case 4:
            timeline.seek_present()
            timeline.breakpoints, timeline.watches = set(), []
            timeline.go(until=timeline.icount + rng.randrange(200_000))
        case 5:
            timeline.go_back()
        case 6:
            timeline.step_masked()
        case 7:
            timeline.step_back_masked()
        case 8:
            assert len(timeline.trace.accesses) == timeline.trace.rows("accesses")
            timeline.last_writer(stack - 8, 8, stack - 8) if timeline.diverted is None else None
        case 9:
            timeline.divert()
            timeline.machine.cpu.set("rax", rng.getrandbits(64))
            timeline.machine.memory.write(0x2000, b"poked")
            timeline.step(rng.randrange(20))


@pytest.mark.parametrize("seed", range(4))
def test_random_actions_change_nothing(tmp_path: Path, plain: Outcome, seed: int) -> None:
    rng, pcs = random.Random(seed), [0]
    timeline = travel(tmp_path / "live.wbt")
    for _ in range(120):
        act(timeline, rng, pcs)
    timeline.breakpoints, timeline.watches = set(), []
    timeline.drop_diversion()
    assert timeline.go().kind == "end"
    for _ in range(5):
        act(timeline, rng, pcs)
    outcome = timeline.finish()
    assert (outcome.stop, outcome.digest) == (plain.stop, plain.digest)
    with open_trace(tmp_path / "live.wbt") as trace:
        assert trace.closed
        assert Replay(trace).run().identical


def test_the_past_is_that_of_the_finished_trace(tmp_path: Path) -> None:
    timeline = travel(tmp_path / "live.wbt")
    rng = random.Random(3)
    seen: dict[int, bytes] = {}
    for _ in range(4):
        timeline.go(until=timeline.icount + 700_000)
        assert timeline.is_live
        for _ in range(4):
            icount = rng.randrange(timeline.end_icount)
            timeline.seek(icount)
            assert not timeline.is_live
            seen[icount] = timeline.machine.digest()
        timeline.seek(timeline.end_icount)
        assert timeline.is_live
    assert len(timeline.checkpoints) > 5
    outcome = timeline.finish()
    assert (outcome.stop, outcome.icount) == ("interrupted", timeline.end_icount)
    with open_trace(tmp_path / "live.wbt") as trace:
        assert Replay(trace).run().identical
        closed = Timeline(trace)
        for icount, digest in sorted(seen.items()):
            closed.seek(icount)
            assert closed.machine.digest() == digest


def test_the_trace_so_far_grows_and_is_closed(tmp_path: Path) -> None:
    timeline = travel(tmp_path / "live.wbt")
    counts = []
    for _ in range(3):
        timeline.go(until=timeline.icount + 20_000)
        trace = timeline.trace
        assert trace is timeline.trace
        assert (trace.closed, trace.icount) == (False, timeline.end_icount)
        with open_trace(trace.path) as fresh:
            assert fresh.accesses == trace.accesses
            assert fresh.chunks() == trace.chunks()
        counts.append(trace.rows("accesses"))
    assert counts == sorted(counts)
    assert counts[-1] > 100
    timeline.finish()
    trace = timeline.trace
    assert trace.closed
    assert trace.end is not None
    with open_trace(trace.path) as fresh:
        assert fresh.chunks() == trace.chunks()
    timeline.seek(30_000)
    assert timeline.icount == 30_000
    assert timeline.finish().icount == trace.icount


def test_a_move_forward_goes_through_the_present(tmp_path: Path) -> None:
    timeline = travel(tmp_path / "live.wbt")
    timeline.go(until=100_000)
    timeline.seek(99_990)
    assert timeline.step(30) == Moved("icount")
    assert (timeline.icount, timeline.end_icount, timeline.is_live) == (100_020, 100_020, True)
    timeline.breakpoints = {timeline.machine.cpu.get("rip")}
    timeline.seek(50_000)
    assert timeline.go().kind == "breakpoint"
    timeline.breakpoints = set()
    timeline.seek(50_000)
    asked: list[float | None] = []
    assert timeline.go(lambda: bool(asked.append(timeline.progress))).kind == "end"
    assert asked[-1] is None  # nobody knows how long a recording will be


def test_typing_in_the_past_waits_for_the_present(tmp_path: Path) -> None:
    timeline = travel(tmp_path / "live.wbt")
    timeline.go(until=1_000_000)
    timeline.seek(500_000)
    timeline.type(b"x")
    timeline.go(until=900_000)
    timeline.seek(1_000_000)
    timeline.go(until=1_100_000)
    rows = timeline.trace.inputs.to_pylist()
    assert [(row["target"], row["data"]) for row in rows] == [("com1", b"x")]
    assert rows[0]["icount"] >= 1_000_000
    timeline.seek(rows[0]["icount"] + 10)
    timeline.go(until=timeline.end_icount)
    timeline.finish()
    with open_trace(tmp_path / "live.wbt") as trace:
        assert Replay(trace).run().identical


def test_a_past_that_cannot_be_read_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeline = travel(tmp_path / "live.wbt")
    timeline.go(until=100_000)
    monkeypatch.setattr(timeline.recording.recorder, "failure", TraceWriteError("the disk is full"))
    with pytest.raises(TraceWriteError, match="full"):
        timeline.seek(5)
    assert timeline.is_live
    timeline.recording.recorder.abandon()


def test_an_open_trace_refreshes_nothing_that_is_closed(tmp_path: Path) -> None:
    recording(tmp_path / "closed.wbt").run()
    with Trace(tmp_path / "closed.wbt") as trace:
        chunks = trace.chunks()
        trace.refresh()
        assert trace.chunks() == chunks


def test_it_begins_before_the_guest(tmp_path: Path) -> None:
    begun = recording(tmp_path / "begun.wbt")
    begun.advance(1000)
    with pytest.raises(ValueError, match="not begun"):
        LiveTimeline(begun)
    begun.finish()


def test_states_stay_within_the_budget(tmp_path: Path, plain: Outcome) -> None:
    timeline = LiveTimeline(recording(tmp_path / "live.wbt"), budget_bytes=3 << 20)
    timeline.kept.spacing_icount, timeline.kept.saving_share = 50_000, 1e9
    timeline.kept.gap_s = 0
    least = timeline.kept.used_bytes
    for n in range(40):
        timeline.go(until=timeline.end_icount + 100_000)
        assert timeline.kept.used_bytes <= max(3 << 20, least)
        if n % 8 == 3:
            timeline.seek(timeline.end_icount // 2)
            timeline.step_back(7)
            assert timeline.kept.used_bytes <= max(3 << 20, least)
    timeline.go()
    assert timeline.finish().digest == plain.digest


def test_who_ends_the_recording_is_heard_in_the_past(tmp_path: Path) -> None:
    timeline = travel(tmp_path / "live.wbt")
    timeline.go(until=3_000_000)
    timeline.watches = [(0, 1, WATCH_WRITE)]
    timeline.recording.interrupt()
    assert timeline.go_back(lambda: False) == Moved("interrupted")
    assert timeline.go(lambda: False).kind == "end"
    assert timeline.finish().stop == "interrupted"
