"""``python -m bench.driver_runs``: Debian's own drivers do real work on all storage and networks.

A disk is partitioned, formatted with `mkfs.ext4`, mounted, 32 MB are written, unmounted, mounted
and verified by SHA-256; then `e2fsck -f` and `qemu-img check` look at the image. A NIC takes 32 MB
by TCP, verified by SHA-256, and pings. Every run is recorded; then the image is deleted and the
network gone, and the replay has to be the same, event by event. Prints the table of
`docs/driver-runs.md`.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import guests
from bench.tools import web_server
from guests.initramfs import run_option
from guests.programs import with_programs
from workbench.block.qcow2.create import create
from workbench.trace.reader import open_trace

MB = 1 << 20
DISK_BYTES = 128 * MB
DISK_WORK = """\
d=/dev/sda; [ -b $d ] || d=/dev/vda
printf 'o\\nn\\np\\n1\\n\\n\\nw\\n' | fdisk $d >/dev/null 2>&1
while [ ! -b ${{d}}1 ]; do sleep 0.1; done
mkfs.ext4 -q ${{d}}1 && mkdir -p /mnt && mount -t ext4 ${{d}}1 /mnt && echo MOUNTED
dd if=/dev/urandom of=/tmp/r bs=1M count={megabytes} 2>/dev/null
cp /tmp/r /mnt/r && umount /mnt && echo 3 >/proc/sys/vm/drop_caches
mount -t ext4 ${{d}}1 /mnt && sha256sum </tmp/r && sha256sum </mnt/r
umount /mnt && echo UNMOUNTED
cat /sys/block/vda/device/features 2>/dev/null
dmesg | grep -E 'ata[12].00|error|exception|fail'
"""
NET_WORK = """\
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up; n=0
while [ "$(cat /sys/class/net/eth0/carrier)" != 1 ] && [ $n -lt 80 ]; do sleep 0.1; n=$((n+1)); done
ping -c 5 -i 0.2 10.0.2.2
wget -q -O - http://10.0.2.2:{port}/{megabytes} | sha256sum
ifconfig eth0 | grep errors
"""


@dataclass(frozen=True, slots=True)
class Run:
    """One combination: options of `record`, words of the kernel's command line."""

    name: str
    option: str
    value: str
    append: str = ""


RUNS = (
    Run("IDE, DMA", "--drive", "if=ide"),
    Run("IDE, PIO", "--drive", "if=ide", "libata.dma=0"),
    Run("virtio-blk, legacy", "--drive", "if=virtio,disable-modern=on"),
    Run("virtio-blk, modern", "--drive", "if=virtio,disable-legacy=on"),
    Run("virtio-blk, packed ring", "--drive", "if=virtio,packed=on,num-queues=4"),
    Run("virtio-blk, MMIO", "--drive", "if=virtio,transport=mmio"),
    Run("e1000", "--nic", "e1000,user"),
    Run("virtio-net", "--nic", "virtio-net,user"),
    Run("virtio-net, packed ring", "--nic", "virtio-net,packed=on,queues=2,user"),
)


@dataclass(frozen=True, slots=True)
class Result:
    """What a run did, after all checks have passed."""

    run: Run
    record_s: float
    replay_s: float
    instructions: int
    trace_bytes: int


class RunError(Exception):
    """A check that failed, and what was seen."""


def payload(megabytes: int) -> bytes:
    """What is downloaded."""
    return random.Random(megabytes).randbytes(megabytes * MB)


def do(run: Run, directory: Path, megabytes: int = 32) -> Result:
    """Record, check the image, take image and network away, replay. Raises RunError."""
    guest = guests.ensure("generic")
    initrd = directory / "initrd"
    trace, image = directory / "run.wbt", directory / "disk.qcow2"
    disk = run.option == "--drive"
    value = run.value
    drivers = guest.images["drivers"].read_bytes()
    if disk:
        drivers = with_programs(drivers, ["mkfs.ext4"], ["/etc/mke2fs.conf"])
        create(image, DISK_BYTES)
        value = f"file={image},rw=on,{value}"
    initrd.write_bytes(drivers)
    with web_server(lambda path: payload(int(path[1:]))) as port:
        work = (DISK_WORK if disk else NET_WORK).format(megabytes=megabytes, port=port)
        started = time.monotonic()
        shown = _workbench(
            "record", "--kernel", guest.kernel, "--initrd", initrd, "-o", trace,
            "--append", f"console=ttyS0 quiet {run.append} {run_option(work)}",
            run.option, value, "--timeout", 200,
        )  # fmt: skip
        recorded = time.monotonic()
    if disk:
        _check_disk(run, shown, image, directory)
        _check_dma(run, trace, megabytes)
        image.unlink()
    else:
        _check_net(shown, megabytes)
    initrd.unlink()
    replay_from = time.monotonic()
    again = _workbench("replay", trace)
    replayed = time.monotonic()
    if "identical" not in again or again.split("workbench:")[0].strip() not in shown:
        raise RunError(f"{run.name}: the replay differs: {again[-2000:]}")
    found = re.search(r"recorded ([\d,]+) instructions", shown)
    count = int(found[1].replace(",", "")) if found else 0
    return Result(run, recorded - started, replayed - replay_from, count, trace.stat().st_size)


