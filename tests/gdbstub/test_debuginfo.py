"""Debug packages by their layout: a small tree like Debian's, with files that `as -g` makes."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from workbench.gdbstub import debuginfo
from workbench.gdbstub.symbols import elf
from workbench.trace.timeline import Timeline

RELEASE = "6.1.0-56-amd64"
BANNER = b"Linux version 6.1.0-56-amd64 (debian-kernel@lists.debian.org) (gcc-12)"
TEXT, INIT, DATA = 0xFFFF_FFFF_C068_8000, 0xFFFF_FFFF_C069_0000, 0xFFFF_FFFF_C068_C000
SOURCE = """\
        .text
        nop
        nop
        .globl  virtblk_probe
virtblk_probe:
        mov     %rdi, %rax
        ret
twice:  ret
        .section .init.text, "ax"
        .globl  virtio_blk_init
virtio_blk_init:
        xor     %eax, %eax
        ret
        .data
        .quad   0
virtio_blk:
        .quad   1
twice2: .quad   2
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What linux-image-...-dbg has under /usr/lib/debug, in another place."""
    if shutil.which("as") is None:
        pytest.skip("there is no assembler here")
    drivers = tmp_path / "lib" / "modules" / RELEASE / "kernel" / "drivers" / "block"
    drivers.mkdir(parents=True)
    (tmp_path / "virtio_blk.S").write_text(SOURCE)
    command = ["as", "-g", "-o", str(drivers / "virtio-blk.ko"), "virtio_blk.S"]
    subprocess.run(command, cwd=tmp_path, check=True)
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot" / f"vmlinux-{RELEASE}").write_bytes(
        elf([(0xFFFF_FFFF_8100_0000, "T", "_text"), (0xFFFF_FFFF_8200_0000, "D", "linux_banner")])
    )
    return tmp_path


SYMBOLS = [
    (TEXT + 2, "t", "virtblk_probe"), (INIT, "t", "virtio_blk_init"), (DATA + 8, "d", "virtio_blk"),
    (TEXT + 0x100, "t", "twice"), (TEXT + 0x200, "t", "twice"),
]  # fmt: skip


def test_where_the_sections_of_a_module_are(tree: Path) -> None:
    trees = (f"{tree}/lib/modules/{{}}",)
    found = debuginfo.find_module("virtio_blk", SYMBOLS, RELEASE, trees)
    assert found is not None
    assert found.path.name == "virtio-blk.ko"
    assert found.sections == {".text": TEXT, ".init.text": INIT, ".data": DATA}
    assert debuginfo.find_module("virtio_net", SYMBOLS, RELEASE, trees) is None
    assert debuginfo.find_module("virtio_blk", SYMBOLS, "6.1.0-1-amd64", trees) is None
    assert debuginfo.find_module("virtio_blk", SYMBOLS, "", trees) is None
    assert debuginfo.find_module("virtio_blk", [(1, "t", "other")], RELEASE, trees) is None
    found.path.write_bytes(b"no ELF file")
    assert debuginfo.find_module("virtio_blk", SYMBOLS, RELEASE, trees) is None


@pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")
def test_gdb_has_lines_of_a_module(tree: Path) -> None:
    found = debuginfo.find_module("virtio_blk", SYMBOLS, RELEASE, (f"{tree}/lib/modules/{{}}",))
    assert found is not None
    places = " ".join(f"-s {name} {at:#x}" for name, at in found.sections.items())
    script = [
        "set confirm off", f"add-symbol-file {found.path} {places}", "info line virtblk_probe",
        f"info symbol {DATA + 8:#x}", "info line virtio_blk_init", f"directory {tree}",
        "list virtblk_probe",
    ]  # fmt: skip
    command = ["gdb", "--nx", "-q", "-batch"]
    for line in script:
        command += ["-ex", line]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert f'Line 6 of "virtio_blk.S" starts at address {TEXT + 2:#x}' in done.stdout
    assert "virtio_blk in section .data" in done.stdout
    assert f'Line 12 of "virtio_blk.S" starts at address {INIT:#x}' in done.stdout
    assert "mov     %rdi, %rax" in done.stdout


def test_the_kernel_is_found_by_its_banner(tree: Path, timeline: Timeline) -> None:
    """Guest memory with a banner in the place that its symbols give."""
    machine = timeline.machine
    banner, slide = 0x20_0000, 0x1234_5000
    machine.memory.write(banner, BANNER)
    symbols = [(banner, "D", "linux_banner"), (0xFFFF_FFFF_8100_0000 + slide, "T", "_text")]
    assert debuginfo.release(machine, symbols) == RELEASE
    places = (f"{tree}/nowhere/vmlinux-{{}}", f"{tree}/boot/vmlinux-{{}}")
    found = debuginfo.find(machine, places, symbols)
    assert found is not None
    assert found.path == tree / "boot" / f"vmlinux-{RELEASE}"
    assert found.offset == slide
    assert debuginfo.find(machine, places[:1], symbols) is None
    assert debuginfo.find(machine, places, symbols[:1]) is None
    found.path.write_bytes(struct.pack("<Q", 7))
    assert debuginfo.find(machine, places, symbols) is None


def test_a_file_of_another_kernel_is_not_moved(tmp_path: Path) -> None:
    path, start = tmp_path / "vmlinux", 0xFFFF_FFFF_8100_0000
    path.write_bytes(elf([(start, "T", "_text"), (start + 0x4000, "T", "_etext")]))
    there = [(start + 0x20_0000, "T", "_text"), (start + 0x20_4000, "T", "_etext")]
    assert debuginfo.moved(path, there) == debuginfo.DebugFile(path, 0x20_0000)
    assert debuginfo.moved(path, [there[0], (start + 0x20_5000, "T", "_etext")]) is None
    assert debuginfo.moved(path, there[:1]) is None
    assert debuginfo.moved(path, []) is None


@pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")
def test_gdb_unwinds_what_debug_information_describes(tree: Path) -> None:
    """gdb's own unwinder is for C in .text; for assembler and a module's other sections, ORC."""
    (tree / "m.c").write_text(
        "int in_text(int x) { return x; }\n"
        '__attribute__((section(".init.text"))) int in_init(int x) { return x; }\n'
    )
    build = ["cc", "-g", "-O1", "-fno-asynchronous-unwind-tables", "-c", "-o", "m.ko", "m.c"]
    if shutil.which("cc") is None:
        pytest.skip("there is no compiler here")
    subprocess.run(build, cwd=tree, check=True)
    module = tree / "lib" / "modules" / RELEASE / "kernel" / "drivers" / "block" / "virtio-blk.ko"
    commands = Path(debuginfo.__file__).with_name("gdb_commands.py")
    files = [
        {"name": name, "start": text, "path": str(path), "offset": 0, "bytes": 0,
         "sections": {".text": text, ".init.text": text + 0x1000}}
        for name, path, text in (("m", tree / "m.ko", TEXT), ("asm", module, TEXT + 0x100000))
    ]  # fmt: skip
    places = ("in_text", "in_init", "virtblk_probe")
    ask = "; ".join(
        f"print(Frames().gdb_knows_more(int(gdb.parse_and_eval('(unsigned long)&{p}'))))"
        for p in places
    )
    script = ["set architecture i386:x86-64", f"source {commands}"]
    script += [f"python GUEST.update({files!r})", f"python {ask}"]
    command = ["gdb", "--nx", "-q", "-batch", *(part for line in script for part in ("-ex", line))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.stdout.split()[-3:] == ["True", "False", "False"], done.stdout + done.stderr
