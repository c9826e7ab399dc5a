"""What pwndbg and gef send over a plain gdb, and how they read the answers."""

from __future__ import annotations

import re

from tests.gdbstub.test_gdb import Gdb
from tests.gdbstub.test_gdb import gdb as gdb
from tests.gdbstub.test_gdb import pytestmark as pytestmark
from tests.gdbstub.test_gdb import server as server
from workbench.core import control as ctl
from workbench.trace.timeline import Timeline


def test_it_is_taken_for_a_whole_machine(gdb: Gdb) -> None:
    assert "ENABLE=" in gdb.do("maintenance packet Qqemu.sstepbits")
    assert 'received: ""' in gdb.do("maintenance packet qOffsets")  # no process under qemu-user
    assert "multiprocess+" not in gdb.do("maintenance packet qSupported")
    for name in ("auxv:read::0,100", "exec-file:read:1:0,100", "siginfo:read::0,100"):
        assert 'received: ""' in gdb.do(f"maintenance packet qXfer:{name}")


def test_the_memory_map(gdb: Gdb, timeline: Timeline) -> None:
    assert gdb.do("monitor info mem").strip() == "PG disabled"
    timeline.seek(20_000)
    lines = gdb.do("monitor info mem").split("\n")
    pc = timeline.machine.cpu.get("rip")
    inside = 0
    for line in filter(None, lines):
        found = re.fullmatch(r"([0-9a-f]{16})-([0-9a-f]{16}) ([0-9a-f]{16}) [u-]r[w-]", line)
        assert found is not None, line
        start, end, size = (int(part, 16) for part in found.groups())
        assert end - start == size > 0
        inside += start <= pc < end
    assert inside == 1


def test_the_processor(gdb: Gdb, timeline: Timeline) -> None:
    timeline.seek(20_000)
    cpu = timeline.machine.cpu
    shown = gdb.do("monitor info registers")
    for name in ("gdt", "idt"):
        found = re.search(rf"{name.upper()}=\s+([0-9a-f]+)\s+([0-9a-f]+)", shown)
        assert found is not None
        assert int(found[1], 16) == cpu.get(f"{name}r_base")
        assert int(found[2], 16) == cpu.get(f"{name}r_limit")
    found = re.search(r"RAX=([0-9a-f]{16}).*RDX=([0-9a-f]{16})", shown)
    assert found is not None
    assert int(found[2], 16) == cpu.get("rdx")
    assert f"CR3={cpu.get('cr3'):016x}" in shown


def test_model_specific_registers(gdb: Gdb, timeline: Timeline) -> None:
    timeline.seek(20_000)
    cpu = timeline.machine.cpu
    assert gdb.do("monitor info msr 0xc0000080").split() == [
        "0xc0000080", "IA32_EFER", f"{cpu.get('efer'):#x}",
    ]  # fmt: skip
    assert "0xfee00900" in gdb.do("monitor info msr ia32_apic_base")
    assert f"{timeline.machine.system.tsc(cpu):#x}" in gdb.do(f"monitor info msr {ctl.MSR_TSC}")
    assert gdb.do("monitor info msr").count("\n") > 50
    assert "expected the name or number of an MSR" in gdb.do("monitor info msr 0x12345")
    assert gdb.do("monitor complete info msr IA32_GS").split() == ["IA32_GS_BASE"]
    before = timeline.machine.digest()
    gdb.do("monitor info msr")
    gdb.do("monitor info mem")
    assert timeline.machine.digest() == before
