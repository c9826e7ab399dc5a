"""Core files of the demo guest, as ELF readers and the real gdb see them."""

from __future__ import annotations

import io
import json
import re
import resource
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from workbench import dump
from workbench.cli.main import main
from workbench.core.pagewalk import Paging
from workbench.dump import elfcore
from workbench.dump.linux import Kernel
from workbench.gdbstub.monitor import Monitor
from workbench.gdbstub.target import ReplayTarget
from workbench.trace.timeline import Timeline

PLACE = 20_000
needs_gdb = pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")


def notes_of(elf: Any) -> dict[tuple[str, int], bytes]:
    """By name and type, out of the bytes: elftools has no words for those of QEMU."""
    data, found = elf.get_segment(0).data(), {}
    while data:
        name_size, size, kind = struct.unpack_from("<3I", data)
        name = data[12 : 12 + name_size - 1].decode()
        at = 12 + (name_size + 3 & -4)
        found[name, kind] = data[at : at + size]
        data = data[at + (size + 3 & -4) :]
    return found


def gdb(*commands: str) -> str:
    more = [part for command in commands for part in ("-ex", command)]
    done = subprocess.run(
        ["gdb", "-q", "-nx", "-batch", *more], capture_output=True, text=True, check=False,
        timeout=60,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_physical_memory_and_registers(timeline: Timeline, tmp_path: Path) -> None:
    timeline.seek(PLACE)
    machine, path = timeline.machine, tmp_path / "vmcore"
    digest = machine.digest()
    made = dump.write(machine, path)
    assert machine.digest() == digest
    assert (made.icount, made.memory_bytes, made.release) == (PLACE, 64 << 20, "")
    with path.open("rb") as file:
        elf = ELFFile(file)
        assert (elf["e_type"], elf["e_machine"]) == ("ET_CORE", "EM_X86_64")
        load = elf.get_segment(1)
        assert (load["p_paddr"], load["p_vaddr"], load["p_memsz"]) == (0, 0, 64 << 20)
        assert load.data() == machine.cpu.read_phys(0, 64 << 20)
        found = notes_of(elf)
    registers = struct.unpack_from("<27Q", found["CORE", 1], 112)
    assert registers[16] == machine.cpu.get("rip")
    assert registers[19] == machine.cpu.get("rsp")
    state = found["QEMU", 0]
    assert struct.unpack_from("<2I", state) == (1, len(state)) == (1, 440)
    assert struct.unpack_from("<5Q", state, 392)[3] == machine.cpu.get("cr3")
    assert path.stat().st_blocks * 512 < 8 << 20  # zeros are holes


@needs_gdb
def test_linear_addresses_in_gdb(timeline: Timeline, tmp_path: Path) -> None:
    timeline.seek(PLACE)
    cpu, path = timeline.machine.cpu, tmp_path / "core"
    cpu.set("xmm", 0x1234_5678_9ABC_DEF0_0FED_CBA9_8765_4321, 3)
    made = dump.write(timeline.machine, path, paging=True)
    assert made.segments > 0
    pc, sp = cpu.get("rip"), cpu.get("rsp") - 64
    shown = gdb(f"core-file {path}", "p/x $rip", "p/x $rsp", "p/x $cs", "p/x $xmm3.uint128",
                f"dump binary memory {tmp_path / 'code'} {pc:#x} {pc + 64:#x}",
                f"dump binary memory {tmp_path / 'stack'} {sp:#x} {sp + 64:#x}",
                "x/xb 0x700000000000")  # fmt: skip
    cs = cpu.get_segment("cs")[0]
    for n, value in enumerate((pc, sp + 64, cs, cpu.get("xmm", 3)), start=1):
        assert f"${n} = {value:#x}\n" in shown
    assert (tmp_path / "code").read_bytes() == cpu.read_linear(pc, 64)
    assert (tmp_path / "stack").read_bytes() == cpu.read_linear(sp, 64)
    assert "Cannot access memory at address 0x700000000000" in shown
    with path.open("rb") as file:
        for load in list(ELFFile(file).iter_segments())[1:]:
            where = Paging.of(cpu).translate(cpu.read_phys, load["p_vaddr"])
            assert where == load["p_paddr"]


@needs_gdb
def test_before_long_mode_it_is_a_32_bit_core(timeline: Timeline, tmp_path: Path) -> None:
    cpu, path = timeline.machine.cpu, tmp_path / "core"
    dump.write(timeline.machine, path)
    pc = cpu.linear_pc
    shown = gdb(f"core-file {path}", "p/x $eip", "p/x $ebx", f"x/4xb {pc:#x}", "show architecture")
    assert f"$1 = {pc:#x}\n" in shown
    assert f"$2 = {cpu.get('rbx') & 0xFFFFFFFF:#x}\n" in shown
    assert "\t".join(f"0x{byte:02x}" for byte in cpu.read_phys(pc, 4)) in shown
    assert 'currently "i386"' in shown


def test_the_compressed_form(timeline: Timeline, tmp_path: Path) -> None:
    timeline.seek(PLACE)
    machine, path = timeline.machine, tmp_path / "kdump"
    dump.write(machine, path, compress=True)
    data = path.read_bytes()
    assert data[:12] == b"KDUMP   " + struct.pack("<i", 6)
    block, sub, bitmaps = struct.unpack_from("<3I", data, 428)
    assert block == 4096
    pages = (64 << 20) // block
    at = (1 + sub) * block
    assert data[at : at + pages // 8] == b"\xff" * (pages // 8)
    descs = at + bitmaps * block
    used = set()
    for page in (*range(0, pages, 97), machine.cpu.get("rip") // block):
        place, size, flags, _ = struct.unpack_from("<QIIQ", data, descs + 24 * page)
        used.add(place)
        packed = data[place : place + size]
        assert (zlib.decompress(packed) if flags else packed) == machine.cpu.read_phys(
            page * block, block
        )
    assert len(used) < 100  # zeros are there once
    notes_at, notes_size = struct.unpack_from("<2Q", data, 4096 + 48)
    assert data[notes_at + 12 : notes_at + 16] == b"CORE"
    assert notes_at + notes_size <= at


def test_more_headers_than_16_bits_can_count() -> None:
    segments = [elfcore.Segment(n << 13, n << 12, 0, 4096) for n in range(70_000)]
    data = elfcore.headers(segments, b"", wide=True, long=True)
    elf = ELFFile(io.BytesIO(data))
    assert elf["e_phnum"] == 0xFFFF
    assert elf.get_section(0)["sh_info"] == 70_001
    last = struct.unpack_from("<IIQQQQQQ", data, elf["e_phoff"] + 70_000 * 56)
    assert (last[0], last[3], last[4]) == (1, 69_999 << 13, 69_999 << 12)


def test_what_a_kernel_says_of_itself() -> None:
    text = b"OSRELEASE=6.1.0-56-amd64\nKERNELOFFSET=38400000\nNUMBER(phys_base)=-884998144\nX=y\n"
    kernel = Kernel(text, Paging(0, 0, 0, 0))
    assert kernel.release == "6.1.0-56-amd64"
    assert kernel.number("KERNELOFFSET", 16) == 0x38400000
    assert kernel.number("NUMBER(phys_base)") == -884998144
    assert kernel.number("X") is kernel.number("Y") is None


def test_the_command(demo_path: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "vmcore"
    assert main(["dump", str(demo_path), "--at", "20000", "-o", str(path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["icount"], said["path"]) == (20_000, str(path))
    before = path.read_bytes()
    assert main(["dump", str(demo_path), "--at", "20000", "-o", str(path)]) == 0
    assert "64 MiB of memory at instruction 20,000" in capsys.readouterr().out
    assert path.read_bytes() == before
    for wrong, status, sentence in (
        (["-o", str(demo_path)], 2, "is the trace"),
        (["-o", str(tmp_path / "none" / "x")], 1, "cannot be written"),
        (["-o", f"/dev/null/{'x' * 300}"], 1, "cannot be written"),
        (["-o", "x" * 300], 1, "cannot be written: file name too long"),
        (["-o", str(path), "--paging", "--compress"], 2, "not both"),
        (["-o", "/dev/full"], 1, "/dev/full cannot be written: no space left on device"),
        (["-o", "/dev/null", "--compress"], 1, "expected a file"),
    ):
        assert main(["dump", str(demo_path), "--at", "20000", *wrong]) == status
        shown = capsys.readouterr()
        assert sentence in shown.err
        assert len(shown.err.splitlines()) == 1


def test_a_full_disk_leaves_the_old_file(demo_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "vmcore"
    path.write_bytes(b"kept")
    done = subprocess.run(
        [sys.executable, "-m", "workbench", "dump", str(demo_path), "--at", "20000",
         "-o", str(path)],
        capture_output=True, text=True, check=False, timeout=60, cwd=Path(__file__).parents[2],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)),
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "cannot be written: file too large" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["vmcore"]
    assert path.read_bytes() == b"kept"


def test_monitor_overwrites_nothing(timeline: Timeline, tmp_path: Path) -> None:
    monitor = Monitor(ReplayTarget(timeline))
    path = tmp_path / "a core"
    assert "64 MiB of memory at instruction 0" in monitor.run(f"dump '{path}' compress")
    assert path.read_bytes()[:5] == b"KDUMP"
    assert monitor.run(f"dump '{path}'") == f"{path} exists: expected a new file\n"
    assert monitor.run(f"dump '{path}' other").startswith("expected: dump FILE")
    assert "cannot be written: not a directory" in monitor.run("dump /dev/null/core")
    assert "cannot be written: file name too long" in monitor.run(f"dump {'x' * 300}")
    assert [p.name for p in tmp_path.iterdir()] == ["a core"]


@needs_gdb
def test_gcore_in_workbench_gdb(demo_path: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "workbench", "gdb", str(demo_path), "--at", "20000", "--",
         "-nx", "-batch", "-ex", f"cd {tmp_path}", "-ex", "gcore one", "-ex", "p/x $rsp",
         "-ex", "wb-dump 'the other' compress", "-ex", "gcore one", "-ex", "kill"],
        capture_output=True, text=True, check=False, timeout=60, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert f"{tmp_path}/one exists: expected a new file" in done.stdout
    assert (tmp_path / "the other").read_bytes()[:5] == b"KDUMP"
    rsp = re.search(r"\$1 = (0x[0-9a-f]+)", done.stdout)
    assert rsp is not None
    assert f"$1 = {rsp[1]}\n" in gdb(f"core-file {tmp_path / 'one'}", "p/x $rsp")
