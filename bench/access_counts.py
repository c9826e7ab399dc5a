"""``python -m bench.access_counts``: register accesses of the same work, ours beside QEMU's.

The same kernel, initramfs and work on both: 16 MiB read directly, 16 MiB read and hashed, 4 MiB
written; or five pings. Reads are of 256 KiB: libata takes at most 128 pieces of memory, so that a
longer one is one command or two, as the pages happen to lie. QEMU's accesses are counted by
``-trace memory_region_ops_*``, without those of SeaBIOS: from the kernel's first look for PCI on.
Ours come from the access log. A string instruction counts as many times as it repeats, on both
sides. QEMU takes notifications of virtio elsewhere: they are left out.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import guests
from guests.initramfs import run_option
from guests.programs import with_programs
from workbench.trace.reader import open_trace

DISK_BYTES = 64 << 20
NET_WORK = """\
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up; sleep 3
ping -q -c 5 10.0.2.2
"""
DISK_WORK = """\
d=/dev/sda; [ -b $d ] || d=/dev/vda
dd if=$d of=/dev/null bs=256k count=64 iflag=direct
dd if=$d bs=256k skip=64 count=64 | sha256sum
dd if=/dev/zero of=$d bs=256k count=16 conv=fsync
"""
MAC = "52:54:00:00:00:07"
Key = tuple[str, int, bool]  # region, offset, whether written
IDE_PORTS = {0x1F0: "ide0", 0x170: "ide1", 0x3F6: "ide0.control", 0x376: "ide1.control"}


@dataclass(frozen=True, slots=True)
class Device:
    """What is compared: options on both sides, and the work."""

    name: str
    ours: tuple[str, ...]
    qemu: tuple[str, ...]
    work: str
    append: str = ""


DEVICES = (
    Device("ide", ("--drive", "file={image},format=raw"),
           ("-drive", "file={image},format=raw,if=ide,snapshot=on"), DISK_WORK),
    Device("ide-pio", ("--drive", "file={image},format=raw"),
           ("-drive", "file={image},format=raw,if=ide,snapshot=on"), DISK_WORK, "libata.dma=0"),
    Device("virtio-blk", ("--drive", "file={image},format=raw,if=virtio,disable-legacy=on"),
           ("-drive", "file={image},format=raw,if=none,id=d,snapshot=on",
            "-device", "virtio-blk-pci,drive=d,disable-legacy=on"), DISK_WORK),
    Device("e1000", ("--nic", f"e1000,mac={MAC},user"),
           ("-netdev", "user,id=n", "-device", f"e1000,netdev=n,mac={MAC}"), NET_WORK),
    Device("virtio-net", ("--nic", f"virtio-net,mac={MAC},disable-legacy=on,user"),
           ("-netdev", "user,id=n",
            "-device", f"virtio-net-pci,netdev=n,mac={MAC},disable-legacy=on"),
           NET_WORK),
)  # fmt: skip

REGIONS = {
    "ide": ("ide0", "ide1", "ide0.control", "ide1.control", "bmide"),
    "virtio": ("common", "isr", "device"),
    "e1000": ("e1000",),
}

_LINE = re.compile(
    r"memory_region_ops_(read|write) cpu (\S+) mr \S+ addr 0x(\w+) value 0x(\w+) size (\d+)"
    r"(?: name '([^']*)')?"
)


def ours(device: Device, directory: Path, files: list[str]) -> Counter[Key]:
    """Record, and count from the trace."""
    trace = directory / "ours.wbt"
    command = [sys.executable, "-m", "workbench", "record", "-q", "-o", str(trace), *files,
               *device.ours]  # fmt: skip
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=300)
    counts: Counter[Key] = Counter()
    with open_trace(trace) as opened:
        table = opened.table("accesses", ("kind", "device", "offset", "write", "count"))
        columns = [table[name].to_pylist() for name in table.column_names]
        names = table.column_names
        for row in zip(*columns, strict=True):
            event = dict(zip(names, row, strict=True))
            where = (event["kind"], event["device"], event["offset"], event["write"])
            key = _our_key(device.name, *where)
            if key is not None:
                counts[key] += event["count"]
    return counts


def _our_key(name: str, kind: str, device: str, offset: int, write: bool) -> Key | None:
    if kind == "cfg":
        return None
    if device in ("ide0", "ide1", "ide0.control", "ide1.control", "bmide"):
        return device, offset, write
    if device not in ("drive0", "net0") or kind != "mmio":
        return None
    return ("e1000", offset, write) if name == "e1000" else _modern(offset, write)


def _modern(offset: int, write: bool) -> Key | None:
    """A register behind BAR 4 of a modern virtio device."""
    from workbench.hw.virtio import pci

    for name, at in (("device", pci.DEVICE_AT), ("isr", pci.ISR_AT), ("common", pci.COMMON_AT)):
        if at <= offset < at + 0x1000 and offset < pci.NOTIFY_AT:
            return name, offset - at, write
    return None


def qemus(device: Device, directory: Path, files: list[str]) -> Counter[Key]:
    """Run QEMU, and count from its trace."""
    log = directory / "qemu.log"
    command = ["qemu-system-x86_64", "-M", "pc", "-accel", "tcg", "-m", "256", "-nodefaults",
               "-display", "none", "-serial", "stdio", "-no-reboot", *files, *device.qemu,
               "-trace", "memory_region_ops_*", "-D", str(log)]  # fmt: skip
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=300)
    counts: Counter[Key] = Counter()
    started = False
    with log.open(errors="replace") as lines:
        for line in lines:
            found = _LINE.match(line)
            if found is None:
                continue
            write, address, region = found[1] == "write", int(found[3], 16), found[6] or ""
            # Linux probes PCI's configuration mechanism 1 by a byte written to 0xCFB, before any of
            # its drivers; SeaBIOS never does.
            if write and address == 0xCFB and int(found[5]) == 1:
                started = True
            if started:
                key = _qemu_key(region, address, write)
                if key is not None:
                    counts[key] += 1
    return counts


def _qemu_key(region: str, address: int, write: bool) -> Key | None:
    if region.startswith("virtio-pci-"):
        base = {"common": 0, "isr": 0x1000, "device": 0x2000}
        part = region.removeprefix("virtio-pci-").split("-")[0]
        return (part, address & 0xFFF, write) if part in base else None
    if region == "e1000-mmio":
        return "e1000", address & 0x1_FFFF, write
    if region in ("piix-bmdma", "bmdma"):
        return "bmide", address & 0xF, write
    for port, name in IDE_PORTS.items():
        if port <= address < port + (1 if name.endswith("control") else 8):
            return name, address - port, write
    return None


def rows(device: str, mine: Counter[Key], theirs: Counter[Key]) -> list[dict[str, object]]:
    """One for each register and direction, with the difference in per cent of QEMU's count."""
    regions = REGIONS[device.split("-")[0]]
    out: list[dict[str, object]] = []
    for key in sorted(key for key in mine.keys() | theirs.keys() if key[0] in regions):
        a, b = mine[key], theirs[key]
        off = abs(a - b) * 100 / b if b else (0.0 if not a else 100.0)
        out.append({"region": key[0], "offset": key[1], "write": key[2], "ours": a, "qemu": b,
                    "per_cent": round(off, 1)})  # fmt: skip
    return out


