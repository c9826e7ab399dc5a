"""Register programs for the 82540EM, which run on ours and on QEMU's over qtest.

A program does things to registers and notes what it sees; `beside` runs all on both and gives what
differs. `python -m tests.qtest.e1000_programs [NAME]` prints it, `e1000_differences.py` explains
it. Frames go out and come back through the PHY's loopback, so that no network is needed.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.hw.e1000_rig import ethernet
from tests.qtest.beside import NoteBook, Notes, differences, main, run_all
from tests.qtest.wire import OURS, Wire
from workbench.core.regs import RESERVED
from workbench.hw.e1000.mac import MAP

SLOT, BAR0 = 4, 0xE000_0000
MAC = bytes.fromhex("525400123456")
OTHER = bytes.fromhex("525400abcdef")
TX_RING, RX_RING, TX_DATA, RX_DATA = 0x10_0000, 0x11_0000, 0x12_0000, 0x20_0000
RING, SLOT_BYTES = 32, 0x4000
LINK_NS, SOON_NS, WAIT_S = 700_000_000, 3_000_000, 0.3
HALT = (b"\xfa\xf4\xeb\xfd" + bytes(12)).rjust(1 << 16, b"\xf4")  # CLI; HLT; JMP: a BIOS
EOP, IFCS, RS = 1 << 24, 1 << 25, 1 << 27
IC, TSE, DEXT, VLE = 1 << 26, 1 << 26, 1 << 29, 1 << 30
DATA = DEXT | 1 << 20
EN, UPE, MPE, LPE, BAM, VFE, BSEX, SECRC = (1 << n for n in (1, 3, 4, 5, 15, 18, 25, 26))
VME = 1 << 30
DIAGNOSTIC = ("RDFH", "RDFT", "RDFHS", "RDFTS", "TDFH", "TDFT", "TDFHS", "TDFTS")


class Driver(NoteBook):
    """The guest's side over the wire."""

    def __init__(self, wire: Wire, steps: bool) -> None:
        """`steps`: time moves by clock_step, else by itself."""
        super().__init__()
        self.wire = wire
        self.steps = steps
        self._tail = 0

    def begin(self, name: str) -> None:
        """Reset the machine, decode the controller, and call what follows `name`."""
        self.wire.qmp("system_reset")
        self.wire.event("RESET")
        super().begin(name)
        for offset, value in ((0x10, BAR0), (4, 7)):
            self.wire.send(f"outl 0xcf8 {1 << 31 | SLOT << 11 | offset:#x}")
            self.wire.send(f"outl 0xcfc {value:#x}")

    def note(self, what: str, value: Any) -> None:
        """Keep what was seen, numbers in hexadecimal."""
        super().note(what, hex(value) if isinstance(value, int) else value)

    def get(self, name: str) -> int:
        return self.wire.number(f"readl {BAR0 + MAP[name].offset:#x}")

    def set(self, name: str, value: int) -> None:
        self.wire.send(f"writel {BAR0 + MAP[name].offset:#x} {value & 0xFFFF_FFFF:#x}")

    def see(self, *names: str) -> None:
        for name in names:
            self.note(name, self.get(name))

    def read(self, gpa: int, count: int) -> bytes:
        return bytes.fromhex(self.wire.send(f"read {gpa:#x} {count:#x}").split()[1][2:])

    def write(self, gpa: int, data: bytes) -> None:
        self.wire.send(f"write {gpa:#x} {len(data):#x} 0x{data.hex()}")

    def wait(self, ns: int) -> None:
        if self.steps:
            self.wire.send(f"clock_step {ns}")
        else:
            time.sleep(WAIT_S)  # its clock goes from timer to timer

    def rctl(self, value: int) -> None:
        """RCTL; QEMU's receives nothing for the next second."""
        self.set("RCTL", value)
        self.wait(SOON_NS)

    # -- PHY, link and rings

    def phy(self, register: int, value: int | None = None) -> int:
        operation = 2 if value is None else 1
        self.set("MDIC", operation << 26 | 1 << 21 | register << 16 | (value or 0))
        return self.get("MDIC")

    def loop(self, rctl: int = EN | BAM, ctrl: int = 0) -> None:
        """Loopback in the PHY, both rings set up."""
        self.set("CTRL", 0x41 | ctrl)
        self.set("TCTL", 0)
        self.set("RCTL", 0)
        self.phy(0, 0x4140)
        self.wait(SOON_NS)
        self.set("RAL0", int.from_bytes(MAC[:4], "little"))
        self.set("RAH0", int.from_bytes(MAC[4:], "little") | 1 << 31)
        self.write(RX_RING, b"".join(struct.pack("<QQ", RX_DATA + n * SLOT_BYTES, 0)
                                     for n in range(RING)))  # fmt: skip
        for kind, ring in (("T", TX_RING), ("R", RX_RING)):
            self.set(f"{kind}DBAL", ring)
            self.set(f"{kind}DBAH", 0)
            self.set(f"{kind}DLEN", RING * 16)
            self.set(f"{kind}DH", 0)
            self.set(f"{kind}DT", 0 if kind == "T" else RING - 1)
        self._tail = 0
        self.rctl(rctl)
        self.set("TCTL", 0x0004_00FA)
        self.get("ICR")

    def put(self, low: int, high: int, data: bytes | int = b"") -> None:
        """One descriptor; data, or the qword of a context."""
        if isinstance(data, int):
            address = data
        else:
            address = TX_DATA + self._tail * SLOT_BYTES // 2
            if data:
                self.write(address, data)
            low |= len(data)
        self.write(TX_RING + 16 * self._tail, struct.pack("<QII", address, low, high))
        self._tail = (self._tail + 1) % RING

    def go(self) -> None:
        self.set("TDT", self._tail)
        if self.steps:
            self.wire.send("clock_step 1000000")

    def send(self, frame: bytes) -> None:
        self.put(EOP | IFCS | RS, 0, frame)
        self.go()

    def received(self, name: str, count: int) -> None:
        """What is in the first descriptors of the receive ring."""
        self.note(f"{name} RDH", self.get("RDH"))
        for n in range(count):
            raw = self.read(RX_RING + 16 * n, 16)
            address, length, checksum, status, errors, special = struct.unpack("<QHHBBH", raw)
            data = self.read(address, length) if length and status & 1 else b""
            if status & 2 and not self.get("RCTL") & SECRC:
                self.note(f"{name} {n} CRC", data[-4:].hex())
                data = data[:-4]
            shown = data.hex() if len(data) < 200 else f"{len(data)} {data[:60].hex()}"
            self.note(f"{name} {n} data", shown)
            self.note(f"{name} {n} length", length)
            self.note(f"{name} {n} checksum", checksum)
            self.note(f"{name} {n} status", status)
            self.note(f"{name} {n} errors", errors)
            self.note(f"{name} {n} special", special)

    def accepted(self, frame: bytes) -> bool:
        before = self.get("RDH")
        self.send(frame)
        after = self.get("RDH")
        self.set("RDT", (after - 1) % RING)
        return after != before


