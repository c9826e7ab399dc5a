"""The debugger's side of the bench: its client at a real stub, and its table."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from bench.gdb import BACK, CONDITION, SEEK, STEP, Latencies, to_json, to_markdown
from bench.gdb_client import Gone, Remote
from tests.gdbstub.conftest import demo_path
from workbench.gdbstub import agent
from workbench.gdbstub.server import Server, listen
from workbench.gdbstub.stub import Stub
from workbench.gdbstub.target import ReplayTarget
from workbench.trace.reader import open_trace
from workbench.trace.timeline import Timeline

__all__ = ["demo_path"]


def test_the_client_at_a_stub(demo_path: Path, tmp_path: Path) -> None:
    with open_trace(demo_path) as trace:
        timeline = Timeline(trace)
        path = tmp_path / "gdb"
        with Server(Stub(ReplayTarget(timeline)), listen(f"unix:{path}")) as server:
            thread = threading.Thread(target=server.serve)
            thread.start()
            remote = Remote(path, 20)
            try:
                assert "no such" not in remote.monitor("seek 5000")
                assert "5,000" in remote.monitor("when") or "5000" in remote.monitor("when")
                assert remote.pc() == timeline.machine.cpu.get("rip")
                assert remote.ask("bs").startswith("T05")
                assert timeline.icount == 4999
                assert remote.ask(f"Z1,{remote.pc():x},1;X{len(CONDITION):x},{CONDITION.hex()}")
                assert remote.ask("c").startswith("T05replaylog:end")
                with pytest.raises(Gone, match="in time"):
                    remote.receive(0.05)
            finally:
                remote.send("k")
                thread.join(20)
                remote.close()


def test_the_condition_is_a_valid_expression() -> None:
    agent.verify(CONDITION)


def test_the_table_has_ratios_and_notes() -> None:
    found = Latencies(replay_s=[2.0, 2.0], kept_s=[2.1, 2.08])
    for seconds in (0.001, 0.002, 0.004):
        found.add(STEP, "workbench", seconds)
    found.add(STEP, "qemu", 20.0)
    found.add(STEP, "qemu", 40.0, "once none in 240 s")
    found.add(SEEK, "workbench", 0.05)
    found.add(BACK, "workbench", 9.0, "to an access of com1.LCR", cpu_seconds=2.5)
    text = to_markdown(found)
    assert "| 2.0 ms | 1.0 ms to 4.0 ms |  | 30.00 s | 20.00 s to 40.00 s (once none" in text
    assert "| 15,000 |" in text
    assert "1.045 (1.040-1.050)" in text
    assert "takes 1.25 times" in text
    assert to_json(found)["replay_cpu_s"] == [2.0, 2.0]
