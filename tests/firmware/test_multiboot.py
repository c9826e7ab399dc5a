"""The multiboot loader against the specification, with made-up images."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.firmware.images import Contents, elf, memory_map, multiboot_header
from workbench.firmware import LoaderError, multiboot
from workbench.firmware.bootstate import Allocator, BootState

CODE = multiboot_header(3) + b"\xf4" * 20


def boot(
    image: bytes, cmdline: str = "", modules: list[tuple[str, bytes]] | None = None
) -> tuple[BootState, Contents]:
    regions = memory_map(64)
    state = BootState()
    multiboot.prepare(
        multiboot.Image.parse(image), cmdline, modules or [], regions, state, Allocator(regions)
    )
    return state, Contents(state.memory)


@pytest.mark.parametrize("bits", [32, 64])
def test_elf_is_loaded_and_entered(bits: int) -> None:
    state, memory = boot(elf(CODE, bits=bits, memsz=0x3000))
    assert state.registers["rip"] == 0x10000C
    assert memory.read(0x10000C, 4) == b"\xf4" * 4
    assert (0x100000, CODE.ljust(0x3000, b"\0")) in state.memory
    assert state.registers["rax"] == 0x2BADB002
    assert state.registers["cr0"] & 0x80000001 == 1, "protected mode without paging"
    assert state.segments["cs"].attr == 0xC09B
    assert state.segments["ss"].attr == 0xC093


def test_entry_of_a_segment_with_another_physical_address() -> None:
    state, _ = boot(elf(CODE, bits=64, vaddr=0xFFFFFFFF80000000, entry=0xFFFFFFFF8000000C))
    assert state.registers["rip"] == 0x10000C


def test_address_fields() -> None:
    header = multiboot_header(1 << 16, 0x200010, 0x200000, 0x200040, 0x200100, 0x200030)
    image = bytes(16) + header + b"\x90" * 100
    state, memory = boot(image)
    assert state.registers["rip"] == 0x200030
    assert memory.read(0x200010, 4) == header[:4]
    (part,) = [data for gpa, data in state.memory if gpa == 0x200000]
    assert part == image[:0x40] + bytes(0xC0)


def test_boot_information() -> None:
    modules = [("one", b"first"), ("two", b"second")]
    state, memory = boot(elf(CODE), "quiet loud", modules)
    info = state.registers["rbx"]
    flags, lower, upper = memory.unpack("<III", info)
    assert flags == 0b1001001101
    assert (lower, upper) == (0x9FC00 >> 10, (63 << 10) - 64)
    cmdline, count, table = memory.unpack("<III", info + 16)
    assert memory.text(cmdline) == b"quiet loud"
    assert count == 2
    for n, (name, data) in enumerate(modules):
        start, end, string, _ = memory.unpack("<IIII", table + 16 * n)
        assert start % 0x1000 == 0
        assert memory.read(start, end - start) == data
        assert memory.text(string) == name.encode()
    length, gpa = memory.unpack("<II", info + 44)
    entries = [memory.unpack("<IQQI", gpa + n) for n in range(0, length, 24)]
    assert entries == [(20, r.base, r.size, r.type) for r in memory_map(64)]
    (name_gpa,) = memory.unpack("<I", info + 64)
    assert memory.text(name_gpa) == b"Workbench"


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"\x7fELF" + bytes(100), "no multiboot header"),
        (elf(multiboot_header(4)), "requires a video mode"),
        (elf(multiboot_header(0x80)), "unknown features: flags 0x80"),
        (multiboot_header(0) + bytes(100), "neither a little-endian ELF file"),
        (elf(CODE, machine=40), r"another processor \(e_machine 40\)"),
        (elf(CODE, filesz=0x1000), "a segment lies outside of it"),
        (elf(CODE, memsz=4), "cut off"),
        (elf(CODE, entry=0x10), "entry point 0x10 is in none of its segments"),
        (elf(CODE, bits=64, paddr=0xFFFFFFF0), "segment at 0xfffffff0, above 4 GiB"),
        (multiboot_header(1 << 16, 0, 4, 0, 0, 0), "addresses lie outside the file"),
        (multiboot_header(1 << 16), "header is cut off"),
    ],
)
def test_bad_images_are_refused_with_a_reason(image: bytes, message: str) -> None:
    with pytest.raises(LoaderError, match=message):
        boot(image)


def test_segment_without_memory_behind_it() -> None:
    with pytest.raises(LoaderError, match="wants 32 bytes at 0xc0000000"):
        boot(elf(CODE, vaddr=0xC0000000, paddr=0xC0000000, entry=0xC000000C))


@given(st.integers(0, 120), st.binary(max_size=12))
def test_a_damaged_file_never_ends_in_another_error(offset: int, patch: bytes) -> None:
    for image in (elf(CODE), elf(CODE, bits=64)):
        damaged = bytearray(image)
        damaged[offset : offset + len(patch)] = patch
        with contextlib.suppress(LoaderError):
            boot(bytes(damaged))
