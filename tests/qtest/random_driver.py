"""A driver for each device that keeps no rule: `python -m tests.qtest.random_driver --ops 1000000`.

It goes through `workbench.qtest.client`, so through buses, configuration space and the board, as a
guest would. Half of its operations hit registers blindly, the others know enough of the device to
get far: commands, rings, descriptors. Nothing may raise, no operation may take long, and after a
reset of the machine the device has to do what it is for.
"""

from __future__ import annotations

import argparse
import random
import resource
import struct
import sys
import time
from collections.abc import Callable

from workbench.qtest.client import Client, PciDevice

RAM_BYTES = 8 << 20
TABLES, BUFFERS = 0x10_0000, 0x40_0000
LONG_S = 5.0
EDGES = (0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x1FF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF)


class Driver:
    """One device. `windows` are (is a port, base, bytes) to hit blindly."""

    options = ""
    slot: tuple[int, int] | None = None

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(f"{type(self).__name__}:{seed}")
        self.bench = Client(f"-m 8 {self.options}")
        self.pci: PciDevice | None = None
        if self.slot is not None:
            self.pci = self.bench.pci(*self.slot)
        self.windows: list[tuple[bool, int, int]] = []
        self.longest_s = 0.0
        self.start()

    def start(self) -> None:
        """After a reset."""
        if self.pci is not None:
            self.pci.enable()
        self.windows = self.find_windows()

    def find_windows(self) -> list[tuple[bool, int, int]]:
        raise NotImplementedError

    def informed(self) -> None:
        """An operation that knows the device."""
        self.blind()

    def works(self) -> None:
        """Assert that the device does what it is for; the machine was just reset."""

    # -- operations

    def value(self, size: int) -> int:
        pick = self.rng.random()
        if pick < 0.4:
            value = self.rng.choice(EDGES)
        elif pick < 0.6:
            value = 1 << self.rng.randrange(32)
        elif pick < 0.8:
            value = self.address()
        else:
            value = self.rng.getrandbits(8 * size)
        return value & (1 << 8 * size) - 1

    def address(self) -> int:
        rng = self.rng
        return rng.choice((
            TABLES + 16 * rng.randrange(256), BUFFERS + rng.randrange(1 << 16), 0, 0x9FFFF,
            RAM_BYTES - rng.randrange(1, 64), RAM_BYTES, 0xF000_0000, 0xFEC0_0000, 0xFEE0_0000,
            0xFFFF_FFF0, rng.getrandbits(32),
        ))  # fmt: skip

    def blind(self) -> None:
        rng, bench = self.rng, self.bench.testbed
        is_port, base, length = rng.choice(self.windows)
        size = rng.choice((1, 1, 2, 4, 4, 4) if is_port else (1, 2, 4, 4, 4, 8))
        at = base + rng.randrange(length)
        if rng.random() < 0.7:
            at -= at % size
        if rng.random() < 0.5:
            value = (bench.port_read if is_port else bench.load)(at, size)
            assert 0 <= value < 1 << 8 * size, (at, size, value)
        else:
            (bench.port_write if is_port else bench.store)(at, size, self.value(size))

    def config(self) -> None:
        """Configuration space: BARs that move, COMMAND bits that go."""
        assert self.pci is not None
        size = self.rng.choice((1, 2, 4))
        offset = self.rng.choice((4, 4, 0x10, 0x14, 0x18, 0x20, 0x30, self.rng.randrange(256)))
        offset -= offset % size
        if self.rng.random() < 0.5:
            self.pci.config_read(offset, size)
        else:
            self.pci.config_write(offset, size, self.value(size))
        if self.rng.random() < 0.7:
            self.bench.board_post()
            self.start()

    def scribble(self) -> None:
        """Something new in the tables."""
        rng = self.rng
        entries = [
            struct.pack(
                "<QIHH", self.address(), rng.choice((1, 16, 512, 1514, 4096, self.value(4))),
                rng.choice((0, 1, 2, 3, 4, 0x80, rng.getrandbits(16))), rng.randrange(20),
            )
            for _ in range(rng.randrange(1, 17))
        ]  # fmt: skip
        at = TABLES + rng.choice((0, 0x1000, 0x2000, 16 * rng.randrange(256)))
        self.bench.memwrite(at, b"".join(entries))

    def operation(self) -> None:
        pick = self.rng.random()
        if pick < 0.5:
            self.blind()
        elif pick < 0.9:
            self.informed()
        elif pick < 0.95:
            self.scribble()
        elif pick < 0.99:
            self.bench.clock_step(self.rng.choice((1, 1000, 1_000_000, 20_000_000)))
        elif self.pci is not None and pick < 0.998:
            self.config()
        elif pick > 0.9995:
            self.bench.reset()
            self.start()

    def run(self, operations: int, tell: Callable[[int], None] = lambda n: None) -> None:
        for n in range(operations):
            before = time.process_time()
            self.operation()
            took = time.process_time() - before
            self.longest_s = max(self.longest_s, took)
            assert took < LONG_S, f"operation {n} took {took:.1f} s"
            if n % 10_000 == 0:
                tell(n)
        self.bench.reset()
        self.start()
        self.works()
        self.bench.close()


