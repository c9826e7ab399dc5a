"""The Linux loader against the boot protocol, with made-up kernels."""

import contextlib
import itertools
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

import guests
from tests.firmware.images import MIB, Contents, bzimage, memory_map
from workbench.firmware import LoaderError, linux
from workbench.firmware.bootstate import Allocator, BootState


def boot(
    kernel: bytes, initrd: bytes | None = None, cmdline: str = "console=ttyS0", ram_mib: int = 256
) -> tuple[BootState, Contents]:
    regions = memory_map(ram_mib)
    state = BootState()
    linux.prepare(
        linux.Kernel.parse(kernel), initrd, cmdline, regions, state, Allocator(regions), 0xF5A00
    )
    return state, Contents(state.memory)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"", "the file is empty"),
        (b"hello", "it has only 5 bytes"),
        (bytes(4096), "it has no setup header"),
        (b"\x7fELF" + bytes(4096), "it is an ELF file without a multiboot header"),
        (b"\x1f\x8b\x08" + bytes(4096), "compressed with gzip"),
        (b"070701" + bytes(4096), "perhaps the initrd"),
        (bzimage(VERSION=0x20B), r"boot protocol 2\.11; 2\.12 or later"),
        (bzimage(LOADFLAGS=0), "zImage"),
        (bzimage(SYSSIZE=0x1000), "cut off: its header announces 67584 bytes, the file has 6144"),
        (bzimage(SYSSIZE=0), "cut off"),
        (bzimage(KERNEL_ALIGNMENT=0x30), "alignment is 0x30"),
    ],
)
def test_what_is_no_kernel_is_refused_with_a_reason(image: bytes, message: str) -> None:
    with pytest.raises(LoaderError, match=message):
        linux.Kernel.parse(image)


@given(st.binary(max_size=700), st.integers(0, 0x270), st.binary(max_size=8))
def test_a_damaged_header_never_ends_in_another_error(
    noise: bytes, offset: int, patch: bytes
) -> None:
    image = bytearray(bzimage())
    image[offset : offset + len(patch)] = patch
    for candidate in (noise, bytes(image)):
        with contextlib.suppress(LoaderError):
            boot(candidate)


def test_a_32_bit_kernel_starts_in_protected_mode_without_paging() -> None:
    state, memory = boot(bzimage(b"\xf4" * 0x300, XLOADFLAGS=0))
    assert state.registers["rip"] == 0x1000000
    assert state.registers["cr0"] & 0x80000001 == 1
    assert "efer" not in state.registers
    assert "cr4" not in state.registers
    assert memory.read(state.registers["rsi"] + 0x202, 4) == b"HdrS"
    assert state.segments["cs"].selector == 0x10
    assert state.segments["cs"].attr == 0xC09B
    assert state.segments["ss"].selector == 0x18


def test_entry_is_the_64_bit_one_with_boot_params_in_rsi() -> None:
    state, memory = boot(bzimage(b"\x90" * 0x200 + b"\xf4" * 0x100))
    assert state.registers["rip"] == 0x1000200
    assert memory.read(state.registers["rip"], 2) == b"\xf4\xf4"
    assert state.registers["cr0"] & 0x80000001 == 0x80000001
    assert state.registers["cr4"] == 1 << 5
    assert state.registers["efer"] == 0x500
    assert state.registers["rflags"] == 2
    params = state.registers["rsi"]
    assert memory.unpack("<Q", params + 0x70) == (0xF5A00,)
    assert memory.unpack("<H", params + 0x1FE) == (0xAA55,)
    assert memory.read(params + 0x202, 4) == b"HdrS"
    assert memory.unpack("<B", params + 0x210) == (0xFF,)
    (pointer,) = memory.unpack("<I", params + 0x228)
    assert memory.text(pointer) == b"console=ttyS0"


def test_segments_are_those_of_the_protocol() -> None:
    state, memory = boot(bzimage())
    assert state.segments["cs"].selector == 0x10
    assert state.segments["cs"].attr & 1 << 13, "CS.L"
    assert {state.segments[name].selector for name in ("ds", "es", "ss")} == {0x18}
    code, data = memory.unpack("<QQ", state.registers["gdtr_base"] + 0x10)
    assert (code, data) == (0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF)
    assert state.registers["gdtr_limit"] == 31


