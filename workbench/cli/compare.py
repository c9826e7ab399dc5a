"""`workbench compare`: the same work done through two devices, register accesses side by side."""

from __future__ import annotations

import argparse
import base64
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.cli import engine, text
from workbench.errors import EXIT_BAD_INPUT, EXIT_OK, UsageError

if TYPE_CHECKING:
    from workbench.block.image import Image
    from workbench.net.port import Backend, Large

EXAMPLES = """\
examples:
  workbench compare ide virtio-blk --kernel vmlinuz --initrd drivers.cpio.gz
  workbench compare e1000 virtio-net --kernel vmlinuz --initrd drivers.cpio.gz --json

What the drivers do before the work, probing and setting up, is counted apart. The work is 32 MiB
read and 4 MiB written, or 500 pings of 1,400 bytes and their answers.

The initrd runs the script that the kernel's command line gives it in base64 as wb_run=, with the
modules of the devices loaded: `python -m guests generic`, in a clone of this project, makes one.
"""
DISKS, NICS = ("ide", "virtio-blk"), ("e1000", "virtio-net")
DISK_BYTES = 64 << 20
LOCAL_TIMER = 0xEC
BEGINS, ENDS = b"work begins", b"work ends"
MIB = 1 << 20
DISK_WORK = """\
d=/dev/sda; [ -b $d ] || d=/dev/vda
echo work begins
dd if=$d of=/dev/null bs=1M count=16 iflag=direct
dd if=$d bs=1M skip=16 count=16 | sha256sum
dd if=/dev/zero of=$d bs=1M count=4 conv=fsync
echo work ends
"""
NET_WORK = """\
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up; sleep 3
ping -q -c 1 10.0.2.2
echo work begins
ping -q -c 500 -s 1400 -i 0.002 10.0.2.2
echo work ends
"""
DISK_MIB = 36
MOST_INSNS = 40_000_000_000


@dataclass
class Counts:
    """What was done with a device for a while."""

    registers: Counter[str] = field(default_factory=Counter)
    exits: int = 0
    interrupts: int = 0
    dma_bytes: int = 0
    packets: int = 0
    data_bytes: int = 0

    @property
    def accesses(self) -> int:
        """All register accesses, each of them one exit; a string instruction counts once."""
        return sum(self.registers.values())

    def plain(self) -> dict[str, int]:
        """By the name in JSON."""
        return {
            "accesses": self.accesses,
            "exits": self.exits,
            "interrupts": self.interrupts,
            "dma_bytes": self.dma_bytes,
        }


