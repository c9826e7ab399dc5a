"""`workbench compare`: the same work done through two devices, register accesses side by side."""

from __future__ import annotations

import argparse
import base64
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.cli import engine, text
from workbench.errors import EXIT_BAD_INPUT, EXIT_OK, UsageError

if TYPE_CHECKING:
    from workbench.block.image import Image
    from workbench.net.port import Backend

EXAMPLES = """\
examples:
  workbench compare ide virtio-blk --kernel vmlinuz --initrd drivers.cpio.gz
  workbench compare e1000 virtio-net --kernel vmlinuz --initrd drivers.cpio.gz --json

The initrd runs the script that the kernel's command line gives it in base64 as wb_run=, with the
modules of the devices loaded: `python -m guests generic`, in a clone of this project, makes one.
"""
DISKS, NICS = ("ide", "virtio-blk"), ("e1000", "virtio-net")
DISK_BYTES = 64 << 20
LOCAL_TIMER = 0xEC
DISK_WORK = """\
d=/dev/sda; [ -b $d ] || d=/dev/vda
dd if=$d of=/dev/null bs=1M count=16 iflag=direct
dd if=$d bs=1M skip=16 count=16 | sha256sum
dd if=/dev/zero of=$d bs=1M count=4 conv=fsync
"""
NET_WORK = """\
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up; sleep 3
ping -c 5 -i 0.2 10.0.2.2
"""
DISK_MIB = 36


@dataclass
class Tally:
    """What one run did with its device."""

    device: str
    registers: Counter[str] = field(default_factory=Counter)
    exits: int = 0
    dma_bytes: int = 0
    interrupts: int = 0
    units: int = DISK_MIB
    """How much work it was: MiB of a disk, packets of a network interface."""
    ended: str = ""

    @property
    def accesses(self) -> int:
        """All register accesses, each of them one exit; a string instruction counts once."""
        return sum(self.registers.values())

    def counts(self) -> dict[str, int]:
        """What is counted, by its name in JSON."""
        return {
            "accesses": self.accesses,
            "exits": self.exits,
            "interrupts": self.interrupts,
            "dma_bytes": self.dma_bytes,
        }


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
    tallies = [_measure(args, device) for device in args.devices]
    disks = args.devices[0] in DISKS
    unit = "MiB" if disks else "packet"
    if args.json:
        text.print_json({t.device: _plain(t, unit) for t in tallies})
    else:
        _print(tallies, unit, args.top)
    return EXIT_OK if all(t.ended == "shutdown" for t in tallies) else EXIT_BAD_INPUT


def _measure(args: argparse.Namespace, device: str) -> Tally:
    from workbench.block.opening import open_image
    from workbench.trace.guest import Guest, build_machine

    disks = device in DISKS
    work = base64.b64encode((DISK_WORK if disks else NET_WORK).encode()).decode()
    guest = Guest.from_files(args.kernel, args.initrd, f"console=ttyS0 quiet wb_run={work}")
    config: dict[str, Any] = {"ram_bytes": text.parse_size(args.memory), "seed": 1}
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
        network = _Echo()
        networks["net"] = network
    machine: Any = build_machine(config, guest, images, networks)
    tally = Tally(device)
    machine.observers.append(_watcher(machine, tally))
    tally.ended = machine.run().kind
    if not disks:
        tally.units = max(network.packets, 1)
    return tally


class _Echo:
    """A network of one host, 10.0.2.2, that answers ARP and pings: enough to count with."""

    MAC, IP = bytes.fromhex("525500000202"), bytes((10, 0, 2, 2))
    large_frames = False

    def __init__(self) -> None:
        self.packets = 0

    def start(self, receive: Any) -> None:
        """Take where answers go."""
        self._deliver = receive

    def _receive(self, frame: bytes) -> None:
        self.packets += 1
        self._deliver(frame)

    def close(self) -> None:
        """Nothing is held."""

    def send(self, frame: bytes) -> None:
        """Answer an ARP request or an echo request for our address (RFC 826, RFC 792)."""
        self.packets += 1
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

    class Watcher(Observer):
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
            tally.registers[names[key]] += 1
            tally.exits += 1

        def on_exit(self, kind: str, icount: int, pc: int, detail: int) -> None:
            tally.exits += kind == "hlt"

        def on_dma(self, device: str, gpa: int, length: int, is_write: bool, icount: int) -> None:
            if device in owners:
                tally.dma_bytes += length

        def on_interrupt(self, vector: int, icount: int, pc: int) -> None:
            if vector != LOCAL_TIMER:
                tally.interrupts += 1

    return Watcher()


def _plain(tally: Tally, unit: str) -> dict[str, Any]:
    counts = tally.counts()
    return {
        **counts,
        unit.lower() + "s": tally.units,
        **{f"{name}_per_{unit}": round(n / tally.units, 2) for name, n in counts.items()},
        "registers": dict(tally.registers.most_common()),
        "ended": tally.ended,
    }


LABELS = {
    "accesses": "register accesses",
    "exits": "exits: accesses, and halts",
    "interrupts": "interrupts, local timer not counted",
    "dma_bytes": "DMA bytes",
}


def _print(tallies: list[Tally], unit: str, top: int) -> None:
    rows = [[f"{unit}s", *(f"{t.units:,}" for t in tallies)]]
    for name, label in LABELS.items():
        counts = [t.counts()[name] for t in tallies]
        rows.append([label, *(f"{n:,}" for n in counts)])
        per = [n / t.units for n, t in zip(counts, tallies, strict=True)]
        rows.append([f"  per {unit}", *(f"{n:,.1f}" for n in per)])
    for t in tallies:
        for register, count in t.registers.most_common(top):
            rows.append([register, *(f"{count:,}" if o is t else "" for o in tallies)])
    columns = ["", *(t.device for t in tallies)]
    text.print_table("The same work", columns, rows, right=(1, 2))