def _workbench(*arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "workbench", *map(str, arguments)],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RunError(f"exit status {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout + done.stderr


def _expect(condition: object, what: str, seen: str) -> None:
    if not condition:
        raise RunError(f"expected {what}, not {seen[-3000:]}")


def _check_disk(run: Run, shown: str, image: Path, directory: Path) -> None:
    sums = re.findall(r"^([0-9a-f]{64})  -", shown, re.MULTILINE)
    _expect("MOUNTED" in shown and "UNMOUNTED" in shown, "a file system to be mounted twice", shown)
    _expect(len(sums) == 2 and sums[0] == sums[1], "two equal sums", shown)
    if "dma=0" in run.append:
        # TRIM is a DMA command: without DMA libata lets mkfs.ext4's DISCARD fail, as on any disk.
        shown = re.sub(r".* critical target error, .*\(DISCARD\).*", "", shown)
    for word in ("error", "exception", "failed"):
        _expect(word not in shown, f"no {word!r}", shown)
    features = re.search(r"^[01]{64}", shown, re.MULTILINE)
    if "if=virtio" in run.value:
        _expect(features, "virtio features", shown)
        assert features is not None
        modern, packed = features[0][32] == "1", features[0][34] == "1"
        _expect(modern == ("disable-modern" not in run.value), "the interface asked for", shown)
        _expect(packed == ("packed=on" in run.value), "the ring asked for", shown)
    _tool("qemu-img", "check", image)
    raw = directory / "disk.raw"
    _tool("qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, raw)
    with raw.open("r+b") as file:
        file.seek(446 + 8)
        first = int.from_bytes(file.read(4), "little")
    partition = directory / "partition"
    with raw.open("rb") as file, partition.open("wb") as out:
        file.seek(512 * first)
        while data := file.read(MB):
            out.write(data)
    _tool("e2fsck", "-f", "-n", partition)
    raw.unlink()
    partition.unlink()


def _check_dma(run: Run, trace: Path, megabytes: int) -> None:
    with open_trace(trace) as opened:
        moved = sum(row["length"] for row in opened.table("dma").to_pylist())
    if "dma=0" in run.append:
        _expect(not moved, "no DMA", f"{moved} bytes of it")
    else:
        _expect(moved > 2 * megabytes * MB, "all data by DMA", f"{moved} bytes")


def _tool(name: str, *arguments: object) -> None:
    path = "/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/bin"
    done = subprocess.run(
        [name, *map(str, arguments)], capture_output=True, text=True, env={"PATH": path},
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise RunError(f"{name} found: {done.stdout[-2000:]}{done.stderr[-2000:]}")


def _check_net(shown: str, megabytes: int) -> None:
    _expect("5 packets transmitted, 5 packets received, 0% packet loss" in shown, "pings", shown)
    _expect(hashlib.sha256(payload(megabytes)).hexdigest() in shown, "the right sum", shown)
    _expect("errors:0 dropped:0 overruns:0 frame:0" in shown, "no errors", shown)


def main() -> int:
    """Do the runs and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.driver_runs", description=__doc__)
    parser.add_argument("--only", default="", help="runs with this in their name")
    parser.add_argument("--megabytes", type=int, default=32, help="size of the work (default: 32)")
    options = parser.parse_args()
    print("| run | recording | replay | instructions | trace |\n|---|---|---|---|---|")
    status = 0
    for run in RUNS:
        if options.only not in run.name:
            continue
        with tempfile.TemporaryDirectory(prefix="workbench-runs-") as name:
            try:
                r = do(run, Path(name), options.megabytes)
            except RunError as error:
                print(f"| {run.name} | FAILED: {error} | | | |", flush=True)
                status = 1
                continue
        print(
            f"| {run.name} | {r.record_s:.1f} s | {r.replay_s:.1f} s "
            f"| {r.instructions / 1e9:.1f} G | {r.trace_bytes / 1e6:.0f} MB |",
            flush=True,
        )
    return status


if __name__ == "__main__":
    sys.exit(main())