def tcp4(payload: bytes, total: int | None = None) -> bytes:
    """IPv4 and TCP with the pseudo header's sum, IP checksum 0."""
    length = 40 + len(payload) if total is None else total
    ip = struct.pack(
        ">BBHHHBBH4s4s", 0x45, 0, length, 7, 0, 64, 6, 0, b"\x0a\0\2\x0f", b"\x0a\0\2\2"
    )
    pseudo = sum(struct.unpack(">10H", ip)[6:]) + 6 + (0 if total == 0 else 20 + len(payload))
    while pseudo >> 16:
        pseudo = (pseudo & 0xFFFF) + (pseudo >> 16)
    tcp = struct.pack(">HHIIBBHHH", 1000, 2000, 0xFFFF_FF00, 5, 0x50, 0x19, 512, pseudo, 0)
    return ethernet(ip + tcp + payload, kind=0x0800)


# -- programs --------------------------------------------------------------------------------------

PROGRAMS: list[tuple[str, Callable[[Driver], None]]] = []


def program(function: Callable[[Driver], None]) -> Callable[[Driver], None]:
    PROGRAMS.append((function.__name__.replace("_", " "), function))
    return function


@program
def reset_values(d: Driver) -> None:
    d.see(*(reg.name for reg in MAP.regs if reg.access is not RESERVED))


