"""The processor used as a library, without a machine."""

from __future__ import annotations

import contextlib
import io
import textwrap

from workbench.core import engine
from workbench.core.engine import Cpu


def test_the_example_of_the_module_runs() -> None:
    text = engine.__doc__ or ""
    code = textwrap.dedent(text[text.index("    cpu = ") :])
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {"Cpu": Cpu})  # noqa: S102
    assert printed.getvalue() == "hlt 42\n"


def test_self_modifying_code_runs_as_written() -> None:
    # mov byte [0x1006], 0x43 turns the inc ax (40) that follows into inc bx (43)
    cpu = Cpu(1 << 20)
    cpu.write_phys(0x1000, bytes.fromhex("c606051043 40 f4"))
    for name in ("cs", "ds"):
        cpu.set_segment(name, 0, 0, 0xFFFF, 0x9B if name == "cs" else 0x93)
    cpu.set("rip", 0x1000)
    assert cpu.run(100) == "hlt"
    assert (cpu.get("rax"), cpu.get("rbx")) == (0, 1)


def test_exact_count_in_the_middle_of_a_block() -> None:
    cpu = Cpu(1 << 20)
    cpu.write_phys(0x1000, b"\x40" * 60 + b"\xf4")
    cpu.set_segment("cs", 0, 0, 0xFFFF, 0x9B)
    cpu.set("rip", 0x1000)
    for n in (1, 7, 8, 33, 59):
        assert cpu.run(n) == "budget"
        assert (cpu.icount, cpu.get("rax"), cpu.get("rip")) == (n, n, 0x1000 + n)