class Ide(Driver):
    options = (
        "-drive if=ide,index=0,file=null-co://,size=1048576 -device ide-cd,bus=ide.1,unit=0"
        " -drive if=ide,index=1,file=null-co://,size=1048576"
    )
    slot = (1, 1)
    COMMANDS = (
        0x06, 0x08, 0x20, 0x24, 0x25, 0x29, 0x30, 0x34, 0x35, 0x39, 0x90, 0x91, 0xA0, 0xA1, 0xB0,
        0xC4, 0xC5, 0xC6, 0xC8, 0xCA, 0xCE, 0xE7, 0xEC, 0xEF,
    )  # fmt: skip

    def find_windows(self):
        assert self.pci is not None
        self.master = self.pci.bar(4)
        return [(True, base, n) for base, n in
                ((0x1F0, 8), (0x3F6, 1), (0x170, 8), (0x376, 1), (self.master, 16))]  # fmt: skip

    def informed(self):
        rng, bench = self.rng, self.bench
        base, master = rng.choice(((0x1F0, self.master), (0x170, self.master + 8)))
        match rng.randrange(4):
            case 0:
                bench.outb(base + 6, rng.choice((0xE0, 0xF0, 0xA0, 0xB0)))
                for port in range(1, 6):
                    for _ in range(2):
                        bench.outb(base + port, rng.choice((0, 0, 1, 8, rng.randrange(256))))
                bench.outb(base + 7, rng.choice(self.COMMANDS))
            case 1:
                bench.outl(master + 4, TABLES + 8 * rng.randrange(64))
                bench.outb(master, rng.choice((0, 1, 8, 9)))
            case 2:
                for _ in range(rng.choice((1, 6, 64))):
                    bench.inw(base)
            case _:
                for _ in range(6):
                    bench.outw(base, rng.choice((0x28, 0x43, 0x12, rng.getrandbits(16))))

    def works(self):
        bench = self.bench
        bench.outb(0x1F6, 0xE0)
        bench.outb(0x1F7, 0xEC)
        assert bench.inb(0x1F7) & 0x89 == 0x08
        assert [bench.inw(0x1F0) for _ in range(61)][60] == 2048


