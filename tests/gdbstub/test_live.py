"""gdb on a machine while it is recorded, and on its past."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gdbstub.test_gdb import Gdb
from tests.trace.guests import DEAD, HALT, SPIN
from workbench.core.config import MachineConfig
from workbench.firmware import demo
from workbench.gdbstub.live import LiveDebugger
from workbench.gdbstub.server import Server, listen
from workbench.gdbstub.stub import Stub
from workbench.gdbstub.target import ReplayTarget
from workbench.trace.guest import Guest
from workbench.trace.live import LiveTimeline
from workbench.trace.reader import open_trace
from workbench.trace.replayer import Replay
from workbench.trace.session import Limits, Outcome, Recording

pytestmark = pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")


class Live:
    """A recording in a thread, which gdb may drive."""

    def __init__(self, folder: Path, config: dict[str, object], guest: Guest) -> None:
        self.path = folder / "live.wbt"
        self.recording = Recording(str(self.path), config, guest)
        self.timeline = LiveTimeline(self.recording)
        self.server = Server(
            Stub(ReplayTarget(self.timeline)), listen(f"unix:{folder / 'gdb'}")
        ).__enter__()
        self.recording.driver = LiveDebugger(self.server, self.timeline, wait=True).run
        self.outcomes: list[Outcome] = []
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()
        self.gdb = Gdb(self.server.address)

    def _work(self) -> None:
        self.outcomes.append(self.recording.run())

    def close(self) -> None:
        """Wait for the end of the recording, and end gdb."""
        self.thread.join(20)
        self.gdb.close()
        self.server.__exit__(None, None, None)
        assert not self.thread.is_alive()

    def ends_like(self, path: Path) -> bool:
        """Wait for the end: is the trace that of a run without a debugger, and right?"""
        self.thread.join(30)
        assert self.outcomes
        with open_trace(self.path) as trace, open_trace(path) as plain:
            assert trace.end is not None
            assert plain.end is not None
            assert Replay(trace).run().identical
            return trace.end.digest == plain.end.digest


@pytest.fixture
def live(tmp_path: Path, demo_path: Path) -> Iterator[Live]:
    with open_trace(demo_path) as trace:
        config = MachineConfig.from_json(trace.header.machine).to_json()
    found = Live(tmp_path, config, Guest(demo.image(), kernel_path="demo.elf"))
    yield found
    found.recording.interrupt()
    found.close()


def test_the_past_of_a_recording_and_on(live: Live, demo_path: Path) -> None:
    gdb = live.gdb
    assert gdb.icount() == 0
    assert "live" in gdb.do("monitor when")
    assert "No more reverse-execution history" in gdb.do("reverse-stepi")
    gdb.do("stepi 3000")
    pc, present = gdb.value("$pc"), gdb.icount()
    gdb.do("reverse-stepi")
    assert gdb.icount() == present - 1
    assert "in the past" in gdb.do("monitor when")
    gdb.do("monitor seek 1000")
    assert gdb.icount() == 1000
    there = gdb.value("$pc")
    gdb.do(f"hbreak *{there:#x}")
    gdb.do("continue")
    assert 1000 < gdb.icount() < present
    gdb.do("delete")
    gdb.do("monitor seek end")
    gdb.do("maintenance flush register-cache")
    assert (gdb.icount(), gdb.value("$pc")) == (present, pc)
    assert "live" in gdb.do("monitor when")
    gdb.do("reverse-stepi")
    gdb.do("stepi 2")
    assert gdb.icount() == present + 1
    gdb.do("detach")
    assert live.ends_like(demo_path)


def test_writing_leaves_the_recording(live: Live, demo_path: Path) -> None:
    gdb = live.gdb
    gdb.do("stepi 3000")
    present = gdb.icount()
    rax = gdb.value("$rax")
    gdb.do("set $rax = 0x55")
    assert gdb.value("$rax") == 0x55
    assert "off the recording" in gdb.do("monitor when")
    gdb.do("stepi 10")
    gdb.do("monitor drop")
    gdb.do("maintenance flush register-cache")
    assert gdb.icount() == present
    assert gdb.value("$rax") == rax
    gdb.do("stepi 10")
    gdb.do("set $rax = 0x66")
    gdb.do("detach")
    assert live.ends_like(demo_path)


@pytest.mark.parametrize("guest", [SPIN, HALT, DEAD], ids=["spin", "halt", "dead"])
def test_ctrl_c_a_second_debugger_and_kill(tmp_path: Path, guest: Guest) -> None:
    config = MachineConfig(ram_bytes=16 << 20, rtc_epoch_s=1_767_225_600, seed=1).to_json()
    live = Live(tmp_path, config, guest)
    live.recording.interactive = True  # an idle guest waits for real time
    gdb = live.gdb
    gdb.interrupted("continue", 0.2)
    present = gdb.icount()
    assert present > 0
    gdb.do("reverse-stepi")
    assert gdb.icount() == present - 1
    gdb.do("stepi")
    if guest is not SPIN:  # no instruction follows
        assert gdb.icount() == present
        gdb.interrupted("stepi", 0.2)
        assert gdb.icount() == present
        gdb.do("monitor watch irq gsi2")
        gdb.interrupted("continue", 0.2)
    gdb.do("detach")
    gdb.do(f"target remote {live.server.address}")
    assert "live" in gdb.do("monitor when")
    gdb.do("reverse-stepi")
    assert "in the past" in gdb.do("monitor when")
    gdb.do("kill")
    live.close()
    assert [outcome.stop for outcome in live.outcomes] == ["interrupted"]
    with open_trace(live.path) as trace:
        assert trace.closed
        assert Replay(trace).run().identical


def test_a_debugger_that_vanishes(live: Live, demo_path: Path) -> None:
    gdb = live.gdb
    gdb.do("stepi 500")
    gdb.do("hbreak *$pc")
    gdb.do("watch *(long *)$sp")
    gdb.do("reverse-stepi 20")
    gdb.do("set $rax = 1")
    gdb.close()
    assert live.ends_like(demo_path)


def test_what_devices_do_is_met_both_ways(live: Live, demo_path: Path) -> None:
    gdb = live.gdb
    gdb.do("monitor watch com1.THR write value 0x0a")
    gdb.do("continue")
    first = gdb.icount()
    gdb.do("continue")
    second = gdb.icount()
    gdb.do("reverse-continue")
    assert gdb.icount() == second - 1
    gdb.do("reverse-continue")
    assert gdb.icount() == first - 1
    assert str(second - 1) not in gdb.do("monitor log 1").replace(",", "")
    gdb.do("continue")
    assert gdb.icount() == first
    gdb.do("continue")
    assert gdb.icount() == second
    assert "live" in gdb.do("monitor when")
    gdb.do("monitor unwatch")
    gdb.do("continue")
    assert "shutdown" in gdb.do("monitor when")
    gdb.do("reverse-stepi")
    assert "in the past" in gdb.do("monitor when")
    assert not live.outcomes
    gdb.do("detach")
    assert live.ends_like(demo_path)


def test_a_limit_ends_it_and_the_past_is_there(live: Live) -> None:
    gdb = live.gdb
    live.recording.limits = Limits(icount=20_000)
    gdb.do("continue")
    assert gdb.icount() == 20_000
    assert "limit" in gdb.do("monitor when")
    gdb.do("reverse-stepi")
    assert gdb.icount() == 19_999
    live.recording.interrupt()
    live.thread.join(20)
    assert [outcome.stop for outcome in live.outcomes] == ["limit"]
    with open_trace(live.path) as trace:
        assert Replay(trace).run().identical
