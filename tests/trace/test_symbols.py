"""Symbols: kallsyms tables in a made-up memory, files, and the kernel in a trace."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.trace import guests
from workbench.core.config import MachineConfig
from workbench.core.layout import CR0_PE, CR0_PG, CR4_PAE, EFER_LMA
from workbench.core.pagewalk import Paging
from workbench.errors import InputFileError
from workbench.firmware import demo
from workbench.trace import symbols
from workbench.trace.guest import Guest
from workbench.trace.kallsyms import (
    AddressSpace,
    Symbol,
    find_modules,
    kernel_symbols,
    module_symbols,
)
from workbench.trace.reader import open_trace
from workbench.trace.session import Recording

BASE = 0xFFFF_FFFF_9A00_0000
CONFIG = MachineConfig(ram_bytes=32 << 20, seed=1, rtc_epoch_s=1_767_225_600)


class Memory:
    """RAM with nothing around it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)

    def read(self, gpa: int, n: int) -> bytes:
        return self.data[gpa : gpa + n].ljust(n, b"\xff")


def pad(data: bytes, size: int = 8) -> bytes:
    return data + bytes(-len(data) % size)


def kallsyms(names: list[str], layout: str, word: int = 8) -> bytes:
    """The tables as a kernel has them, each letter a token of its own and "func_" as one."""
    tokens = [bytes([n]) if 32 < n < 127 else b"unused%d" % n for n in range(256)]
    tokens[200] = b"func_"
    packed, markers = b"", []
    for number, name in enumerate(names):
        if number % 256 == 0:
            markers.append(len(packed))
        codes = name.encode().replace(b"func_", bytes([200]))
        head = bytes([len(codes)])
        if len(codes) > 127:
            head = bytes([len(codes) & 0x7F | 0x80, len(codes) >> 7])
        packed += head + codes
    index, at = [], 0
    for token in tokens:
        index.append(at)
        at += len(token) + 1

    def fill(data: bytes) -> bytes:
        return pad(data, word)

    if word == 8:  # two absolute per-CPU symbols, then code
        offsets = [0, 64] + [-1 - 16 * n for n in range(len(names) - 2)]
    else:
        offsets = [16 * n for n in range(len(names))]
    base = (BASE & ((1 << 8 * word) - 1)).to_bytes(word, "little")
    places = fill(struct.pack(f"<{len(offsets)}i", *offsets)) + base
    head = fill(struct.pack("<I", len(names))) + fill(packed)
    head += fill(struct.pack(f"<{len(markers)}I", *markers))
    token_tables = fill(b"".join(t + b"\0" for t in tokens)) + fill(struct.pack("<256H", *index))
    order = fill(bytes(3 * len(names)))
    return {
        "6.1": places + head + token_tables,
        "6.1 stable": places + head + order + token_tables,
        "6.4": head + token_tables + places + order,
    }[layout]


NAMES = ["A__per_cpu_start", "Ad", *(f"tfunc_{n}" for n in range(700)), "T" + "long_" * 40]


@pytest.mark.parametrize("layout", ["6.1", "6.1 stable", "6.4"])
@pytest.mark.parametrize("at", [0x100000, 0x100008, 0xFFFFF8, 0x1000010])
def test_kallsyms(layout: str, at: int) -> None:
    memory = Memory(bytes(at) + kallsyms(NAMES, layout) + bytes(0x10000))
    found = kernel_symbols(memory, [(0, memory.size)])
    assert found[:3] == [(0, "A", "__per_cpu_start"), (64, "A", "d"), (BASE, "t", "func_0")]
    assert found[-1] == (BASE + 16 * 700, "T", "long_" * 40)
    assert len(found) == len(NAMES)


@pytest.mark.parametrize("layout", ["6.1", "6.1 stable", "6.4"])
@pytest.mark.parametrize("at", [0x100000, 0x100004])
def test_kallsyms_of_a_32_bit_kernel(layout: str, at: int) -> None:
    names = NAMES[2:]
    memory = Memory(bytes(at) + kallsyms(names, layout, word=4) + bytes(0x10000))
    found = kernel_symbols(memory, [(0, memory.size)])
    base = BASE & 0xFFFF_FFFF
    assert found == [(base + 16 * n, name[0], name[1:]) for n, name in enumerate(names)]


def test_damaged_kallsyms_give_nothing() -> None:
    whole = kallsyms(NAMES, "6.1")
    for cut in range(0, len(whole), 97):
        damaged = bytearray(bytes(0x1000) + whole + bytes(0x2000))
        damaged[0x1000 + cut] ^= 0xFF
        kernel_symbols(Memory(bytes(damaged)), [(0, len(damaged))])
        short = bytes(0x1000) + whole[:cut]
        assert kernel_symbols(Memory(short), [(0, len(short))]) == []


def long_mode(cr3: int) -> Paging:
    return Paging(CR0_PE | CR0_PG, cr3, CR4_PAE, EFER_LMA)