class Virtio(Driver):
    slot = (5, 0)
    queues = 1

    def find_windows(self):
        assert self.pci is not None
        self.io, modern = self.pci.bar(0), self.pci.bar(4)
        return [(True, self.io, 64), (False, modern, 0x4000), (False, self.pci.bar(1), 64)]

    def informed(self):
        rng, bench = self.rng, self.bench
        if rng.random() < 0.1:
            for status in (0, 1, 3):
                bench.outb(self.io + 18, status)
            bench.outl(self.io + 4, rng.choice((0, 0xFFFF_FFFF, rng.getrandbits(32))))
            for queue in range(self.queues):
                bench.outw(self.io + 14, queue)
                bench.outl(self.io + 8, (TABLES >> 12) + 4 * queue)
            bench.outb(self.io + 18, 7)
            return
        queue = rng.randrange(self.queues)
        desc = TABLES + 0x4000 * queue
        bench.outw(self.io + 14, queue)
        size = bench.inw(self.io + 12) or 1
        entries = []
        count = rng.choice((1, 2, 3, 3, 8))
        writes = rng.randrange(count + 1)
        for n in range(count):
            flags = (1 if n + 1 < count else 0) | (2 if n >= writes else 0)
            if rng.random() < 0.05:
                flags ^= rng.choice((1, 2, 4))
            at = BUFFERS + 4096 * n if rng.random() < 0.95 else self.address()
            length = rng.choice((1, 16, 512, 12, 1514, 65536 if rng.random() < 0.1 else 24))
            entries.append(struct.pack("<QIHH", at, length, flags, n + 1))
        bench.memwrite(desc, b"".join(entries))
        head = struct.pack("<IIQ", rng.choice((0, 1, 4, 8, 11, 13, 99)), 0, rng.randrange(3000))
        bench.memwrite(BUFFERS, head)
        avail = desc + 16 * size
        index = bench.readw(avail + 2)
        bench.writew(avail + 4 + 2 * (index % size), 0 if rng.random() < 0.97 else self.value(2))
        bench.writew(avail + 2, index + 1 if rng.random() < 0.98 else self.value(2))
        bench.outw(self.io + 16, queue)

    def works(self):
        """The device takes a buffer and gives it back."""
        bench = self.bench
        queue = self.queues - 1
        bench.memwrite(TABLES, bytes(0x4000 * self.queues))
        for status in (1, 3):
            bench.outb(self.io + 18, status)
        bench.outl(self.io + 4, 0)
        bench.outw(self.io + 14, queue)
        size = bench.inw(self.io + 12)
        bench.outl(self.io + 8, TABLES >> 12)
        bench.outb(self.io + 18, 7)
        chain = ((BUFFERS, 16, 1), (BUFFERS + 4096, 512, 2 | self.queues == 1), (BUFFERS, 1, 2))
        bench.memwrite(BUFFERS, bytes(16))
        for n, (at, length, flags) in enumerate(self.good_chain(chain)):
            bench.memwrite(TABLES + 16 * n, struct.pack("<QIHH", at, length, flags, n + 1))
        avail = TABLES + 16 * size
        bench.memwrite(avail, struct.pack("<HHH", 0, 1, 0))
        bench.outw(self.io + 16, queue)
        used = avail + 4 + 2 * size + 4095 & -4096
        assert bench.readw(used + 2) == 1
        assert bench.inb(self.io + 18) == 7

    def good_chain(self, chain):
        return ((BUFFERS, 16, 1), (BUFFERS + 4096, 512, 3), (BUFFERS + 8192, 1, 2))


class VirtioBlk(Virtio):
    options = (
        "-drive if=none,id=d,file=null-co://,size=1048576 -device virtio-blk-pci,drive=d,addr=5"
    )


class VirtioRng(Virtio):
    options = "-device virtio-rng-pci,addr=5"

    def good_chain(self, chain):
        return ((BUFFERS, 64, 2),)


class VirtioConsole(Virtio):
    options = "-device virtio-serial-pci,addr=5"
    queues = 2

    def good_chain(self, chain):
        return ((BUFFERS, 64, 0),)


class VirtioNet(Virtio):
    options = "-netdev hubport,id=n -device virtio-net-pci,id=net,netdev=n,addr=5"
    queues = 3

    def informed(self):
        if self.rng.random() < 0.2:
            frame = self.rng.randbytes(self.rng.choice((1, 14, 60, 1514, 9000)))
            self.bench.machine.inputs.post("net", "frame", frame)
            self.bench.testbed.settle()
        else:
            super().informed()

    def works(self):
        self.queues = 2  # transmit
        super().works()

    def good_chain(self, chain):
        return ((BUFFERS, 10 + 60, 0),)


