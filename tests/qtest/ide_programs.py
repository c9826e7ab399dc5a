"""Register programs for the IDE function, which run on ours and on QEMU's over qtest.

A program does things to registers and notes what it sees; `beside` runs all on both and gives
what differs. `python -m tests.qtest.ide_programs [NAME]` prints it, `ide_differences.py` explains
it. QEMU's processor is held by -S, since Debian's QEMU has no accelerator of the name qtest.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.qtest.beside import NoteBook, Notes, differences, main, run_all
from tests.qtest.wire import Wire

BSY, DRQ, ERR = 0x80, 0x08, 0x01
BM = 0xC040
TABLE, BUFFER = 0x10_0000, 0x20_0000
DISK_SECTORS = 20480
DISC_BLOCKS = 300


class Driver(NoteBook):
    """The guest's side over the wire. The disk is 0:0, the CD-ROM 1:0, unless said otherwise."""

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self.wire = wire
        wire.send("irq_intercept_in ioapic")

    def begin(self, name: str) -> None:
        """Reset the machine, decode IDE, and call what follows `name`."""
        self.wire.qmp("system_reset")
        self.wire.event("RESET")
        super().begin(name)
        for offset, value in ((0x20, BM | 1), (4, 5), (0x40, 0x8000_8000)):
            self.wire.send(f"outl 0xcf8 {1 << 31 | 1 << 11 | 1 << 8 | offset:#x}")
            self.wire.send(f"outl 0xcfc {value:#x}")
        for channel in (0, 1):
            self.inb(7, channel)

    # -- registers

    def inb(self, reg: int, channel: int = 0) -> int:
        return self.wire.number(f"inb {(0x1F0, 0x170)[channel] + reg:#x}")

    def outb(self, reg: int, value: int, channel: int = 0) -> None:
        self.wire.send(f"outb {(0x1F0, 0x170)[channel] + reg:#x} {value:#x}")

    def alternate(self, channel: int = 0) -> int:
        return self.wire.number(f"inb {(0x3F6, 0x376)[channel]:#x}")

    def control(self, value: int, channel: int = 0) -> None:
        self.wire.send(f"outb {(0x3F6, 0x376)[channel]:#x} {value:#x}")

    def irq(self, channel: int = 0) -> bool:
        self.alternate(channel)
        return self.wire.irqs.get(14 + channel, False)

    def bm(self, reg: int, value: int | None = None, channel: int = 0) -> int:
        port = BM + 8 * channel + reg
        size = "l" if reg == 4 else "b"
        if value is None:
            return self.wire.number(f"in{size} {port:#x}")
        self.wire.send(f"out{size} {port:#x} {value:#x}")
        return value

    def wait(self, channel: int = 0, seconds: float = 0.3) -> int:
        """Alternate Status once it is not busy, or after a while; also until it is not the idle
        DMA that QEMU shows.
        """
        end = time.monotonic() + seconds
        while (status := self.alternate(channel)) & BSY and time.monotonic() < end:
            self.wire.send("clock_step 1000000")
        return status

    def settle(self, channel: int = 0) -> None:
        """Let what is under way end: an interrupt, or a moment."""
        end = time.monotonic() + 0.1
        while not self.irq(channel) and time.monotonic() < end:
            self.wire.send("clock_step 1000000")

    def words(self, count: int = 256, channel: int = 0) -> bytes:
        port = (0x1F0, 0x170)[channel]
        return b"".join(
            self.wire.number(f"inw {port:#x}").to_bytes(2, "little") for _ in range(count)
        )

    def send_words(self, data: bytes, channel: int = 0) -> None:
        port = (0x1F0, 0x170)[channel]
        for (word,) in struct.iter_unpack("<H", data):
            self.wire.send(f"outw {port:#x} {word:#x}")

    def seen(self, what: str, channel: int = 0) -> None:
        """Note interrupt, task file, bus master."""
        irq = self.irq(channel)
        regs = [self.inb(n, channel) for n in range(1, 7)]
        regs[5] &= ~0xA0
        status = self.inb(7, channel)
        self.note(what, f"irq={irq:d} ST={status:02x} ER={regs[0]:02x} SC={regs[1]:02x} "
                  f"LBA={regs[4]:02x}{regs[3]:02x}{regs[2]:02x} DEV={regs[5]:02x}")  # fmt: skip
        if self.irq(channel):
            self.note(f"{what}, interrupt left after Status", True)

    def command(
        self, code: int, lba: int = 0, count: int = 1, *, features: int = 0, device: int = 0xE0,
        ext: bool = False, channel: int = 0,
    ) -> None:  # fmt: skip
        self.outb(6, device | (0 if ext or not device & 0x40 else lba >> 24 & 0xF), channel)
        if ext:
            for reg, value in (
                (1, 0),
                (2, count >> 8),
                (3, lba >> 24),
                (4, lba >> 32),
                (5, lba >> 40),
            ):
                self.outb(reg, value & 0xFF, channel)
        for reg, value in ((1, features), (2, count), (3, lba), (4, lba >> 8), (5, lba >> 16)):
            self.outb(reg, value & 0xFF, channel)
        self.outb(7, code, channel)

    # -- memory and DMA

    def write_memory(self, gpa: int, data: bytes) -> None:
        self.wire.send(f"write {gpa:#x} {len(data)} 0x{data.hex()}")

    def memory(self, gpa: int, length: int) -> bytes:
        return bytes.fromhex(self.wire.send(f"read {gpa:#x} {length}").split()[1][2:])

    def table(self, *entries: tuple[int, int], end: bool = True, at: int = TABLE) -> None:
        raw = b"".join(struct.pack("<II", gpa, n) for gpa, n in entries)
        if end:
            raw = raw[:-1] + bytes((raw[-1] | 0x80,))
        self.write_memory(at, raw)

    def start(self, *, to_memory: bool = True, channel: int = 0, at: int = TABLE) -> None:
        self.bm(4, at, channel)
        self.bm(2, 6, channel)
        self.bm(0, 9 if to_memory else 1, channel)

    def dma(self, what: str, channel: int = 0) -> None:
        """Wait for the end of a transfer and note it."""
        self.settle(channel)
        self.note(f"{what}, BMIS", f"{self.bm(2, channel=channel) & 7:x}")
        self.seen(what, channel)
        self.bm(0, 0, channel)
        self.note(f"{what}, BMIS after the stop", f"{self.bm(2, channel=channel) & 7:x}")

    # -- packets

    def packet(
        self, *data: int, limit: int = 0xF000, dma: bool = False, what: str = ""
    ) -> tuple[bytes, int]:
        """Send a packet, take its data by PIO; data, and the Error register."""
        self.command(0xA0, lba=limit << 8, count=0, features=int(dma), channel=1, device=0xA0)
        status = self.wait(1)
        if what:
            self.seen(f"{what}, wants the packet", 1)
        if not status & DRQ:
            return b"", self.inb(1, 1)
        self.send_words(bytes(data).ljust(12, b"\0"), 1)
        out = b""
        blocks: list[int] = []
        while self.wait(1) & DRQ:
            if self.inb(2, 1) & 3 != 2 or len(blocks) > 100:
                return out, 0x1FF  # wants data: not a command of a CD-ROM
            length = self.inb(4, 1) | self.inb(5, 1) << 8
            blocks.append(length)
            if what and len(blocks) == 1:
                self.seen(f"{what}, first block", 1)
            else:
                self.inb(7, 1)
            out += self.words((length + 1) // 2, 1)[:length]
        if what:
            self.note(f"{what}, blocks", blocks)
            self.seen(f"{what}, end", 1)
        status = self.inb(7, 1)
        return out, self.inb(1, 1) if status & ERR else 0

    def sense(self) -> str:
        data, _ = self.packet(0x03, 0, 0, 0, 18)
        return f"{data[2]:x}/{data[12]:02x}/{data[13]:02x}" if len(data) >= 14 else data.hex()

    def calm(self) -> None:
        """Take all unit attentions."""
        for _ in range(3):
            self.packet(0x00)
            self.sense()


PROGRAMS: list[tuple[str, Callable[[Driver], None]]] = []


def program(function: Callable[[Driver], None]) -> Callable[[Driver], None]:
    PROGRAMS.append((function.__name__.replace("_", " "), function))
    return function


# -- ATA -------------------------------------------------------------------------------------------


@program
def reset(d: Driver) -> None:
    for channel in (0, 1):
        d.seen(f"channel {channel} after power-on", channel)
        d.control(4, channel)
        d.note(f"channel {channel} in SRST", f"{d.alternate(channel):02x}")
        d.control(0, channel)
        d.wait(channel)
        d.seen(f"channel {channel} after SRST", channel)
        d.outb(6, 0xB0, channel)
        d.seen(f"channel {channel} drive 1", channel)
        d.command(0xEC, channel=channel, device=0xF0)
        d.wait(channel)
        d.seen(f"channel {channel} drive 1 IDENTIFY", channel)


@program
def task_file(d: Driver) -> None:
    for n, value in ((2, 0x12), (3, 0x34), (4, 0x56), (5, 0x78), (2, 0x21), (3, 0x43), (5, 0x87)):
        d.outb(n, value)
    d.note("new", [f"{d.inb(n):02x}" for n in range(2, 6)])
    d.control(0x80)
    d.note("HOB", [f"{d.inb(n):02x}" for n in range(2, 6)])
    d.outb(6, 0xE5)
    d.note("after a write", [f"{d.inb(n):02x}" for n in range(2, 6)])
    d.note("device", f"{d.inb(6) & 0x5F:02x}")
    d.outb(1, 0x99)
    d.note("error is not features", f"{d.inb(1):02x}")


@program
def nien(d: Driver) -> None:
    d.control(2)
    d.command(0x40)
    d.wait()
    d.note("irq", d.irq())
    d.control(0)
    d.note("irq when enabled", d.irq())
    d.note("BMIS", f"{d.bm(2) & 4:x}")
    d.inb(7)
    d.note("irq after Status", d.irq())
    d.command(0x40)
    d.wait()
    d.note("irq, enabled before", d.irq())
    d.control(2)
    d.note("irq, disabled while pending", d.irq())


@program
def alternate_status(d: Driver) -> None:
    d.command(0xEC)
    d.wait()
    d.note("irq before", d.irq())
    d.alternate()
    d.note("irq after Alternate Status", d.irq())
    d.inb(7)
    d.note("irq after Status", d.irq())


@program
def identify(d: Driver) -> None:
    d.command(0xEC)
    d.wait()
    d.seen("before")
    data = d.words()
    d.seen("after")
    for n, (word,) in enumerate(struct.iter_unpack("<H", data)):
        d.note(f"word {n}", f"{word:04x}")


@program
def pio(d: Driver) -> None:
    """PIO data-in and data-out: interrupts and registers at each step."""
    for code, ext in ((0x20, False), (0x24, True), (0xC4, False), (0x29, True)):
        name = f"{code:02x}"
        if code in (0xC4, 0x29):
            d.command(0xC6, count=2)
            d.wait()
            d.inb(7)
        d.command(code, 7, 3, ext=ext)
        got = b""
        for block in range(3):
            if not d.wait() & DRQ:
                break
            d.seen(f"{name} block {block}")
            got += d.words(256 * (2 if code in (0xC4, 0x29) and block == 0 else 1))
        d.seen(f"{name} end")
        d.note(f"{name} data", got == sectors(7, 3))
    for code, ext in ((0x30, False), (0x34, True), (0xC5, False), (0x39, True)):
        name = f"{code:02x}"
        d.command(code, 11, 3, ext=ext)
        d.wait()
        d.seen(f"{name} begin")
        for block in range(3):
            d.send_words(
                bytes((code, block)) * (512 if code in (0xC5, 0x39) and not block else 256)
            )
            d.wait()
            d.seen(f"{name} after block {block}")
            if code in (0xC5, 0x39) and block == 1:
                break
        d.command(0x20, 11, 3)
        for block in range(3):
            d.wait()
            d.inb(7)
            d.note(f"{name} read back {block}", d.words()[:2].hex())


@program
def multiple(d: Driver) -> None:
    for count in (0, 1, 2, 3, 16, 17, 32, 64, 128, 255):
        d.command(0xC6, count=count)
        d.wait()
        d.seen(f"SET MULTIPLE {count}")
        d.command(0xEC)
        d.wait()
        words = struct.unpack("<256H", d.words())
        d.note(f"SET MULTIPLE {count}, word 59", f"{words[59]:04x}")
    d.command(0xC6, count=0)
    d.wait()
    d.command(0xC4)
    d.wait()
    d.seen("READ MULTIPLE without")


@program
def ends_of_the_disk(d: Driver) -> None:
    last = DISK_SECTORS - 1
    for code in (0x20, 0x24, 0x25, 0x29, 0x30, 0x34, 0x35, 0x39, 0x40, 0x42, 0x70, 0xC4, 0xC5, 0xC8,
                 0xCA):  # fmt: skip
        ext = code in (0x24, 0x25, 0x29, 0x34, 0x35, 0x39, 0x42)
        for lba, count in ((last + 1, 1), (last, 2), (0xFFFFFF, 1), (0x0FFFFFFF, 1), (1 << 40, 1)):
            if lba >> 28 and not ext:
                continue
            d.begin(f"ends of the disk {code:02x} {lba:x}+{count}")
            d.table((BUFFER, 1024))
            d.start(to_memory=code in (0x25, 0xC8))
            d.command(code, lba, count, ext=ext)
            d.settle()
            status = d.wait()
            if status & DRQ:
                d.note("data is asked for", True)
                continue
            d.note("BMIS", f"{d.bm(2) & 7:x}")
            d.seen("end")


@program
def chs(d: Driver) -> None:
    places = ((1, 0, 0), (0, 0, 0), (63, 0, 15), (64, 0, 0), (1, 20, 4), (1, 30, 0))
    for sector, cylinder, head in places:
        d.command(0x20, sector | cylinder << 8, 1, device=0xA0 | head)
        status = d.wait()
        d.seen(f"{cylinder}/{head}/{sector}")
        if status & DRQ:
            d.note(f"{cylinder}/{head}/{sector} data", d.words()[:8].hex())
    d.command(0x91, count=32, device=0xA7)
    d.wait()
    d.seen("INITIALIZE DEVICE PARAMETERS")
    d.command(0x20, 2 | 1 << 8, 1, device=0xA1)
    if d.wait() & DRQ:
        d.note("data in the new geometry", d.words()[:8].hex())
    d.command(0xEC)
    d.wait()
    words = struct.unpack("<256H", d.words())
    d.note("current geometry", words[54:59])


@program
def commands(d: Driver) -> None:
    for code in range(256):
        d.begin(f"command {code:02x}")
        d.table((BUFFER, 512))
        d.command(code, 0, 1, ext=True)
        d.settle()
        d.note("data request", bool(d.wait() & DRQ))
        d.seen("end")


@program
def features(d: Driver) -> None:
    for what in range(256):
        d.command(0xEF, 0, 0, features=what)
        d.wait()
        d.note(f"{what:02x}", f"{d.inb(7) & 0x89:02x} {d.inb(1):02x}")
    for mode in range(256):
        d.command(0xEF, 0, mode, features=3)
        d.wait()
        d.note(f"mode {mode:02x}", f"{d.inb(7) & 0x89:02x} {d.inb(1):02x}")
    d.command(0xEF, 0, 0x44, features=3)
    d.wait()
    d.command(0xEC)
    d.wait()
    words = struct.unpack("<256H", d.words())
    d.note("words of UDMA 4", f"{words[63]:04x} {words[88]:04x}")


def smart_on(d: Driver) -> None:
    """It stays off over a reset of QEMU's machine."""
    d.command(0xB0, 0xC24F00, 1, features=0xD8)
    d.wait()
    d.inb(7)


@program
def smart(d: Driver) -> None:
    for what in range(0xD0, 0xE0):
        for log in (0, 1, 6):
            if log and what not in (0xD4, 0xD5):
                continue
            d.begin(f"smart {what:02x} {log}")
            smart_on(d)
            d.command(0xB0, 0xC24F00 | log, 1, features=what)
            status = d.wait()
            d.seen("status")
            if status & DRQ:
                data = d.words()
                d.note("data", data.hex())
    d.begin("smart with a wrong key")
    smart_on(d)
    d.command(0xB0, 0x123400, 1, features=0xD0)
    d.wait()
    d.seen("status")
    d.begin("smart off")
    smart_on(d)
    d.command(0xB0, 0xC24F00, 1, features=0xD9)
    d.wait()
    d.seen("off")
    d.command(0xB0, 0xC24F00, 1, features=0xDA)
    d.wait()
    d.seen("return status when off")


@program
def power(d: Driver) -> None:
    for step, code in enumerate((0xE5, 0xE0, 0xE5, 0xE1, 0xE5, 0xE2, 0xE5, 0xE3, 0xE5)):
        d.command(code, count=0)
        d.wait()
        d.note(f"{step}: {code:02x}", f"{d.inb(7):02x} {d.inb(2):02x}")


@program
def native_max(d: Driver) -> None:
    for code, ext in ((0xF8, False), (0x27, True)):
        d.command(code, 0, 0, ext=ext)
        d.wait()
        d.seen(f"{code:02x}")
        d.control(0x80)
        d.note(f"{code:02x} HOB", [f"{d.inb(n):02x}" for n in range(3, 6)])
        d.control(0)


@program
def diagnostic(d: Driver) -> None:
    for channel in (0, 1):
        d.outb(6, 0xB0, channel)
        d.outb(7, 0x90, channel)
        d.settle(channel)
        d.seen(f"channel {channel}", channel)


# -- bus master ------------------------------------------------------------------------------------

TABLES: dict[str, list[tuple[int, int]]] = {
    "exact": [(BUFFER, 1024)],
    "two": [(BUFFER, 512), (BUFFER + 0x1000, 512)],
    "small pieces": [(BUFFER + 0x100 * n, 128) for n in range(8)],
    "longer": [(BUFFER, 2048)],
    "an entry too many": [(BUFFER, 1024), (BUFFER + 0x1000, 512)],
    "shorter": [(BUFFER, 512)],
    "shorter, not whole sectors": [(BUFFER, 700)],
    "zero is 64 KiB": [(BUFFER, 0)],
    "odd address": [(BUFFER + 1, 1024)],
    "odd length": [(BUFFER, 1025)],
}


@program
def bus_master(d: Driver) -> None:
    for code in (0xC8, 0xCA, 0x25, 0x35):
        reading = code in (0xC8, 0x25)
        for name, entries in TABLES.items():
            d.begin(f"bus master {code:02x} {name}")
            d.write_memory(BUFFER, bytes(0x2000) if reading else bytes(range(256)) * 32)
            d.table(*entries)
            d.command(code, 21, 2, ext=code < 0x40)
            d.start(to_memory=reading)
            d.dma("end")
            if reading:
                d.note("memory", d.memory(BUFFER, 0x1800).hex())
            else:
                d.command(0x20, 21, 3)
                for n in range(3):
                    d.wait()
                    d.inb(7)
                    d.note(f"sector {n}", d.words().hex())


@program
def bus_master_registers(d: Driver) -> None:
    for n in (0, 1):
        d.note(f"BMIC {n}", f"{d.bm(0, channel=n):02x}")
        d.note(f"BMIS {n}", f"{d.bm(2, channel=n):02x}")
        for reg in (1, 3):
            d.note(f"{reg} {n}", f"{d.bm(reg, channel=n):02x}")
        d.bm(4, 0xFFFF_FFFF, n)
        d.note(f"BMIDTP {n}", f"{d.bm(4, channel=n):08x}")
        for value in (0xFF, 0x60, 0x00, 0x06):
            d.bm(2, value, n)
            d.note(f"BMIS {n} after {value:02x}", f"{d.bm(2, channel=n):02x}")
        for step, value in enumerate((0xF6, 0x08, 0x01, 0x00, 0x09, 0x00)):
            d.bm(0, value, n)
            d.note(f"BMIC {n} after {step}: {value:02x}",
                   f"{d.bm(0, channel=n):02x} {d.bm(2, channel=n):02x}")  # fmt: skip
    d.wire.send(f"outw {BM + 4:#x} 0x1234")
    d.wire.send(f"outw {BM + 6:#x} 0x5678")
    d.note("BMIDTP in halves", f"{d.bm(4):08x}")


@program
def bus_master_order(d: Driver) -> None:
    """Engine first, command first, engine late, engine stopped in between, the wrong direction."""
    for order in ("engine first", "late", "stopped and started", "wrong direction", "never"):
        d.begin(f"bus master order {order}")
        d.write_memory(BUFFER, bytes(0x1000))
        d.table((BUFFER, 512))
        if order == "engine first":
            d.start()
        d.command(0xC8, 5, 1)
        match order:
            case "late":
                d.note("status before", f"{d.alternate() & 0x89:02x}")
                d.start()
            case "stopped and started":
                d.bm(0, 0)
                d.start()
            case "wrong direction":
                d.start(to_memory=False)
            case "never":
                d.wire.send("clock_step 1000000000")
                d.note("status", f"{d.alternate() & 0x89:02x}")
                d.control(4)
                d.control(0)
                d.wait()
                d.seen("after a reset")
                continue
        d.dma("end")
        d.note("memory", d.memory(BUFFER, 512) == sectors(5, 1))


@program
def interrupt_bit(d: Driver) -> None:
    """IDEINTS is set by a PIO command's interrupt too, and is cleared by writing it."""
    d.bm(2, 4)
    d.command(0x40)
    d.wait()
    d.note("after VERIFY", f"{d.bm(2) & 4:x}")
    d.inb(7)
    d.note("after Status", f"{d.bm(2) & 4:x}")
    d.bm(2, 4)
    d.note("after W1C", f"{d.bm(2) & 4:x}")
    d.command(0x40)
    d.wait()
    d.bm(2, 4)
    d.note("W1C while INTRQ", f"{d.bm(2) & 4:x}")
    d.note("irq", d.irq())


@program
def trim(d: Driver) -> None:
    for lba, (name, count, features) in enumerate((
        ("one", 2, 1), ("empty", 0, 1), ("outside", 65535, 1), ("no trim bit", 2, 0),
        ("other bits", 2, 3),
    ), 50):  # fmt: skip
        d.begin(f"trim {name}")
        d.write_memory(BUFFER, (4 * lba | count << 48).to_bytes(8, "little").ljust(512, b"\0"))
        d.table((BUFFER, 512))
        d.command(0x06, 0, 1, features=features, ext=True)
        d.start(to_memory=False)
        d.dma("end")
        d.command(0x20, 4 * lba, 1)
        d.wait()
        d.inb(7)
        d.note("sector is zeros", d.words() == bytes(512))


# -- ATAPI -----------------------------------------------------------------------------------------

PACKETS: dict[str, tuple[int, ...]] = {
    "TEST UNIT READY": (0x00,),
    "REQUEST SENSE": (0x03, 0, 0, 0, 18),
    "REQUEST SENSE 4": (0x03, 0, 0, 0, 4),
    "REQUEST SENSE 252": (0x03, 0, 0, 0, 252),
    "INQUIRY": (0x12, 0, 0, 0, 36),
    "INQUIRY 5": (0x12, 0, 0, 0, 5),
    "INQUIRY 255": (0x12, 0, 0, 0, 255),
    "INQUIRY VPD 0": (0x12, 1, 0, 0, 255),
    "INQUIRY VPD 83": (0x12, 1, 0x83, 0, 255),
    "INQUIRY VPD 90": (0x12, 1, 0x90, 0, 255),
    "READ CAPACITY": (0x25,),
    "READ 10 none": (0x28, 0, 0, 0, 0, 5, 0, 0, 0),
    "READ 10": (0x28, 0, 0, 0, 0, 5, 0, 0, 2),
    "READ 10 last": (0x28, 0, 0, 0, 1, 43, 0, 0, 1),
    "READ 10 beyond": (0x28, 0, 0, 0, 1, 43, 0, 0, 2),
    "READ 10 far": (0x28, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 1),
    "READ 10 none beyond": (0x28, 0, 0, 0, 1, 45, 0, 0, 0),
    "READ 12": (0xA8, 0, 0, 0, 0, 5, 0, 0, 0, 2),
    "READ 12 far": (0xA8, 0, 0, 0, 0, 5, 0xFF, 0, 0, 2),
    "SEEK": (0x2B, 0, 0, 0, 0, 5),
    "SEEK far": (0x2B, 0, 0xFF, 0, 0, 5),
    "READ TOC": (0x43, 0, 0, 0, 0, 0, 0, 1, 0),
    "READ TOC msf": (0x43, 2, 0, 0, 0, 0, 0, 1, 0),
    "READ TOC AA": (0x43, 0, 0, 0, 0, 0, 0xAA, 1, 0),
    "READ TOC 1": (0x43, 0, 0, 0, 0, 0, 1, 1, 0),
    "READ TOC 2": (0x43, 0, 0, 0, 0, 0, 2, 1, 0),
    "READ TOC format 1": (0x43, 0, 1, 0, 0, 0, 0, 1, 0),
    "READ TOC format 2": (0x43, 0, 2, 0, 0, 0, 0, 1, 0),
    "READ TOC format 2 msf": (0x43, 2, 2, 0, 0, 0, 0, 1, 0),
    "READ TOC format 3": (0x43, 0, 3, 0, 0, 0, 0, 1, 0),
    "READ TOC format in byte 9": (0x43, 0, 0, 0, 0, 0, 0, 1, 0, 0x40),
    "READ TOC 4 bytes": (0x43, 0, 0, 0, 0, 0, 0, 0, 4),
    "MODE SENSE 6 all": (0x1A, 0, 0x3F, 0, 255),
    "MODE SENSE all": (0x5A, 0, 0x3F, 0, 0, 0, 0, 1, 0),
    "MODE SENSE 01": (0x5A, 0, 0x01, 0, 0, 0, 0, 1, 0),
    "MODE SENSE 0D": (0x5A, 0, 0x0D, 0, 0, 0, 0, 1, 0),
    "MODE SENSE 0E": (0x5A, 0, 0x0E, 0, 0, 0, 0, 1, 0),
    "MODE SENSE 2A": (0x5A, 0, 0x2A, 0, 0, 0, 0, 1, 0),
    "MODE SENSE 2A changeable": (0x5A, 0, 0x6A, 0, 0, 0, 0, 1, 0),
    "MODE SENSE 2A default": (0x5A, 0, 0xAA, 0, 0, 0, 0, 1, 0),
    "MODE SENSE 2A saved": (0x5A, 0, 0xEA, 0, 0, 0, 0, 1, 0),
    "MODE SENSE 33": (0x5A, 0, 0x33, 0, 0, 0, 0, 1, 0),
    "GET CONFIGURATION": (0x46, 0, 0, 0, 0, 0, 0, 1, 0),
    "GET CONFIGURATION current": (0x46, 1, 0, 0, 0, 0, 0, 1, 0),
    "GET CONFIGURATION one": (0x46, 2, 0, 3, 0, 0, 0, 1, 0),
    "GET CONFIGURATION from 1": (0x46, 0, 0, 1, 0, 0, 0, 1, 0),
    "GET CONFIGURATION 3": (0x46, 3, 0, 1, 0, 0, 0, 1, 0),
    "GET EVENT": (0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8),
    "GET EVENT all": (0x4A, 1, 0, 0, 0xFF, 0, 0, 0, 8),
    "GET EVENT operational": (0x4A, 1, 0, 0, 0x02, 0, 0, 0, 8),
    "GET EVENT none": (0x4A, 1, 0, 0, 0, 0, 0, 0, 8),
    "GET EVENT 4": (0x4A, 1, 0, 0, 0x10, 0, 0, 0, 4),
    "GET EVENT not polled": (0x4A, 0, 0, 0, 0x10, 0, 0, 0, 8),
    "READ DISC INFORMATION": (0x51, 0, 0, 0, 0, 0, 0, 0, 64),
    "READ DISC INFORMATION type 1": (0x51, 1, 0, 0, 0, 0, 0, 0, 64),
    "READ SUB-CHANNEL": (0x42, 0, 0, 0, 0, 0, 0, 0, 64),
    "READ SUB-CHANNEL position": (0x42, 0, 0x40, 1, 0, 0, 0, 0, 64),
    "READ SUB-CHANNEL catalogue": (0x42, 0, 0x40, 2, 0, 0, 0, 0, 64),
    "MECHANISM STATUS": (0xBD, 0, 0, 0, 0, 0, 0, 0, 0, 32),
    "READ CD user": (0xBE, 0, 0, 0, 0, 5, 0, 0, 1, 0x10),
    "READ CD all": (0xBE, 0, 0, 0, 0, 5, 0, 0, 1, 0xF8),
    "READ CD none": (0xBE, 0, 0, 0, 0, 5, 0, 0, 1, 0x00),
    "READ CD sync": (0xBE, 0, 0, 0, 0, 5, 0, 0, 1, 0x80),
    "READ CD audio": (0xBE, 4, 0, 0, 0, 5, 0, 0, 1, 0x10),
    "READ CD far": (0xBE, 0, 0, 0xFF, 0, 5, 0, 0, 1, 0x10),
    "READ CD sub-channel": (0xBE, 0, 0, 0, 0, 5, 0, 0, 1, 0x10, 1),
    "SET CD SPEED": (0xBB, 0, 0xFF, 0xFF),
    "START": (0x1B, 0, 0, 0, 1),
    "STOP": (0x1B, 0, 0, 0, 0),
    "SLEEP": (0x1B, 0, 0, 0, 0x30),
    "PREVENT": (0x1E, 0, 0, 0, 1),
    "ALLOW": (0x1E, 0, 0, 0, 0),
    "READ DVD STRUCTURE": (0xAD, 0, 0, 0, 0, 0, 0, 0, 0, 64),
    "READ TRACK INFORMATION": (0x52, 1, 0, 0, 0, 1, 0, 0, 64),
    "READ FORMAT CAPACITIES": (0x23, 0, 0, 0, 0, 0, 0, 0, 64),
    "READ HEADER": (0x44, 0, 0, 0, 0, 5, 0, 0, 8),
    "MODE SELECT": (0x55, 0x10, 0, 0, 0, 0, 0, 0, 0),
    "SYNCHRONIZE CACHE": (0x35,),
    "WRITE 10": (0x2A, 0, 0, 0, 0, 5, 0, 0, 1),
    "VERIFY 10": (0x2F, 0, 0, 0, 0, 5, 0, 0, 1),
    "REPORT LUNS": (0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 64),
}  # fmt: skip


@program
def packets(d: Driver) -> None:
    for name, packet in PACKETS.items():
        d.begin(f"packet {name}")
        d.calm()
        data, error = d.packet(*packet)
        d.note("data", data.hex() if len(data) < 300 else (len(data), hash_of(data)))
        d.note("error", f"{error:02x}")
        if error:
            d.note("sense", d.sense())


@program
def packets_without_a_disc(d: Driver) -> None:
    for name, packet in PACKETS.items():
        d.begin(f"no disc {name}")
        d.calm()
        d.packet(0x1B, 0, 0, 0, 2)
        d.calm()
        data, error = d.packet(*packet)
        d.note("data", data.hex())
        d.note("error", f"{error:02x}")
        if error:
            d.note("sense", d.sense())
        d.packet(0x1E)
        d.packet(0x1B, 0, 0, 0, 3)


@program
def packet_codes(d: Driver) -> None:
    d.calm()
    for code in range(256):
        if code in (0x1B, 0x1E):
            continue
        data, error = d.packet(code, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
        d.note(f"{code:02x}", f"{len(data)} bytes, error {error:02x}")
        if error == 0x1FF:
            d.control(4, 1)
            d.control(0, 1)
            d.wait(1)
        elif error:
            d.note(f"{code:02x} sense", d.sense())


@program
def packet_protocol(d: Driver) -> None:
    for limit in (0, 1, 2, 3, 100, 512, 1023, 2048, 4095, 0x8000, 0xFFFE, 0xFFFF):
        d.begin(f"packet protocol limit {limit}")
        d.calm()
        data, error = d.packet(0x28, 0, 0, 0, 0, 1, 0, 0, 3, limit=limit, what="READ 10")
        d.note("READ 10 data", (len(data), hash_of(data), error))
        data, error = d.packet(0x12, 0, 0, 0, 36, limit=limit, what="INQUIRY")
        d.note("INQUIRY data", (len(data), error))
    d.begin("packet protocol without data")
    d.calm()
    d.packet(0x00, what="TEST UNIT READY")
    d.packet(0x28, 0, 0, 0xFF, 0, 1, 0, 0, 3, what="READ 10 beyond")
    d.packet(0x00, what="TEST UNIT READY after an error")


@program
def packet_dma(d: Driver) -> None:
    for name, packet, entries in (
        ("READ 10", (0x28, 0, 0, 0, 0, 1, 0, 0, 2), [(BUFFER, 4096)]),
        ("READ 10 longer table", (0x28, 0, 0, 0, 0, 1, 0, 0, 2), [(BUFFER, 8192)]),
        ("READ 10 shorter table", (0x28, 0, 0, 0, 0, 1, 0, 0, 2), [(BUFFER, 2048)]),
        ("READ 10 beyond", (0x28, 0, 0, 0xFF, 0, 1, 0, 0, 2), [(BUFFER, 4096)]),
        ("INQUIRY", (0x12, 0, 0, 0, 36), [(BUFFER, 36)]),
        ("INQUIRY longer table", (0x12, 0, 0, 0, 36), [(BUFFER, 512)]),
        ("TEST UNIT READY", (0x00,), [(BUFFER, 512)]),
    ):
        d.begin(f"packet dma {name}")
        d.calm()
        d.write_memory(BUFFER, bytes(8192))
        d.table(*entries)
        d.command(0xA0, lba=0, count=0, features=1, channel=1, device=0xA0)
        d.wait(1)
        d.seen("wants the packet", 1)
        d.send_words(bytes(packet).ljust(12, b"\0"), 1)
        d.start(channel=1)
        d.dma("end", 1)
        d.note("memory", hash_of(d.memory(BUFFER, 8192).replace(b"QEMU", b"")))


@program
def media_change(d: Driver) -> None:
    d.calm()
    d.packet(0x1E, 0, 0, 0, 1)
    d.note("eject when locked", (d.packet(0x1B, 0, 0, 0, 2)[1], d.sense()))
    d.packet(0x1E)
    d.note("eject", d.packet(0x1B, 0, 0, 0, 2)[1])
    for n in range(3):
        d.note(f"ready {n}", (d.packet(0x00)[1], d.sense()))
    d.note("event", d.packet(0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8)[0].hex())
    d.note("event again", d.packet(0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8)[0].hex())
    d.note("mechanism", d.packet(0xBD, 0, 0, 0, 0, 0, 0, 0, 0, 32)[0].hex())
    d.note("mode header", d.packet(0x5A, 0, 0x2A, 0, 0, 0, 0, 0, 8)[0].hex())
    d.note("load", d.packet(0x1B, 0, 0, 0, 3)[1])
    d.note("event after load", d.packet(0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8)[0].hex())
    d.note("INQUIRY keeps the attention", len(d.packet(0x12, 0, 0, 0, 36)[0]))
    for n in range(4):
        d.note(f"ready after load {n}", (d.packet(0x00)[1], d.sense()))
    d.note("capacity", d.packet(0x25)[0].hex())


@program
def attention_by_request_sense(d: Driver) -> None:
    d.calm()
    d.packet(0x1B, 0, 0, 0, 2)
    d.calm()
    d.packet(0x1B, 0, 0, 0, 3)
    d.note("sense", d.sense())
    d.note("then", (d.packet(0x00)[1], d.sense()))


@program
def packet_device_commands(d: Driver) -> None:
    """ATA commands that a packet device has, and those that it has not."""
    for code in range(256):
        if code in (0xA0, 0xE6):
            continue
        d.begin(f"packet device command {code:02x}")
        d.command(code, 0, 0, channel=1, device=0xA0)
        d.settle(1)
        d.note("data request", bool(d.wait(1) & DRQ))
        d.seen("end", 1)


@program
def identify_packet(d: Driver) -> None:
    d.command(0xA1, channel=1, device=0xA0)
    d.wait(1)
    d.seen("before", 1)
    data = d.words(channel=1)
    d.seen("after", 1)
    for n, (word,) in enumerate(struct.iter_unpack("<H", data)):
        d.note(f"word {n}", f"{word:04x}")


@program
def device_reset(d: Driver) -> None:
    d.calm()
    d.command(0xA0, lba=2048 << 8, count=0, channel=1, device=0xA0)
    d.wait(1)
    d.send_words(bytes((0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0)), 1)
    d.wait(1)
    d.outb(7, 0x08, 1)
    d.wait(1)
    d.seen("in a transfer", 1)
    d.note("ready", d.packet(0x00)[1])


# -- running them ----------------------------------------------------------------------------------


def sectors(lba: int, count: int) -> bytes:
    """What the test's disk holds."""
    return b"".join(struct.pack("<Q", n) * 64 for n in range(lba, lba + count))


def hash_of(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()[:12]


def run(side: tuple[str, ...], directory: Path, only: str = "") -> Notes:
    """All programs on one machine."""
    disk, disc = directory / "disk", directory / "disc"
    disk.write_bytes(sectors(0, DISK_SECTORS))
    disc.write_bytes(b"".join(struct.pack("<Q", n) * 256 for n in range(DISC_BLOCKS)))
    options = (
        "-drive", f"file={disk},format=raw,if=ide,index=0",
        "-drive", f"file={disc},format=raw,if=ide,index=2,media=cdrom",
    )  # fmt: skip
    with Wire(side, directory, "-machine", "pc", "-m", "64", "-nodefaults", *options) as wire:
        driver = Driver(wire)
        return run_all(driver, PROGRAMS, only)


def beside(directory: Path, only: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(what, ours, QEMU's) where they differ."""
    return differences(run, ("-S", "-snapshot", "-accel", "tcg"), directory, only)


if __name__ == "__main__":
    main(beside)
