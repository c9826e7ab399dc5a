"""A guest of a page of code that drives three devices, for the golden trace of their requests.

A virtio disk over MMIO by a split ring (a read, a write by an indirect table, a read behind its
end, its name), an e1000, and a virtio NIC over PCI by packed rings: each NIC asks twice by ARP for
the router of a user network and waits for the answers. `python -m tests.trace.driver_guest OUT.wbt`
records it, and writes its facts next to it; `traces/v2-drivers.wbt` was made so.
"""

from __future__ import annotations

import json
import struct
import sys
import tempfile
from functools import partial
from pathlib import Path

from tests.firmware.images import elf, multiboot_header
from workbench.block.opening import open_image
from workbench.core.config import DriveConfig, MachineConfig, NicConfig
from workbench.net.spec import open_backend
from workbench.trace.guest import Guest, build_machine
from workbench.trace.session import Limits, Recording

BASE, CODE = 0x10_0000, 12  # the code comes behind the multiboot header
SECTORS = 64
COM1, DEBUG_EXIT = 0x3F8, 0xF4

# Where things are in the image, one page for each ring or so.
BLK_DESC, BLK_AVAIL, BLK_USED, BLK_HEADERS, BLK_DATA = (BASE + n * 0x1000 for n in range(2, 7))
TX_RING, RX_RING, TX_FRAME, RX_DATA = (BASE + n * 0x1000 for n in range(7, 11))
NET_RX, NET_TX, NET_FRAMES, NET_DATA = (BASE + n * 0x1000 for n in range(11, 15))
IMAGE_BYTES = 15 * 0x1000

VIRTIO_MMIO, E1000_BAR, VIRTIO_BAR = 0xFEC1_0000, 0xE000_0000, 0xE010_0000
MACS = ("52:54:00:12:34:56", "52:54:00:12:34:57")
NEXT, WRITE, INDIRECT, AVAIL = 1, 2, 4, 1 << 7


# -- instructions ----------------------------------------------------------------------------------


def store(address: int, value: int, size: int = 4) -> bytes:
    """MOV [address], value."""
    prefix = {1: b"\xc6\x05", 2: b"\x66\xc7\x05", 4: b"\xc7\x05"}[size]
    return prefix + struct.pack("<I", address) + value.to_bytes(size, "little")


def load(address: int) -> bytes:
    """MOV EAX, [address]."""
    return b"\xa1" + struct.pack("<I", address)


def wait(address: int, mask: int, pause: int = 1000) -> bytes:
    """Read until a bit is there: MOV ECX; LOOP; MOV EAX, [address]; TEST EAX; JZ."""
    return (
        b"\xb9"
        + struct.pack("<I", pause)
        + b"\xe2\xfe"
        + load(address)
        + b"\xa9"
        + struct.pack("<I", mask)
        + b"\x74\xed"
    )


def wait_for(address: int, value: int) -> bytes:
    """Read until a word is there: CMP WORD [address]; JNE."""
    return b"\x66\x81\x3d" + struct.pack("<IH", address, value) + b"\x75\xf5"


def config(slot: int, offset: int, value: int) -> bytes:
    """Write to a PCI function, by MOV EDX; MOV EAX; OUT DX, EAX, twice."""
    where = 0x8000_0000 | slot << 11 | offset
    return b"".join(
        b"\xba" + struct.pack("<I", port) + b"\xb8" + struct.pack("<I", what) + b"\xef"
        for port, what in ((0xCF8, where), (0xCFC, value))
    )


def out(port: int, value: int) -> bytes:
    """MOV DX; MOV AL; OUT DX, AL."""
    return b"\x66\xba" + port.to_bytes(2, "little") + b"\xb0" + bytes([value]) + b"\xee"


# -- drivers: what they write into the image, and their code ---------------------------------------


class Image:
    """The contents of memory from BASE on."""

    def __init__(self) -> None:
        self.data = bytearray(IMAGE_BYTES)

    def put(self, address: int, layout: str, *values: int | bytes) -> None:
        """Write a structure."""
        struct.pack_into("<" + layout, self.data, address - BASE, *values)


