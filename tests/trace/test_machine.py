"""Recording and replaying on the real machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.trace import guests
from workbench.core.config import MachineConfig
from workbench.core.machine import Machine
from workbench.firmware import demo
from workbench.trace.explain import describe_divergence
from workbench.trace.guest import Guest
from workbench.trace.pace import Pace
from workbench.trace.reader import open_trace
from workbench.trace.replayer import Replay, ReplayResult
from workbench.trace.session import Limits, Outcome, Recording
from workbench.trace.timeline import Timeline

CONFIG = MachineConfig(ram_bytes=32 << 20, seed=1, rtc_epoch_s=1_767_225_600)
DEMO = Guest(demo.image(), kernel_path="demo.elf")


def record(path: Path, guest: Guest, **limits: Any) -> tuple[Recording, Outcome]:
    recording = Recording(str(path), CONFIG.to_json(), guest, limits=Limits(**limits))
    return recording, recording.run()


def replay(path: Path, change: Callable[[Machine], None] | None = None) -> ReplayResult:
    with open_trace(path) as trace:
        run = Replay(trace)
        assert isinstance(run.machine, Machine)
        if change is not None:
            change(run.machine)
        result = run.run()
        text = result.message
        if result.divergence is not None:
            before = run.events_before(result.divergence.index)
            text = describe_divergence(result.divergence, run.machine, before)
        return replace(result, message=text)


@pytest.fixture(scope="module")
def demo_trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "demo.wbt"
    _, outcome = record(path, DEMO, icount=2_000_000_000)
    assert outcome.stop == "shutdown", outcome
    return path


def test_the_demo_replays(demo_trace: Path) -> None:
    first = replay(demo_trace)
    assert first.identical, first.message
    with open_trace(demo_trace) as trace:
        assert trace.end is not None
        assert first.digest == trace.end.digest
        devices = set(trace.accesses["device"].to_pylist())
        assert len(devices) > 4
        assert trace.rows("interrupts") > 3
        assert b"\n" in trace.console_bytes("com1")


def test_where_slices_end_is_never_seen(demo_trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = replay(demo_trace)
    lengths = iter([1, 2, 3, 5, 8, 13, 1000, 12_345] * 10**6)
    monkeypatch.setattr(
        Pace, "start", lambda self, icount, *bounds: min([icount + next(lengths), *bounds])
    )
    assert replay(demo_trace).digest == expected.digest


def test_every_access_is_there(tmp_path: Path) -> None:
    _, outcome = record(tmp_path / "t", guests.CHIPS)
    assert (outcome.stop, outcome.code) == ("shutdown", 7)
    with open_trace(tmp_path / "t") as trace:
        assert trace.console_bytes("com1") == b"A" * 300
        rows = trace.accesses.to_pylist()
        assert [row["addr"] for row in rows if row["kind"] == "pio"] == [
            *(0x3FD, 0x3F8, 0xCF8, 0xCFC) * 300,
            0xF4,
        ]
        first = next(row for row in rows if row["kind"] == "cfg")
        assert (first["device"], first["offset"], first["size"]) == ("i440fx", 0, 4)
        assert first["value"] == 0x12378086
        assert rows[0]["pc"] == 0x100029
    assert replay(tmp_path / "t").identical


def test_a_device_that_answers_otherwise(tmp_path: Path) -> None:
    record(tmp_path / "t", guests.CHIPS)

    def lie(machine: Machine) -> None:
        window = machine.pio.find(0x3F8)
        assert window is not None
        honest, count = window.read, [0]

        def read(offset: int, size: int) -> int:
            count[0] += 1
            return honest(offset, size) ^ (0x20 if count[0] == 200 else 0)

        window.read = read

    result = replay(tmp_path / "t", lie)
    assert not result.identical
    assert result.divergence is not None
    assert result.divergence.pc == 0x100029
    assert "recorded com1 pio read of 1 at 0x5 -> 0x60 LSR[" in result.message
    assert "replayed com1 pio read of 1 at 0x5 -> 0x40 LSR[" in result.message


def test_what_is_typed_comes_back(tmp_path: Path) -> None:
    recording = Recording(str(tmp_path / "t"), CONFIG.to_json(), guests.ECHO)
    typed = [b"he", b"l", b"lo", b"", b"q"]

    def type_on(device: str, data: bytes) -> None:
        recording.machine.inputs.post("com1", "rx", typed.pop(0) if typed else b"")

    recording.recorder.console_sink = type_on
    type_on("", b"")
    outcome = recording.run()
    assert outcome.stop == "shutdown"
    with open_trace(tmp_path / "t") as trace:
        assert trace.console_bytes("com1") == b"helloq"
        assert trace.rows("inputs") >= 5
    assert replay(tmp_path / "t").identical


@pytest.mark.parametrize("icount", [1, 2, 12_345, 5_000_000])
def test_a_limit_is_exact(tmp_path: Path, icount: int) -> None:
    _, outcome = record(tmp_path / "t", guests.SPIN, icount=icount)
    assert (outcome.stop, outcome.icount) == ("limit", icount)
    result = replay(tmp_path / "t")
    assert result.identical, result.message
    assert result.icount == icount


@pytest.mark.parametrize(
    ("guest", "stop"), [(guests.FAULT, "triple-fault"), (guests.HALT, "halted")]
)
def test_bad_ends_replay_too(tmp_path: Path, guest: Guest, stop: str) -> None:
    _, outcome = record(tmp_path / "t", guest, wall_s=10)
    assert outcome.stop == stop
    result = replay(tmp_path / "t")
    assert (result.identical, result.stop) == (True, stop)


def test_digests_on_the_way(tmp_path: Path) -> None:
    record(tmp_path / "t", guests.SPIN, icount=50_000, digest_every=7_000)
    with open_trace(tmp_path / "t") as trace:
        full = [row["digest"] for row in trace.digests.to_pylist() if row["scope"] == "full"]
        assert len(full) == len(set(full)) == 8
    assert replay(tmp_path / "t").identical


def test_a_killed_recorder(tmp_path: Path) -> None:
    (tmp_path / "guest").write_bytes(guests.ECHO.kernel)
    process = subprocess.Popen(
        [sys.executable, "-m", "workbench", "record", "--kernel", str(tmp_path / "guest"),
         "-o", str(tmp_path / "t"), "-m", "32", "--seed", "1"],
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    deadline = time.monotonic() + 120
    path = tmp_path / "t"
    while not (path.exists() and path.stat().st_size > 20_000):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    result = replay(path)
    assert result.identical, result.message
    assert result.cut
    assert result.events > 1000


def test_the_same_recording_twice(tmp_path: Path) -> None:
    digests = {record(tmp_path / name, DEMO)[1].digest for name in ("a", "b")}
    assert len(digests) == 1


def test_a_guest_that_hears_no_timer_ends_when_it_is_told(tmp_path: Path) -> None:
    """It is halted, and its timers go on for ever."""
    path = tmp_path / "dead.wbt"
    config = MachineConfig(ram_bytes=16 << 20, rtc_epoch_s=1_767_225_600, seed=1).to_json()
    limits = Limits(wall_s=0.2)
    outcome = Recording(str(path), config, guests.DEAD, limits=limits).run()
    assert outcome.stop == "limit"
    with open_trace(path) as trace:
        result = Replay(trace).run()
        assert (result.identical, result.time_ps) == (True, outcome.time_ps)
        timeline = Timeline(trace)
        assert timeline.go().kind == "end"
        assert timeline.seek(timeline.end_icount).kind in ("icount", "end")


def test_an_idle_guest_gets_an_input_between_its_deadlines(tmp_path: Path) -> None:
    """Not at the deadline, where it would find that all its timers have run out."""
    path = tmp_path / "idle.wbt"
    recording = Recording(str(path), CONFIG.to_json(), guests.SLOW, limits=Limits(wall_s=0.5))
    recording.interactive = True
    machine = recording.machine
    assert isinstance(machine, Machine)
    pit = next(t for t in machine.clock.timers if t.name.startswith("pit"))
    later = threading.Timer(0.2, lambda: machine.inputs.post("com1", "rx", b"x"))
    later.start()
    outcome = recording.run()
    later.join()
    assert outcome.stop == "limit"
    period_ps = 65536 * 10**12 // 1_193_182
    with open_trace(path) as trace:
        (row,) = trace.inputs.to_pylist()
    assert pit.deadline_ps is not None
    distance_ps = (pit.deadline_ps - row["time_ps"]) % period_ps
    assert 10**6 < distance_ps < period_ps - 10**6
    assert replay(path).identical