def module_memory() -> tuple[Memory, int, int]:
    """Page tables that map 2 MiB at BASE to 0x200000, and one module there."""
    data = bytearray(0x400000)
    for table, gva_shift, target in ((0x1000, 39, 0x2003), (0x2000, 30, 0x3003), (0x3000, 21, 0)):
        entry = target or 0x200000 | 0x83
        struct.pack_into("<Q", data, table + (BASE >> gva_shift & 511) * 8, entry)
    head, module, symtab, strtab = 0x100, 0x1000, 0x2000, 0x2FF8
    put = 0x200000
    struct.pack_into("<Q", data, put + head, BASE + module + 8)
    struct.pack_into("<Q", data, put + module + 8, BASE + head)
    data[put + module + 24 : put + module + 30] = b"libata"
    core = module + 0x180
    struct.pack_into(
        "<QQIIQ", data, put + core - 8, BASE + core, BASE + symtab, 3, 0, BASE + strtab
    )
    text = b"\0ata_sff_exec_command\0"
    data[put + strtab : put + strtab + len(text)] = text
    struct.pack_into("<IBBHQQ", data, put + symtab + 24, 1, 2, 0, 1, BASE + 0x8000, 0x30)
    struct.pack_into("<IBBHQQ", data, put + symtab + 48, 1, 2, 0, 0, 0, 0)
    return Memory(bytes(data)), 0x1000, BASE + head


def test_modules() -> None:
    memory, cr3, head = module_memory()
    (module,) = module_symbols(AddressSpace(memory, long_mode(cr3)), head)
    assert module.name == "libata"
    assert module.symbols == [(BASE + 0x8000, "t", "ata_sff_exec_command")]


@pytest.mark.parametrize("state", [0, 1])  # MODULE_STATE_LIVE, MODULE_STATE_COMING
def test_the_list_of_modules_is_found_without_a_symbol(state: int) -> None:
    memory, cr3, head = module_memory()
    data = bytearray(memory.data)
    put, module = 0x200000, 0x1000
    struct.pack_into("<II", data, put + module, state, 0)
    struct.pack_into("<Q", data, put + module + 16, head)  # prev
    struct.pack_into("<Q", data, put + 0x108, BASE + module + 8)
    found = Memory(bytes(data))
    spaces = [AddressSpace(found, long_mode(at)) for at in (cr3 + 0x2000, cr3)]
    assert find_modules(found, [(0, found.size)], spaces) == BASE + module + 8
    assert find_modules(found, [(0, found.size)], spaces[:1]) is None
    assert find_modules(found, [(0, 0x201000)], spaces) is None


def test_a_list_of_modules_that_goes_astray_ends() -> None:
    memory, cr3, head = module_memory()
    assert list(module_symbols(AddressSpace(memory, long_mode(cr3)), head + 0x40_0000)) == []
    assert list(module_symbols(AddressSpace(memory, long_mode(0x7FFF_F000)), head)) == []


def test_a_table_of_symbols() -> None:
    given: list[Symbol] = [
        (0x1000, "t", "first"),
        (0x1040, "T", "ata_sff_exec_command [libata]"),
        (0x1040, "t", "__local_alias"),
        (0x1080, "D", "data"),
    ]
    table = symbols.SymbolTable(given)
    assert table.text(0x105C) == "ata_sff_exec_command+0x1c [libata]"
    assert table.function(0x105C) == "ata_sff_exec_command [libata]"
    assert table.text(0x103F) == "first+0x3f"
    assert table.text(0xFFF) == "0xfff"
    assert table.text(0x1040 + (1 << 20)) == f"{0x1040 + (1 << 20):#x}"
    again = symbols.SymbolTable.unpack(table.pack())
    assert (len(again), again.text(0x105C)) == (2, table.text(0x105C))
    with pytest.raises(ValueError, match="as many names"):
        symbols.SymbolTable.unpack(table.pack()[:-40])


def record(path: Path, guest: Guest) -> Path:
    Recording(str(path), CONFIG.to_json(), guest).run()
    return path


def test_the_kernel_in_the_trace_has_symbols(tmp_path: Path) -> None:
    path = record(tmp_path / "demo.wbt", Guest(demo.image(), kernel_path="demo.elf"))
    with open_trace(path) as trace:
        table = symbols.of_trace(trace)
        pcs = trace.accesses["pc"].unique().to_pylist()
        assert len(table) > 10
        assert all("+0x" in table.text(pc) for pc in pcs)


def test_files_of_symbols(tmp_path: Path) -> None:
    path = record(tmp_path / "chips.wbt", guests.CHIPS)
    listing = tmp_path / "System.map"
    listing.write_text("0000000000100020 T start\nrubbish\n0000000000100030 t next\t[mod]\n")
    elf = tmp_path / "demo.elf"
    elf.write_bytes(demo.image())
    with open_trace(path) as trace:
        assert symbols.of_file(str(listing), trace).text(0x100034) == "next+0x4 [mod]"
        assert len(symbols.of_file(str(elf), trace)) > 10
        for data in (b"", b"\x7fELF", b"\x7fELF" + bytes(200), demo.image()[:300]):
            elf.write_bytes(data)
            with pytest.raises(InputFileError, match="no symbols"):
                symbols.of_file(str(elf), trace)
        with pytest.raises(InputFileError, match="no such file"):
            symbols.of_file(str(tmp_path / "none"), trace)