@program
def writable_bits(d: Driver) -> None:
    for name in ("CTRL_EXT", "FCAL", "FCAH", "FCT", "VET", "FCTTV", "LEDCTL", "ITR", "FCRTL",
                 "FCRTH", "RDBAL", "RDBAH", "RDLEN", "RDTR", "RADV", "RSRPD", "RXDCTL", "RXCSUM",
                 "TIPG", "AIFS", "TDBAL", "TDBAH", "TDLEN", "TIDV", "TXDCTL", "TADV", "TSPMT",
                 "TXDMAC", "MTA0", "MTA127", "RAL15", "RAH15", "VFTA0", "VFTA127",
                 "WUFC", "WUS", "IPAV", "IP4AT0", "IP4AT3", "IP6AT3", "WUPL", "WUPM0",
                 "FFLT0", "FFMT0", "FFMT127", "FFVT127", "STATUS", *DIAGNOSTIC):  # fmt: skip
        for value in (0xFFFF_FFFF, 0x5A5A_5A5A & ~(1 << 13), 0):
            d.set(name, value)
            d.note(f"{name} after {value:#x}", d.get(name))


@program
def interrupt_registers(d: Driver) -> None:
    d.see("ICR")
    d.set("ICS", 0x1_D6D7 | 1 << 5)
    d.note("ICR after ICS", d.get("ICR"))
    d.note("ICR read again", d.get("ICR"))
    d.set("IMS", 0x85)
    d.set("IMS", 0x10)
    d.see("IMS")
    d.set("IMC", 0x81)
    d.note("IMS after IMC", d.get("IMS"))
    d.set("ICS", 0x84)
    d.set("ICR", 0x80)
    d.note("ICR after a write of one", d.get("ICR"))


@program
def eeprom(d: Driver) -> None:
    total = 0
    for n in range(64):
        d.set("EERD", n << 8 | 1)
        value = d.get("EERD")
        total += value >> 16
        d.note(f"EERD {n:#x}", value)
    d.note("sum", total & 0xFFFF)
    d.set("EECD", 1 << 6)
    d.note("EECD granted", d.get("EECD"))
    for word in (0, 0x3F):
        d.set("EECD", 0x42)
        for bit in f"110{word:06b}":
            d.set("EECD", 0x42 | int(bit) << 2)
            d.set("EECD", 0x43 | int(bit) << 2)
        value = 0
        for _ in range(16):
            d.set("EECD", 0x42)
            d.set("EECD", 0x43)
            value = value << 1 | d.get("EECD") >> 3 & 1
        d.set("EECD", 0x40)
        d.note(f"EECD word {word:#x}", value)
    d.set("EECD", 0)
    d.note("EECD released", d.get("EECD"))


@program
def phy_registers(d: Driver) -> None:
    for n in range(32):
        d.note(f"{n}", d.phy(n))
    d.set("MDIC", 2 << 26 | 2 << 21 | 2 << 16)
    d.note("another PHY", d.get("MDIC"))
    for n in (4, 7, 9, 16, 18, 20, 26):
        d.phy(n, 0x0A5A)
        d.note(f"{n} after a write", d.phy(n))
    d.get("ICR")
    d.set("MDIC", 1 << 29 | 2 << 26 | 1 << 21 | 2 << 16)
    d.note("ICR after MDIC.I", d.get("ICR"))


@program
def link(d: Driver) -> None:
    d.set("CTRL", 0x41)
    d.note("STATUS", d.get("STATUS"))
    d.phy(0, 0x1340)
    d.note("PSTATUS while negotiating", d.phy(1))
    d.get("ICR")
    d.wait(LINK_NS)
    d.note("PSTATUS", d.phy(1))
    d.note("ICR", d.get("ICR"))
    d.note("STATUS after", d.get("STATUS"))