def test_memory_map_reaches_the_zero_page() -> None:
    state, memory = boot(bzimage())
    params = state.registers["rsi"]
    assert memory.unpack("<B", params + 0x1E8) == (5,)
    table = [memory.unpack("<QQI", params + 0x2D0 + 20 * n) for n in range(5)]
    assert table == [(r.base, r.size, r.type) for r in memory_map(256)]


@pytest.mark.parametrize("gpa", [0, 0x1000, 0x1000200, 0xFEE0_0020, 0xFFFF_FFFF])
def test_page_tables_map_4_gib_to_themselves(gpa: int) -> None:
    state, memory = boot(bzimage())
    table = state.registers["cr3"]
    for shift in (39, 30):
        (entry,) = memory.unpack("<Q", table + (gpa >> shift & 511) * 8)
        assert entry & 3 == 3
        table = entry & ~0xFFF
    (entry,) = memory.unpack("<Q", table + (gpa >> 21 & 511) * 8)
    assert entry & 0x83 == 0x83
    assert entry & ~0x1FFFFF | gpa & 0x1FFFFF == gpa


def test_initrd_lies_as_high_as_it_may() -> None:
    initrd = b"initrd!" * 1000
    state, memory = boot(bzimage(), initrd)
    address, size = memory.unpack("<II", state.registers["rsi"] + 0x218)
    assert size == len(initrd)
    assert memory.read(address, size) == initrd
    assert address == 256 * MIB - 0x10000 - 0x2000

    state, memory = boot(bzimage(INITRD_ADDR_MAX=0x7FFFFFF), initrd)
    assert memory.unpack("<I", state.registers["rsi"] + 0x218) == (0x8000000 - 0x2000,)


def test_no_initrd() -> None:
    state, memory = boot(bzimage())
    assert memory.unpack("<II", state.registers["rsi"] + 0x218) == (0, 0)


def test_kernel_is_not_loaded_below_its_preferred_address() -> None:
    """It would move itself up to there, out of memory (boot.rst, pref_address)."""
    with pytest.raises(LoaderError, match="one piece above 16 MiB"):
        boot(bzimage(), ram_mib=40)


@pytest.mark.parametrize(
    ("ram_mib", "fields", "message"),
    [
        (24, {}, "32 MiB of memory in one piece above 16 MiB to unpack itself, and the guest has"),
        (40, {"RELOCATABLE_KERNEL": 0}, "give it more with -m"),
    ],
)
def test_too_little_memory(ram_mib: int, fields: dict[str, int], message: str) -> None:
    with pytest.raises(LoaderError, match=message):
        boot(bzimage(**fields), ram_mib=ram_mib)


def test_initrd_that_does_not_fit() -> None:
    with pytest.raises(LoaderError, match="initrd of 30 MiB does not fit beside the kernel"):
        boot(bzimage(), bytes(30 * MIB), ram_mib=64)


def test_command_line_that_is_too_long() -> None:
    with pytest.raises(LoaderError, match="at most 2047 bytes without NUL, not one of 2048"):
        boot(bzimage(), cmdline="x" * 2048)


def test_parts_do_not_overlap() -> None:
    state, _ = boot(bzimage(), b"i" * 5000)
    spans = sorted((gpa, gpa + len(data)) for gpa, data in state.memory)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))


@pytest.mark.guest
@pytest.mark.parametrize("flavour", guests.FLAVOURS)
def test_the_kernels_of_the_distribution(
    flavour: str, guest: Callable[[str], guests.Guest]
) -> None:
    files = guest(flavour)
    image = files.kernel.read_bytes()
    state, memory = boot(image, files.images["boot"].read_bytes())
    (pref,) = struct.unpack_from("<Q", image, 0x258)
    assert state.registers["rip"] == pref + (0 if flavour == "pae" else 0x200)
    assert memory.read(state.registers["rip"], 16) != bytes(16)
