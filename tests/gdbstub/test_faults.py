"""Steps and breakpoints where instruction counts are not enough: faults, their handlers, REP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from workbench.core.config import MachineConfig
from workbench.core.layout import WATCH_WRITE
from workbench.firmware.demo.build import assemble, available
from workbench.trace.guest import Guest
from workbench.trace.handlers import OverHandlers, entries
from workbench.trace.moved import Moved
from workbench.trace.reader import open_trace
from workbench.trace.session import Limits, Recording
from workbench.trace.timeline import Timeline

pytestmark = pytest.mark.skipif(not available(), reason="binutils are not installed")
UD2 = b"\x0f\x0b"


@pytest.fixture(scope="module")
def faulting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faults") / "faults.wbt"
    config = MachineConfig(ram_bytes=16 << 20, rtc_epoch_s=1_767_225_600, seed=1)
    guest = Guest(assemble(Path(__file__).with_name("fault_guest.S")), kernel_path="guest.elf")
    Recording(str(path), config.to_json(), guest, limits=Limits(icount=100_000)).run()
    return path


@pytest.fixture
def timeline(faulting: Path) -> Iterator[Timeline]:
    with open_trace(faulting) as trace:
        yield Timeline(trace)


def place(timeline: Timeline) -> tuple[int, int, bytes]:
    return timeline.icount, timeline.machine.cpu.get("rip"), timeline.machine.digest()


def to_ud2(timeline: Timeline) -> int:
    """Step to the first; gives its address."""
    machine = timeline.machine
    while machine.memory.read(machine.cpu.get("rip"), 2) != UD2:
        assert timeline.step_masked() == Moved("icount")
    return machine.cpu.get("rip")


@pytest.mark.parametrize("retraced", [True, False])
def test_the_way_back_is_the_way_there(timeline: Timeline, retraced: bool) -> None:
    cpu, places = timeline.machine.cpu, [place(timeline)]
    faults = 0
    for _ in range(54):
        assert timeline.step_masked() == Moved("icount")
        faults += timeline.icount == places[-1][0]
        places.append(place(timeline))
    assert faults == 3
    assert len(set(places)) == len(places)
    for expected in reversed(places[:-1]):
        if not retraced:
            timeline._over_handlers = OverHandlers(timeline)
        assert timeline.step_back_masked() == Moved("icount")
        assert (timeline.icount, cpu.get("rip")) == expected[:2]
        assert timeline.machine.digest() == expected[2]
    assert timeline.step_back_masked() == Moved("begin")


def test_a_step_over_a_fault_ends_at_the_handler(timeline: Timeline) -> None:
    cpu = timeline.machine.cpu
    ud2 = to_ud2(timeline)
    count = timeline.icount
    timeline.step_masked()
    assert timeline.icount == count
    assert cpu.get("rip") in entries(timeline.machine)
    assert int.from_bytes(cpu.read_linear(cpu.get("rsp"), 4), "little") == ud2
    timeline.step()  # for everybody else a step is a count
    assert timeline.icount == count + 1


def test_the_handlers_breakpoint_is_not_skipped_with_that_of_the_fault(timeline: Timeline) -> None:
    cpu = timeline.machine.cpu
    ud2 = to_ud2(timeline)
    timeline.step_masked()
    handler = cpu.get("rip")
    timeline.seek(0)
    timeline.breakpoints = {ud2, handler}
    for _ in range(3):
        counts = []
        for expected in (ud2, handler):
            assert timeline.go().kind == "breakpoint"
            assert cpu.get("rip") == expected
            counts.append(timeline.icount)
        assert counts[0] == counts[1]
    assert timeline.go().kind == "end"
    # Without a breakpoint at what faults: that of the handler alone.
    timeline.seek(0)
    to_ud2(timeline)
    timeline.breakpoints = {handler}
    assert timeline.go().kind == "breakpoint"
    assert cpu.get("rip") == handler


def test_a_watch_inside_of_rep(timeline: Timeline) -> None:
    cpu = timeline.machine.cpu
    to_ud2(timeline)
    while cpu.read_linear(cpu.get("rip"), 2) != b"\xf3\xab":
        timeline.step_masked()
    buffer = cpu.get("rdi")
    at, start = buffer + 0x2344, timeline.icount
    timeline.watches = [(at, at + 4, WATCH_WRITE)]
    values = []
    for value in (3, 2, 1):
        assert timeline.go() == Moved("watch", 0)
        assert cpu.read_linear(at, 4) == value.to_bytes(4, "little")
        assert cpu.read_linear(at + 0x2000, 4) != cpu.read_linear(at, 4)  # not at its end
        values.append((timeline.icount, timeline.machine.digest()))
    assert values[0][0] > start
    for icount, _ in reversed(values):
        assert timeline.go_back() == Moved("watch", 0)
        assert timeline.icount == icount - 1
    assert cpu.read_linear(at, 4) == bytes(4)
    for icount, digest in values:
        assert timeline.go() == Moved("watch", 0)
        assert (timeline.icount, timeline.machine.digest()) == (icount, digest)