@program
def software_reset(d: Driver) -> None:
    d.loop()
    d.send(ethernet())
    d.set("IMS", 0xFF)
    d.set("CTRL", 1 << 26 | 0x41)
    d.see("CTRL", "STATUS", "RCTL", "TCTL", "TDH", "TDT", "RDH", "RDT", "IMS", "ICR", "RAL0",
          "RAH0", "RAL1", "PBA", "LEDCTL", "GPTC", "VET")  # fmt: skip


@program
def legacy_descriptors(d: Driver) -> None:
    d.loop()
    d.send(ethernet(bytes(range(64))))
    d.put(IFCS, 0, ethernet(b"first "))
    d.put(IFCS, 0, b"second ")
    d.put(EOP | IFCS | RS, 0, b"third" + bytes(60))
    d.go()
    d.send(ethernet(b"short"))
    d.put(EOP | IFCS, 0, ethernet(bytes(100)))
    d.go()
    d.put(EOP | IFCS | RS | IC | 40 << 16, 14 << 8, ethernet(bytes(range(80))))
    d.go()
    d.received("frame", 5)
    for n in range(7):
        d.note(f"status {n}", d.read(TX_RING + 16 * n + 12, 1).hex())
    d.see("TDH", "ICR", "GPTC", "GOTCL", "GOTCH", "TPT", "TOTL", "PTC64", "PTC127", "GPRC", "GORCL",
          "TPR", "TORL", "PRC64", "PRC127", "BPRC", "MPRC")  # fmt: skip
    d.note("GPTC again", d.get("GPTC"))
    d.note("GOTCL again", d.get("GOTCL"))


@program
def checksums(d: Driver) -> None:
    d.loop()
    d.set("RXCSUM", 0x300)
    context = 14 | 24 << 8 | 33 << 16 | 34 << 32 | 50 << 40
    d.put(DEXT | 3 << 24, 0, context)
    d.put(EOP | IFCS | RS | DATA, 0x300, tcp4(b"checksums of both kinds"))
    d.go()
    d.put(EOP | IFCS | RS | DATA, 0x100, tcp4(b"of IP only"))
    d.go()
    d.put(EOP | IFCS | RS | DATA, 0x200, tcp4(b"of TCP only"))
    d.go()
    d.put(EOP | IFCS | RS | DATA, 0, tcp4(b"none"))
    d.go()
    d.received("frame", 4)


@program
def segmentation(d: Driver) -> None:
    d.loop()
    d.set("RXCSUM", 0x300)
    payload = bytes(n & 0xFF for n in range(2500))
    frame = tcp4(payload, total=0)
    context = 14 | 24 << 8 | 33 << 16 | 34 << 32 | 50 << 40
    d.put(DEXT | 7 << 24 | RS | len(payload), 1000 << 16 | 54 << 8, context)
    d.put(DATA | TSE | IFCS, 0x300, frame[:54])
    d.put(DATA | TSE | IFCS, 0x300, frame[54:1500])
    d.put(DATA | TSE | IFCS | EOP | RS, 0x300, frame[1500:])
    d.go()
    d.received("segment", 3)
    for n in range(4):
        d.note(f"status {n}", d.read(TX_RING + 16 * n + 12, 1).hex())
    d.see("TSCTC", "TSCTFC", "GPTC", "PTC1023", "PTC1522")


@program
def vlan_tags(d: Driver) -> None:
    d.loop(EN | BAM, VME)
    d.put(EOP | IFCS | RS | VLE, 0x2123 << 16, ethernet(bytes(60)))
    d.go()
    d.set("CTRL", 0x41)
    d.send(ethernet(b"\x21\x23\x88\xb5" + bytes(60), kind=0x8100))
    d.put(EOP | IFCS | RS | VLE, 0x2123 << 16, ethernet(bytes(60)))
    d.go()
    d.received("frame", 3)
    d.set("CTRL", 0x41 | VME)
    d.rctl(EN | BAM | VFE)
    for n, (tag, table) in enumerate(((0x123, 0), (0x123, 1 << 3), (0x124, 1 << 3), (0, 1))):
        d.set(f"VFTA{0x123 >> 5}", table if tag else 0)
        d.set("VFTA0", 0 if tag else table)
        frame = ethernet(tag.to_bytes(2, "big") + bytes(60), kind=0x8100)
        d.note(f"filter {n}", d.accepted(frame))
    d.note("untagged", d.accepted(ethernet()))


