"""The ELF file that names a guest's addresses."""

import io
import subprocess
from pathlib import Path

from elftools.elf.elffile import ELFFile

from tests.gdbstub.test_gdb import pytestmark as pytestmark
from workbench.gdbstub.symbols import elf

SYMBOLS = [
    (0xFFFFFFFF81000000, "T", "_text"),
    (0xFFFFFFFF81001230, "t", "do_timer"),
    (0xFFFFFFFF82000010, "D", "jiffies"),
    (0x1F000, "D", "per_cpu_thing"),
    (0xFFFFFFFFC0000000, "t", "e1000_probe"),
]


def test_the_symbols_come_back() -> None:
    table = ELFFile(io.BytesIO(elf(SYMBOLS))).get_section_by_name(".symtab")
    found = {s.name: s["st_value"] for s in table.iter_symbols() if s.name}
    assert found == {name: address for address, _, name in SYMBOLS if address >> 63}


def test_gdb_takes_them(tmp_path: Path) -> None:
    path = tmp_path / "symbols"
    path.write_bytes(elf(SYMBOLS))
    script = ["info address jiffies", "info symbol 0xffffffff81001234", "x/1i e1000_probe"]
    command = ["gdb", "--nx", "-q", "-batch", str(path)]
    for line in script:
        command += ["-ex", line]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert '"jiffies" is at 0xffffffff82000010' in done.stdout
    assert "do_timer + 4" in done.stdout


def test_none_at_all() -> None:
    assert ELFFile(io.BytesIO(elf([]))).num_sections() == 5