def arp(mac: str, own: int) -> bytes:
    """Ask who has 10.0.2.2."""
    source = bytes.fromhex(mac.replace(":", ""))
    ask = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1)
    addresses = source + bytes((10, 0, 2, own)) + bytes(6) + bytes((10, 0, 2, 2))
    return b"\xff" * 6 + source + b"\x08\x06" + ask + addresses


def disk(image: Image) -> bytes:
    """Four requests to the disk, one after the other."""
    reg = partial(int.__add__, VIRTIO_MMIO)
    code = load(reg(0x008)) + store(reg(0x070), 0) + store(reg(0x070), 1) + store(reg(0x070), 3)
    for half, features in ((0, 1 << 28), (1, 1)):  # INDIRECT_DESC, VERSION_1
        code += store(reg(0x024), half) + store(reg(0x020), features)
    code += store(reg(0x070), 11) + store(reg(0x030), 0) + store(reg(0x038), 16)
    for at, ring in ((0x080, BLK_DESC), (0x090, BLK_AVAIL), (0x0A0, BLK_USED)):
        code += store(reg(at), ring) + store(reg(at + 4), 0)
    code += store(reg(0x044), 1) + store(reg(0x070), 15)

    # type, sector, bytes of data and whether the device writes them
    requests = ((0, 1, 512, True), (1, 3, 1024, False), (0, SECTORS, 512, True), (8, 0, 20, True))
    for n, (kind, sector, length, into) in enumerate(requests):
        header = BLK_HEADERS + 64 * n
        image.put(header, "IIQ", kind, 0, sector)
        parts = (
            (header, 16, NEXT, 1),
            (BLK_DATA, length, NEXT | (WRITE if into else 0), 2),
            (header + 16, 1, WRITE, 0),
        )
        first = 3 * n
        indirect = kind == 1
        table = BLK_DESC + 0x800 if indirect else BLK_DESC + 16 * first
        for place, (address, size, flags, following) in enumerate(parts):
            chained = following + (0 if indirect else first)
            image.put(table + 16 * place, "QIHH", address, size, flags, chained)
        if indirect:
            image.put(BLK_DESC + 16 * first, "QIHH", table, 48, INDIRECT, 0)
        code += store(BLK_AVAIL + 4 + 2 * n, first, 2) + store(BLK_AVAIL + 2, n + 1, 2)
        code += store(reg(0x050), 0) + wait_for(BLK_USED + 2, n + 1)
        code += load(reg(0x060)) + store(reg(0x064), 1)
    return code


def e1000(image: Image, slot: int) -> bytes:
    """Two frames, the second in two pieces, and their answers."""
    reg = partial(int.__add__, E1000_BAR)
    code = config(slot, 0x10, E1000_BAR) + config(slot, 0x04, 6)
    code += store(reg(0x0000), 0x41)  # CTRL: SLU, FD
    code += wait(reg(0x0008), 2, 1_000_000)  # STATUS.LU
    for at, ring in ((0x2800, RX_RING), (0x3800, TX_RING)):
        code += store(reg(at), ring) + store(reg(at + 4), 0) + store(reg(at + 8), 128)
        code += store(reg(at + 16), 0) + store(reg(at + 24), 0)
    for n in range(8):
        image.put(RX_RING + 16 * n, "QQ", RX_DATA + 0x200 * (n % 4), 0)
    code += store(reg(0x00D0), 0x9D)  # IMS
    code += store(reg(0x2818), 7) + store(reg(0x0100), 0x0401_8002)  # RCTL: EN, BAM, 1024, SECRC
    code += store(reg(0x0400), 0x0004_00FA)  # TCTL: EN, PSP
    frame = arp(MACS[0], 15)
    image.put(TX_FRAME, f"{len(frame)}s", frame)
    eop = 0x0B00_0000  # EOP, IFCS, RS
    image.put(TX_RING, "QII", TX_FRAME, len(frame) | eop, 0)
    image.put(TX_RING + 16, "QII", TX_FRAME, 14, 0)
    image.put(TX_RING + 32, "QII", TX_FRAME + 14, (len(frame) - 14) | eop, 0)
    for n, (tail, done) in enumerate(((1, 0), (3, 2))):
        code += store(reg(0x3818), tail) + wait(TX_RING + 16 * done + 12, 1)
        code += wait(RX_RING + 16 * n + 12, 1) + load(reg(0x00C0))
    return code