def main() -> int:
    """Print a table for each device."""
    parser = argparse.ArgumentParser(prog="python -m bench.access_counts", description=__doc__)
    parser.add_argument("devices", nargs="*", help=", ".join(d.name for d in DEVICES))
    parser.add_argument("--json", action="store_true", help="as JSON")
    options = parser.parse_args()
    guest = guests.ensure("generic")
    out = {}
    for device in DEVICES:
        if options.devices and device.name not in options.devices:
            continue
        with tempfile.TemporaryDirectory(prefix="workbench-counts-") as name:
            directory = Path(name)
            image = directory / "disk.raw"
            image.write_bytes(bytes(DISK_BYTES))
            append = f"console=ttyS0 quiet {device.append} {run_option(device.work)}"
            initrd = directory / "initrd"
            initrd.write_bytes(with_programs(guest.images["drivers"].read_bytes(), []))
            files = ["-kernel", str(guest.kernel), "-initrd", str(initrd), "-append", append]
            filled = Device(
                device.name,
                tuple(word.format(image=image) for word in device.ours),
                tuple(word.format(image=image) for word in device.qemu),
                device.work,
            )
            out[device.name] = rows(
                device.name, ours(filled, directory, files), qemus(filled, directory, files)
            )
    if options.json:
        print(json.dumps(out, indent=2))
        return 0
    for name, found in out.items():
        mine, theirs = (sum(int(str(row[side])) for row in found) for side in ("ours", "qemu"))
        print(f"\n**{name}**: {mine:,} of ours, {theirs:,} of QEMU's\n")
        print("| register | | ours | QEMU | difference |\n|---|---|---|---|---|")
        for row in found:
            way = "write" if row["write"] else "read"
            print(f"| {row['region']} + {row['offset']:#x} | {way} | {row['ours']:,} "
                  f"| {row['qemu']:,} | {row['per_cent']} % |")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
