"""The generated ACPI tables: structure, checksums, and ACPICA's opinion."""

from __future__ import annotations

import shutil
import struct
import subprocess
from itertools import pairwise

import pytest

from workbench.core.config import MachineConfig
from workbench.hw import layout
from workbench.hw.acpi import build_tables
from workbench.hw.board import e820

MIB = 1 << 20


def config(ram_bytes=256 * MIB, serial_ports=("com1",)):
    return MachineConfig(ram_bytes=ram_bytes, serial_ports=serial_ports)


def tables_by_signature(found):
    return {data[:4]: (gpa, data) for gpa, data in found}


def test_every_table_is_reachable_and_sums_to_zero():
    rsdp_gpa, found = build_tables(config())
    memory = dict(found)
    rsdp = memory[rsdp_gpa]
    assert rsdp[:8] == b"RSD PTR "
    assert rsdp_gpa % 16 == 0
    assert 0xE_0000 <= rsdp_gpa < 0x10_0000
    assert sum(rsdp[:20]) & 0xFF == 0
    assert sum(rsdp) & 0xFF == 0
    rsdt_gpa, xsdt_gpa = (
        struct.unpack_from("<I", rsdp, 16)[0],
        struct.unpack_from("<Q", rsdp, 24)[0],
    )
    rsdt, xsdt = memory[rsdt_gpa], memory[xsdt_gpa]
    entries = struct.unpack("<3I", rsdt[36:])
    assert entries == struct.unpack("<3Q", xsdt[36:])
    assert [memory[gpa][:4] for gpa in entries] == [b"FACP", b"APIC", b"HPET"]
    facs_gpa, dsdt_gpa = struct.unpack_from("<II", memory[entries[0]], 36)
    assert memory[dsdt_gpa][:4] == b"DSDT"
    assert memory[facs_gpa][:4] == b"FACS"
    assert facs_gpa % 64 == 0
    for gpa, data in found:
        if data[:4] not in (b"RSD ", b"FACS"):
            assert sum(data) & 0xFF == 0
            assert struct.unpack_from("<I", data, 4)[0] == len(data), hex(gpa)


def test_fadt_says_where_the_registers_are():
    _, found = build_tables(config())
    fadt = tables_by_signature(found)[b"FACP"][1]
    assert len(fadt) == 276
    assert struct.unpack_from("<H", fadt, 46)[0] == 9
    assert struct.unpack_from("<I", fadt, 48)[0] == 0, "ACPI is always on"
    assert struct.unpack_from("<I", fadt, 56)[0] == layout.PM_BASE
    assert struct.unpack_from("<I", fadt, 64)[0] == layout.PM_BASE + 4
    assert struct.unpack_from("<I", fadt, 76)[0] == layout.PM_BASE + 8
    assert struct.unpack_from("<BBBBQ", fadt, 116) == (1, 8, 0, 1, 0xCF9)


def test_madt_entries():
    _, found = build_tables(config())
    madt = tables_by_signature(found)[b"APIC"][1]
    at, kinds = 44, []
    while at < len(madt):
        kinds.append(madt[at])
        at += madt[at + 1]
    assert at == len(madt)
    assert kinds == [0, 1, 2, 2, 2, 2, 2, 4]


@pytest.mark.parametrize("ram_bytes", [32 * MIB, 256 * MIB, 3072 * MIB, 4096 * MIB])
def test_tables_lie_where_the_memory_map_says(ram_bytes):
    ranges = e820(config(ram_bytes))
    for (base, size, _), (following, _, _) in pairwise(ranges):
        assert base + size <= following
    usable = sum(size for _, size, kind in ranges if kind == 1)
    assert ram_bytes - usable < MIB
    for gpa, data in build_tables(config(ram_bytes))[1]:
        kinds = [k for base, size, k in ranges if base <= gpa and gpa + len(data) <= base + size]
        assert kinds == [{b"RSD ": 2, b"FACS": 4}.get(data[:4], 3)]


@pytest.mark.parametrize("ram_bytes", [MIB, MIB + 65536])
def test_least_memory(ram_bytes):
    ranges = e820(config(ram_bytes))
    for (base, size, _), (following, _, _) in pairwise(ranges):
        assert base + size <= following
    placed = sorted((gpa, len(data)) for gpa, data in build_tables(config(ram_bytes))[1])
    for (gpa, length), (following, _) in pairwise(placed):
        assert gpa + length <= following
        assert not any(k == 1 and base <= gpa < base + size for base, size, k in ranges)


@pytest.mark.skipif(shutil.which("iasl") is None, reason="needs iasl (Debian: acpica-tools)")
@pytest.mark.parametrize("serial_ports", [(), ("com1", "com2", "com3", "com4")])
def test_acpica_reads_what_we_wrote(tmp_path, serial_ports):
    for data in (data for _, data in build_tables(config(serial_ports=serial_ports))[1]):
        if data[:4] == b"RSD ":
            continue
        table = tmp_path / f"{data[:4].decode()}.dat"
        table.write_bytes(data)
        done = subprocess.run(
            ["iasl", "-d", table.name], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "Error" not in done.stderr + done.stdout
        assert "Warning" not in done.stderr + done.stdout
    source = (tmp_path / "DSDT.dsl").read_text()
    assert source.count('EisaId ("PNP0501")') == len(serial_ports)
    done = subprocess.run(
        ["iasl", "-we", "-tc", "DSDT.dsl"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "0 Errors, 0 Warnings" in done.stdout, done.stdout + done.stderr