class E1000(Driver):
    options = "-netdev hubport,id=n -device e1000,id=nic,netdev=n,addr=5"
    slot = (5, 0)
    OFTEN = (
        0x0000, 0x0008, 0x0010, 0x0014, 0x0018, 0x0020, 0x0028, 0x00C0, 0x00C4, 0x00C8, 0x00D0,
        0x00D8, 0x0100, 0x0400, 0x2800, 0x2804, 0x2808, 0x2810, 0x2818, 0x2820, 0x2828, 0x282C,
        0x3800, 0x3804, 0x3808, 0x3810, 0x3818, 0x3820, 0x3828, 0x382C, 0x5000, 0x5200, 0x5400,
        0x5404, 0x5600, 0x5800,
    )  # fmt: skip

    def find_windows(self):
        assert self.pci is not None
        self.regs = self.pci.bar(0)
        return [(False, self.regs, 0x6000), (True, self.pci.bar(2), 8)]

    def informed(self):
        rng, bench = self.rng, self.bench
        match rng.randrange(5):
            case 0:
                value = rng.choice((0, 2, 6, 8, 16, 128, TABLES, self.value(4)))
                bench.writel(self.regs + rng.choice(self.OFTEN), value)
            case 1:
                for ring in (0x2800, 0x3800):
                    for offset, value in ((0, TABLES), (4, 0), (8, 256), (0x10, 0)):
                        bench.writel(self.regs + ring + offset, value)
                bench.writel(self.regs + 0x100, rng.choice((2, 0x802E, 0x0200_801E)))
                bench.writel(self.regs + 0x400, 2)
                bench.writel(self.regs + 0x2818, rng.randrange(17))
            case 2:
                entries = [
                    struct.pack("<QHBBBBH", BUFFERS + 2048 * n, rng.choice((14, 60, 1514, 4096)), 0,
                                rng.choice((0x0B, 0x09, 0x2B, 0x25, rng.randrange(256))), 0, 0, 0)
                    for n in range(16)
                ]  # fmt: skip
                bench.memwrite(TABLES, b"".join(entries))
                bench.writel(self.regs + 0x3818, rng.randrange(17))
            case 3:
                frame = rng.randbytes(rng.choice((1, 14, 60, 1514, 9000)))
                bench.machine.inputs.post("nic", "frame", frame)
                bench.testbed.settle()
            case _:
                bench.readl(self.regs + rng.choice(self.OFTEN))

    def works(self):
        bench = self.bench
        bench.memwrite(TABLES, struct.pack("<QHBBBBH", BUFFERS, 60, 0, 0x0B, 0, 0, 0) + bytes(112))
        for offset, value in ((0x3800, TABLES), (0x3804, 0), (0x3808, 128), (0x3810, 0)):
            bench.writel(self.regs + offset, value)
        bench.writel(self.regs, bench.readl(self.regs) | 0x40)
        bench.clock_step(5_000_000_000)
        bench.writel(self.regs + 0x400, 2)
        bench.writel(self.regs + 0x3818, 1)
        assert bench.readb(TABLES + 12) & 1


class Chips(Driver):
    """Everything else on the board: timers, interrupt controllers, serial port, keyboard, PM."""

    options = ""

    def find_windows(self):
        ports = ((0x20, 2), (0xA0, 2), (0x4D0, 2), (0x40, 4), (0x70, 2), (0x60, 1), (0x64, 1),
                 (0x61, 1), (0x80, 1), (0x92, 1), (0x3F8, 8), (0x600, 64), (0xCF8, 8), (0xB2, 2),
                 (0xAE00, 20), (0x510, 12), (0x402, 1))  # fmt: skip
        memory = ((0xFEC0_0000, 0x40), (0xFED0_0000, 0x400), (0xFEE0_0000, 0x400))
        return [(True, *place) for place in ports] + [(False, *place) for place in memory]

    def works(self):
        """Channel 0 of the timer reaches IRQ 0."""
        bench = self.bench
        for port, value in ((0x43, 0x30), (0x40, 0xE8), (0x40, 0x03)):
            bench.outb(port, value)
        assert not bench.irq(0)
        bench.clock_step(1_000_000)
        assert bench.irq(0)


DRIVERS = {
    "ide": Ide,
    "virtio-blk": VirtioBlk,
    "virtio-net": VirtioNet,
    "virtio-rng": VirtioRng,
    "virtio-console": VirtioConsole,
    "e1000": E1000,
    "chips": Chips,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ops", type=int, default=1_000_000, help="operations for each device")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", choices=DRIVERS, action="append")
    args = parser.parse_args()
    print("| device | operations | seed | CPU seconds | longest operation | peak of the run |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in args.device or DRIVERS:
        begin = time.process_time()
        driver = DRIVERS[name](args.seed)
        driver.run(args.ops, lambda n, name=name: print(f"\r{name}: {n}", end="", file=sys.stderr))
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        print("\r", end="", file=sys.stderr)
        print(
            f"| {name} | {args.ops} | {args.seed} | {time.process_time() - begin:.0f} "
            f"| {driver.longest_s * 1000:.0f} ms | {peak_mb} MB |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
