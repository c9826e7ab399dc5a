"""The real drgn over guest memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.cli.main import main
from workbench.gdbstub.drgn_program import program
from workbench.trace.timeline import Timeline

drgn = pytest.importorskip("drgn")


def test_memory_at_a_moment(timeline: Timeline) -> None:
    timeline.seek(20_000)
    made, lacks = program(timeline.machine)
    assert "no Linux kernel" in lacks
    cpu = timeline.machine.cpu
    pc = cpu.get("rip")
    assert made.read(pc, 16) == cpu.read_linear(pc, 16)
    assert made.read(0x100000, 16, True) == timeline.machine.memory.read(0x100000, 16)
    with pytest.raises(drgn.FaultError):
        made.read(0xFFFF_9000_0000_0000, 8)


def test_the_command(demo_path: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code = "print(prog.read(0x100000, 9) == machine.memory.read(0x100000, 9))"
    assert main(["drgn", str(demo_path), "--at", "50%", "-c", code]) == 0
    shown = capsys.readouterr()
    assert shown.out == "True\n"
    assert "memory only" in shown.err
    (tmp_path / "script.py").write_text("print(len(prog.read(0x100000, 7)))\n")
    assert main(["drgn", str(demo_path), str(tmp_path / "script.py")]) == 0
    assert capsys.readouterr().out == "7\n"
    assert main(["drgn", str(demo_path), str(tmp_path / "none.py")]) == 1
