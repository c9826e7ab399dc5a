"""The real lldb on a recording: what it asks for when it connects, and its commands."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from workbench.gdbstub.server import Server, listen
from workbench.gdbstub.stub import Stub
from workbench.gdbstub.target import ReplayTarget
from workbench.trace.timeline import Timeline

pytestmark = pytest.mark.skipif(shutil.which("lldb") is None, reason="lldb is not installed")
Lldb = Callable[..., str]


@pytest.fixture
def lldb(timeline: Timeline) -> Iterator[Lldb]:
    """Runs one lldb with commands on the recording, gives what it shows."""
    with Server(Stub(ReplayTarget(timeline)), listen(":0")) as server:
        thread = threading.Thread(target=server.serve, daemon=True)
        thread.start()

        def run(*commands: str) -> str:
            command = ["lldb", "--no-lldbinit", "--batch", "-o", f"gdb-remote {server.address}"]
            for line in commands:
                command += ["-o", line]
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=60,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
            return done.stdout + done.stderr

        yield run
        server.stub.killed = True
        thread.join(5)
        assert not thread.is_alive()


def value(shown: str, register: str) -> int:
    found = re.search(rf"^\s*{register} = (0x[0-9a-f]+)", shown, re.MULTILINE)
    assert found is not None, shown
    return int(found[1], 16)


def test_registers_memory_and_code(lldb: Lldb, timeline: Timeline) -> None:
    timeline.seek(20_000)
    cpu = timeline.machine.cpu
    pc, stack = cpu.get("rip"), cpu.get("rsp")
    shown = lldb(
        "register read rip rsp cr3 efer gs_base mxcsr", f"memory read --format x {pc:#x}",
        f"disassemble --start-address {pc:#x} --count 3", "target list",
    )  # fmt: skip
    assert (value(shown, "rip"), value(shown, "rsp")) == (pc, stack)
    assert value(shown, "cr3") == cpu.get("cr3")
    assert value(shown, "efer") == cpu.get("efer")
    code = int.from_bytes(cpu.read_linear(pc, 4), "little")
    assert f"{pc:#x}: {code:#010x}" in shown.replace("0x00", "0x")
    assert f"->  {pc:#x}" in shown
    assert "arch=x86_64-unknown-linux" in shown


def test_steps_breakpoints_and_the_monitor(lldb: Lldb, timeline: Timeline, tmp_path: Path) -> None:
    timeline.seek(20_000)
    cpu = timeline.machine.cpu
    pc = cpu.get("rip")
    timeline.seek(10_000)
    shown = lldb(
        "thread step-inst", "thread step-inst", "process plugin packet monitor when",
        f"breakpoint set --address {pc:#x}", "continue", "register read rip",
        "process plugin packet monitor when", "breakpoint delete --force",
        "process plugin packet monitor seek 30000", "process plugin packet monitor when",
    )  # fmt: skip
    assert "instruction 10,002," in shown
    assert "stop reason = breakpoint 1.1" in shown
    assert value(shown, "rip") == pc
    assert "instruction 30,000," in shown


def test_a_watchpoint_and_a_write(lldb: Lldb, timeline: Timeline) -> None:
    timeline.seek(3_000_000)
    stack = timeline.machine.cpu.get("rsp") - 8
    shown = lldb(
        f"watchpoint set expression --size 8 --watch write -- {stack:#x}", "continue",
        "register write rax 0x55aa", "register read rax", "process plugin packet monitor when",
    )  # fmt: skip
    assert "stop reason = watchpoint 1" in shown
    assert value(shown, "rax") == 0x55AA
    assert "a diversion since" in shown


def test_detach_and_back(lldb: Lldb, timeline: Timeline) -> None:
    lldb("thread step-inst", "detach")
    assert timeline.icount == 1
    lldb("thread step-inst", "detach")
    assert timeline.icount == 2