@program
def address_filters(d: Driver) -> None:
    d.loop(EN)
    stranger, group = bytes.fromhex("525400999999"), bytes.fromhex("01005e0000fb")
    for name, rctl in (("exact", 0), ("UPE", UPE), ("MPE", MPE), ("BAM", BAM), ("all", UPE | MPE)):
        d.rctl(EN | rctl)
        for to in (MAC, stranger, group, b"\xff" * 6):
            d.note(f"{name} {to.hex()}", d.accepted(ethernet(to=to)))
    for offset in range(4):
        d.rctl(EN | offset << 12)
        value = (group[5] << 8 | group[4]) >> (4, 3, 2, 0)[offset] & 0xFFF
        d.note(f"MO {offset} empty", d.accepted(ethernet(to=group)))
        d.set(f"MTA{value >> 5}", 1 << (value & 31))
        d.note(f"MO {offset}", d.accepted(ethernet(to=group)))
        d.set(f"MTA{value >> 5}", 0)
    d.rctl(EN)
    d.set("RAL15", int.from_bytes(stranger[:4], "little"))
    d.set("RAH15", int.from_bytes(stranger[4:], "little"))
    d.note("RAH15 without AV", d.accepted(ethernet(to=stranger)))
    d.set("RAH15", int.from_bytes(stranger[4:], "little") | 1 << 31)
    d.note("RAH15 with AV", d.accepted(ethernet(to=stranger)))
    d.rctl(0)
    d.note("disabled", d.accepted(ethernet()))
    d.see("GPRC", "BPRC", "MPRC", "TPR")


@program
def lengths_and_buffers(d: Driver) -> None:
    for name, rctl, size in (("2048", 0, 1400), ("1024", 1 << 16, 1400), ("512", 2 << 16, 1400),
                             ("256", 3 << 16, 1000), ("4096", 3 << 16 | BSEX | LPE, 9000),
                             ("8192", 2 << 16 | BSEX | LPE, 9000),
                             ("SECRC", SECRC, 300)):  # fmt: skip
        d.loop(EN | rctl)
        d.send(ethernet(bytes(n & 0xFF for n in range(size))))
        d.received(name, 4)
    d.loop(EN)
    for size in (1500, 1504, 1505, 1510):
        d.note(f"{size} bytes", d.accepted(ethernet(bytes(size))))
    d.see("ROC")


@program
def receive_interrupts(d: Driver) -> None:
    d.loop(EN | 2 << 8)
    for n in range(2):
        d.send(ethernet())
        d.note(f"ICR {n}", d.get("ICR"))
    d.set("RDT", 5)
    d.send(ethernet())
    d.note("ICR with few left", d.get("ICR"))
    for n in range(3):
        d.send(ethernet())
        d.note(f"ICR as the ring empties {n}", d.get("ICR"))
    d.see("RDH", "RNBC", "MPC")
    d.set("RSRPD", 100)
    d.set("RDT", 20)
    d.get("ICR")
    d.send(ethernet())
    d.note("ICR of a small packet", d.get("ICR"))


# -- running them ----------------------------------------------------------------------------------


def run(side: tuple[str, ...], directory: Path, only: str = "") -> Notes:
    """All programs on one machine."""
    bios = directory / "bios"
    bios.write_bytes(HALT)
    theirs = ("-bios", str(bios), "-netdev", "hubport,id=n,hubid=0")
    options = () if side == OURS else theirs
    device = f"e1000,addr={SLOT:x},mac={MAC.hex(':')}" + (",netdev=n" if options else "")
    board = ("-machine", "pc", "-m", "64", "-nodefaults")
    with Wire(side, directory, *board, *options, "-device", device) as wire:
        driver = Driver(wire, side == OURS)
        return run_all(driver, PROGRAMS, only)


def beside(directory: Path, only: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(what, ours, QEMU's) where they differ."""
    return differences(run, ("-accel", "tcg", "-icount", "shift=0,sleep=off"), directory, only)


if __name__ == "__main__":
    main(beside)