def nic(image: Image, slot: int) -> bytes:
    """The same by packed rings, with both frames made available at once."""
    reg = partial(int.__add__, VIRTIO_BAR)
    code = config(slot, 0x20, VIRTIO_BAR) + config(slot, 0x24, 0) + config(slot, 0x04, 6)
    code += store(reg(20), 0, 1) + store(reg(20), 1, 1) + store(reg(20), 3, 1)
    for half, features in ((0, 1 << 5), (1, 1 | 1 << 2)):  # MAC; VERSION_1, RING_PACKED
        code += store(reg(8), half) + store(reg(12), features)
    code += store(reg(20), 11, 1)
    for queue, ring in ((0, NET_RX), (1, NET_TX)):
        code += store(reg(22), queue, 2) + store(reg(24), 8, 2)
        for at, area in ((32, ring), (40, ring + 0x100), (48, ring + 0x200)):
            code += store(reg(at), area) + store(reg(at + 4), 0)
        code += store(reg(28), 1, 2)
    code += store(reg(20), 15, 1)
    for n in range(4):
        buffer = NET_DATA + 0x400 * n
        image.put(NET_RX + 16 * n, "QIHH", buffer, 0x400, 10 + n, WRITE | AVAIL)
    frame = bytes(12) + arp(MACS[1], 16)
    image.put(NET_FRAMES, f"{len(frame)}s", frame)
    image.put(NET_TX, "QIHH", NET_FRAMES, len(frame), 5, AVAIL)
    image.put(NET_TX + 16, "QIHH", NET_FRAMES, 12, 6, NEXT | AVAIL)
    image.put(NET_TX + 32, "QIHH", NET_FRAMES + 12, len(frame) - 12, 6, AVAIL)
    code += store(reg(0x3000), 0, 2) + store(reg(0x3004), 1, 2)
    for used in (NET_TX + 16, NET_RX, NET_RX + 16):
        code += wait(used + 12, 1 << 31)
    return code + load(reg(0x1000))  # the ISR status, and what is behind it


def kernel() -> bytes:
    """The guest: its code in 32-bit protected mode, and the memory that the drivers share."""
    image = Image()
    code = multiboot_header(0) + disk(image) + e1000(image, 3) + nic(image, 4)
    code += out(COM1, ord("\n")) + out(DEBUG_EXIT, 0) + b"\xf4\xeb\xfd"
    assert len(code) <= 0x2000
    image.data[: len(code)] = code
    return elf(bytes(image.data))


def record(path: Path) -> None:
    """Record it."""
    drive = DriveConfig(
        "drive0", "virtio", SECTORS * 512, serial="golden", transport="mmio", flavour="modern"
    )
    nics = (
        NicConfig("net0", "e1000", MACS[0]),
        NicConfig("net1", "virtio-net", MACS[1], flavour="modern", packed=True),
    )
    machine = MachineConfig(
        ram_bytes=16 << 20, seed=1, rtc_epoch_s=1_767_225_600, drives=(drive,), nics=nics
    )
    networks = {part.name: open_backend("user") for part in nics}
    with tempfile.TemporaryDirectory() as folder:
        contents = Path(folder) / "disk.raw"
        contents.write_bytes(b"".join(bytes([n]) * 512 for n in range(SECTORS)))
        images = {drive.name: open_image(str(contents), read_only=True, format_name="raw")}
        Recording(
            str(path),
            machine.to_json(),
            Guest(kernel(), kernel_path="drivers.elf"),
            limits=Limits(icount=10_000_000_000, wall_s=60),
            build=partial(build_machine, images=images, networks=networks),
        ).run()


if __name__ == "__main__":
    from tests.trace.test_golden import facts

    target = Path(sys.argv[1])
    record(target)
    target.with_suffix(".json").write_text(json.dumps(facts(target), indent=2) + "\n")