@dataclass
class Tally:
    """One run: what the driver did before the work, and for it."""

    device: str
    setup: Counts = field(default_factory=Counts)
    work: Counts = field(default_factory=Counts)
    now: Counts = field(default_factory=Counts)
    ended: str = ""

    def units(self) -> dict[str, float]:
        """How much work it was, by unit."""
        if self.device in DISKS:
            return {"mib": DISK_MIB}
        return {"packet": self.work.packets, "mib": self.work.data_bytes / MIB}


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "compare",
        help="the same work through two devices, side by side",
        description=__doc__,
        epilog=EXAMPLES,
    )
    add = parser.add_argument
    add("devices", nargs=2, choices=(*DISKS, *NICS), metavar="DEVICE",
        help="two of ide and virtio-blk, or of e1000 and virtio-net")  # fmt: skip
    add("--kernel", "-kernel", metavar="FILE", required=True, help="Linux bzImage")
    add("--initrd", "-initrd", metavar="FILE", required=True, help="initramfs with the modules")
    add("-m", "--memory", metavar="SIZE", default="256", help="guest memory (default: 256)")
    add("--top", metavar="N", type=int, default=12, help="registers shown (default: 12)")
    add("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run both and print the table."""
    if len({d in DISKS for d in args.devices}) > 1:
        raise UsageError("expected two disks or two network interfaces to compare")
    engine.prepare()
    tallies = []
    with text.progress("the same work through both", len(args.devices)) as step:
        for device in args.devices:
            tallies.append(_measure(args, device))
            step()
    if args.json:
        text.print_json({t.device: _plain(t) for t in tallies})
    else:
        _print(tallies, args.top)
    unfinished = [t.device for t in tallies if not _finished(t)]
    if unfinished:
        text.complain(
            f"the work through {' and '.join(unfinished)} did not end: expected an initrd that "
            "runs wb_run= with the modules of the devices, and a kernel for them"
        )
    return EXIT_BAD_INPUT if unfinished else EXIT_OK


def _finished(tally: Tally) -> bool:
    return tally.ended == "shutdown" and all(tally.units().values()) and bool(tally.work.accesses)


def _measure(args: argparse.Namespace, device: str) -> Tally:
    from workbench.block.opening import open_image
    from workbench.trace.guest import Guest, build_machine

    disks = device in DISKS
    work = base64.b64encode((DISK_WORK if disks else NET_WORK).encode()).decode()
    guest = Guest.from_files(
        args.kernel, args.initrd, f"console=ttyS0 quiet panic=-1 wb_run={work}"
    )
    config: dict[str, Any] = {"ram_bytes": text.parse_size(args.memory), "seed": 1}
    tally = Tally(device)
    tally.now = tally.setup
    images: dict[str, Image] = {}
    networks: dict[str, Backend] = {}
    if disks:
        interface = "ide" if device == "ide" else "virtio"
        config["drives"] = [{"name": "disk", "interface": interface, "size_bytes": DISK_BYTES}]
        scratch = os.memfd_create("workbench-compare")
        os.truncate(scratch, DISK_BYTES)
        images["disk"] = open_image(Path(f"/proc/self/fd/{scratch}"), format_name="raw")
    else:
        config["nics"] = [{"name": "net", "model": device, "mac": "52:54:00:12:34:56"}]
        networks["net"] = _Echo(tally)
    machine: Any = build_machine(config, guest, images, networks)
    machine.observers.append(_watcher(machine, tally))
    tally.ended = machine.run(MOST_INSNS).kind
    return tally


class _Echo:
    """A network of one host, 10.0.2.2, that answers ARP and pings: enough to count with."""

    MAC, IP = bytes.fromhex("525500000202"), bytes((10, 0, 2, 2))
    large_frames = False

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def start(self, receive: Any) -> None:
        """Take where answers go."""
        self._deliver = receive

    def _count(self, frame: bytes) -> None:
        self._tally.now.packets += 1
        self._tally.now.data_bytes += len(frame)

    def _receive(self, frame: bytes) -> None:
        self._count(frame)
        self._deliver([frame])

    def close(self) -> None:
        """Nothing is held."""

    def send_large(self, large: Large) -> None:
        """Segments are frames like others here."""
        for frame in large.cut():
            self.send(frame)

    def send(self, frame: bytes) -> None:
        """Answer an ARP request or an echo request for our address (RFC 826, RFC 792)."""
        self._count(frame)
        if frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\1" and frame[38:42] == self.IP:
            reply = frame[6:12] + self.MAC + frame[12:20] + b"\0\2" + self.MAC + self.IP
            self._receive(reply + frame[22:32])
        elif frame[12:14] == b"\x08\0" and frame[23] == 1 and frame[30:34] == self.IP:
            head = (frame[14] & 15) * 4
            icmp = frame[14 + head :]
            if icmp[:1] != b"\x08":
                return
            checksum = int.from_bytes(icmp[2:4], "big") + 0x0800
            checksum = (checksum & 0xFFFF) + (checksum >> 16)
            body = b"\0\0" + checksum.to_bytes(2, "big") + icmp[4:]
            addresses = frame[30:34] + frame[26:30]
            header = frame[14:26] + addresses + frame[34 : 14 + head]
            self._receive(frame[6:12] + self.MAC + b"\x08\0" + header + body)


def _watcher(machine: Any, tally: Tally) -> Any:
    from workbench.core.machine import Observer

    owners = {"disk", "net", "piix3_ide"}
    names: dict[tuple[str, int, int, bool], str] = {}

    said = bytearray()

    class Watcher(Observer):
        def on_console(self, device: str, data: bytes, icount: int) -> None:
            said.extend(data)
            if said.endswith(BEGINS):
                tally.now = tally.work
            elif said.endswith(ENDS):
                tally.now = Counts()  # what follows is neither
            del said[: -len(BEGINS)]

        def on_access(
            self, kind: str, device: str, offset: int, size: int, is_write: bool, value: int,
            addr: int, icount: int, pc: int, count: int = 1,
        ) -> None:  # fmt: skip
            if kind == "cfg":
                return
            window = (machine.pio if kind == "pio" else machine.mmio).find(addr)
            if window is None or window.device.split(".")[0] not in owners:
                return
            key = (device, offset, size, is_write)
            if key not in names:
                regmap = window.regmap
                register = regmap.explain(offset, size, 0, is_write) if regmap else f"{offset:#x}"
                names[key] = f"{device}.{register.split('[')[0].split('=')[0]}"
            tally.now.registers[names[key]] += 1
            tally.now.exits += 1

        def on_exit(self, kind: str, icount: int, pc: int, detail: int) -> None:
            tally.now.exits += kind == "hlt"

        def on_dma(self, device: str, gpa: int, length: int, is_write: bool, icount: int) -> None:
            if device in owners:
                tally.now.dma_bytes += length

        def on_interrupt(self, vector: int, icount: int, pc: int) -> None:
            if vector != LOCAL_TIMER:
                tally.now.interrupts += 1

    return Watcher()


def _plain(tally: Tally) -> dict[str, Any]:
    counts, units = tally.work.plain(), tally.units()
    rates = {
        f"{name}_per_{unit}": round(n / size, 2) if size else None
        for unit, size in units.items()
        for name, n in counts.items()
    }
    return {
        **counts,
        **{f"{unit}s": round(size, 3) for unit, size in units.items()},
        **rates,
        "registers": dict(tally.work.registers.most_common()),
        "setup": {**tally.setup.plain(), "registers": dict(tally.setup.registers.most_common())},
        "ended": tally.ended,
    }


LABELS = {
    "accesses": "register accesses",
    "exits": "exits: accesses, and halts",
    "interrupts": "interrupts, local timer not counted",
    "dma_bytes": "DMA bytes",
}
UNITS = {"mib": "MiB", "packet": "packets"}


def _print(tallies: list[Tally], top: int) -> None:
    sizes = [t.units() for t in tallies]
    rows = [[UNITS[u], *(f"{size[u]:,.4g}" for size in sizes)] for u in sizes[0]]
    for name, label in LABELS.items():
        counts = [t.work.plain()[name] for t in tallies]
        rows.append([label, *(f"{n:,}" for n in counts)])
        for unit in sizes[0]:
            pairs = zip(counts, sizes, strict=True)
            rates = (f"{n / size[unit]:,.2f}" if size[unit] else "-" for n, size in pairs)
            rows.append([f"  per {UNITS[unit].removesuffix('s')}", *rates])
    rows += _registers([t.work for t in tallies], top)
    rows.append(["before it: register accesses", *(f"{t.setup.accesses:,}" for t in tallies)])
    rows += _registers([t.setup for t in tallies], top)
    columns = ["", *(t.device for t in tallies)]
    text.print_table("The same work", columns, rows, right=(1, 2))


def _registers(counts: list[Counts], top: int) -> Iterator[list[str]]:
    """Rows of those that are accessed most, one column for each device."""
    for n, count in enumerate(counts):
        for register, times in count.registers.most_common(top):
            yield [f"  {register}", *(f"{times:,}" if k == n else "" for k in range(len(counts)))]
