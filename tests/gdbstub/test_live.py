"""gdb on a machine while it is recorded."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from tests.gdbstub.test_gdb import Gdb
from workbench.core.config import MachineConfig
from workbench.firmware import demo
from workbench.gdbstub.live import LiveDebugger, LiveTarget
from workbench.gdbstub.server import Server, listen
from workbench.gdbstub.stub import Stub
from workbench.trace.guest import Guest
from workbench.trace.reader import open_trace
from workbench.trace.replayer import Replay
from workbench.trace.session import Limits, Outcome, Recording

pytestmark = pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")


def test_a_recording_is_stepped_and_its_trace_replays(tmp_path: Path, demo_path: Path) -> None:
    path = tmp_path / "live.wbt"
    with open_trace(demo_path) as trace:
        config = MachineConfig.from_json(trace.header.machine).to_json()
    recording = Recording(
        str(path), config, Guest(demo.image(), kernel_path="demo.elf"),
        limits=Limits(icount=50_000_000),
    )  # fmt: skip
    target = LiveTarget(recording)
    outcomes: list[Outcome] = []
    with Server(Stub(target), listen(f"unix:{tmp_path / 'gdb'}")) as server:
        debugger = recording.debugger = LiveDebugger(server, target, wait=True)

        def work() -> None:
            outcomes.append(recording.run())
            debugger.ended()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        gdb = Gdb(server.address)
        assert gdb.icount() == 0
        gdb.do("stepi 3")
        assert gdb.icount() == 3
        assert "does not support" in gdb.do("reverse-stepi")
        gdb.do("hbreak *$pc")
        gdb.do("set $rax = 5")
        assert "cannot be written" in gdb.do("monitor when")
        gdb.do("detach")
        thread.join(20)
        gdb.close()
    assert outcomes
    with open_trace(path) as trace, open_trace(demo_path) as plain:
        assert trace.end is not None
        assert plain.end is not None
        assert trace.end.digest == plain.end.digest
        assert Replay(trace).run().identical
