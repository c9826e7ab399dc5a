"""Throughput of disks and networks inside the guest, Workbench recording beside plain QEMU.

A guest prints a mark before and after each piece of work; the time between the marks is the host's,
and so is the processor time that all threads of a tool and its helpers took meanwhile: a second
figure for machines that do other work. Disks are read several times in one run: the first pass
runs code that neither tool has translated yet, and has a column of its own. Images hold random
bytes, so that nothing compresses: what a run reads goes into our trace.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

import guests
from bench.tools import web_server
from guests.initramfs import run_option

MB = 1 << 20
DISK_MB = 256
SENT_MB = 64
PASSES = 3
DISK_WORK = """\
for d in vda sda; do
  for i in {passes}; do
    echo WB-GO $d direct; dd if=/dev/$d of=/dev/null bs=1M count={n} iflag=direct 2>&-; echo WB-END
  done
  for i in {passes}; do
    echo WB-GO $d cached; dd if=/dev/$d of=/dev/null bs=1M count={n} skip={n} 2>&-; echo WB-END
    echo 3 >/proc/sys/vm/drop_caches
  done
done
"""
NET_WORK = """\
yes 0123456789abcdef | head -c {sent} > /tmp/up
for i in eth0 eth1; do
  ifconfig $i 10.0.2.15 netmask 255.255.255.0 up; n=0
  until grep -q 1 /sys/class/net/$i/carrier || [ $n = 80 ]; do sleep 0.1; n=$((n+1)); done
  ping -c 1 10.0.2.2 >/dev/null
  echo WB-GO $(cat /sys/class/net/$i/address)
  wget -q -O /dev/null http://10.0.2.2:{port}/; echo WB-END
  echo WB-GO $(cat /sys/class/net/$i/address) send
  wget -q -O /dev/null --post-file=/tmp/up http://10.0.2.2:{port}/; echo WB-END
  ifconfig $i down
done
"""
NET_MACS = ("52:54:00:00:00:0a", "52:54:00:00:00:0e")
LABELS = {
    "vda direct": "virtio-blk, read, O_DIRECT",
    "vda cached": "virtio-blk, read",
    "sda direct": "IDE by DMA, read, O_DIRECT",
    "sda cached": "IDE by DMA, read",
    NET_MACS[0]: "virtio-net, TCP receive",
    NET_MACS[0] + " send": "virtio-net, TCP send",
    NET_MACS[1]: "e1000, TCP receive",
    NET_MACS[1] + " send": "e1000, TCP send",
}
NAMES = ("storage", "network")


@dataclass(slots=True)
class Rate:
    """One piece of work on one tool: of every pass MB/s, and ms of processors for each MB; and MB/s
    of the first pass in each round.
    """

    work: str
    tool: str
    mb_per_s: list[float] = field(default_factory=list)
    first_mb_per_s: list[float] = field(default_factory=list)
    cpu_ms_per_mb: list[float] = field(default_factory=list)


def measure(name: str, rounds: int, say: Callable[[str], None], quick: bool = False) -> list[Rate]:
    """Run `storage` or `network` on both, alternating; raises `guests.GuestError`."""
    guest = guests.ensure("generic")
    rates: dict[tuple[str, str], Rate] = {}
    less = 4 if quick and name == "network" else 1
    size, sent = DISK_MB * MB // less, SENT_MB * MB // less
    rng = random.Random(1)
    data = b"".join(rng.randbytes(MB) for _ in range(size // MB))
    with tempfile.TemporaryDirectory(prefix="workbench-bench-") as folder:
        directory = Path(folder)
        with web_server(lambda path: data) as port:
            for n in range(rounds):
                for tool in ("qemu", "workbench"):
                    if tool == "qemu" and shutil.which("qemu-system-x86_64") is None:
                        continue
                    parts = _storage(tool, directory, data) if name == "storage" else _network(tool)
                    work = DISK_WORK if name == "storage" else NET_WORK
                    passes = " ".join(map(str, range(PASSES)))
                    script = work.format(n=size // MB // 2, port=port, passes=passes, sent=sent)
                    command = _command(tool, guest, directory, script) + parts
                    seen: set[str] = set()
                    for label, seconds, cpu_s in marks(command):
                        what = LABELS.get(label, label)
                        moved = size // 2 if name == "storage" else size
                        if label.endswith(" send"):
                            moved = sent
                        rate = rates.setdefault((what, tool), Rate(what, tool))
                        rate.mb_per_s.append(moved / 1e6 / seconds)
                        if label not in seen:
                            rate.first_mb_per_s.append(rate.mb_per_s[-1])
                        seen.add(label)
                        rate.cpu_ms_per_mb.append(cpu_s * 1e9 / moved)
                        say(f"{name:10} {n + 1}/{rounds}  {tool:10} {what:30} "
                            f"{rate.mb_per_s[-1]:7.1f} MB/s {rate.cpu_ms_per_mb[-1]:6.2f} ms/MB"
                        )  # fmt: skip
    return list(rates.values())


def _command(tool: str, guest: guests.Guest, directory: Path, script: str) -> list[str]:
    append = f"console=ttyS0 quiet {run_option(script)}"
    boot = [
        "-kernel",
        str(guest.kernel),
        "-initrd",
        str(guest.images["drivers"]),
        "-append",
        append,
    ]
    if tool == "qemu":
        return ["qemu-system-x86_64", "-M", "pc", "-accel", "tcg", "-m", "256", "-nodefaults",
                "-display", "none", "-serial", "stdio", "-no-reboot", *boot]  # fmt: skip
    trace = str(directory / "bench.wbt")
    return [sys.executable, "-m", "workbench", "record", "-m", "256", "-o", trace, "-q", *boot]


def _storage(tool: str, directory: Path, data: bytes) -> list[str]:
    image = directory / "disk.raw"
    if not image.exists():
        image.write_bytes(data)
    out = []
    for kind in ("virtio", "ide"):
        more = "format=raw" + (",snapshot=on" if tool == "qemu" else "")
        out += ["-drive", f"file={image},if={kind},{more}"]
    return out


def _network(tool: str) -> list[str]:
    virtio, e1000 = NET_MACS
    if tool == "workbench":
        return ["-nic", f"virtio-net,mac={virtio},user", "-nic", f"e1000,mac={e1000},user"]
    return [
        "-nic",
        f"user,model=virtio-net-pci,mac={virtio}",
        "-nic",
        f"user,model=e1000,mac={e1000}",
    ]


def _cpu_s(pid: int) -> float:
    """Processor time of a process and of those that it has started."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0.0
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(_cpu_s(int(child)) for child in children)


def marks(command: Sequence[str]) -> list[tuple[str, float, float]]:
    """Run a guest; (what, seconds, seconds of processors) for each pair of marks that it prints."""
    found: list[tuple[str, float, float]] = []
    label, started, cpu_s = "", 0.0, 0.0
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        timer = threading.Timer(600, process.kill)
        timer.start()
        assert process.stdout is not None
        last = b""
        for line in process.stdout:
            now = time.monotonic()
            if line.startswith(b"WB-GO "):
                label, started = line.split(maxsplit=1)[1].decode().strip(), now
                cpu_s = _cpu_s(process.pid)
            elif line.startswith(b"WB-END"):
                found.append((label, now - started, _cpu_s(process.pid) - cpu_s))
            last = line if line.strip() else last
        timer.cancel()
    if not found:
        raise guests.GuestError(f"{command[0]}: no work was done: {last.decode(errors='replace')}")
    return found


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def to_json(rates: Sequence[Rate]) -> list[dict[str, object]]:
    """All that was measured."""
    return [asdict(rate) for rate in rates]


def to_markdown(rates: Sequence[Rate]) -> str:
    """One table, with how ours relates to QEMU's."""
    lines = [
        "| work | QEMU | Workbench, recording | of QEMU | of QEMU, first pass |"
        " processors, ms/MB: QEMU | Workbench |",
        "|---|---|---|---|---|---|---|",
    ]
    medians = {(r.work, r.tool): median(r.mb_per_s) for r in rates}
    firsts = {(r.work, r.tool): median(r.first_mb_per_s) for r in rates}
    cpu = {(r.work, r.tool): median(r.cpu_ms_per_mb) for r in rates}
    for work in dict.fromkeys(r.work for r in rates):
        both = [medians.get((work, tool)) for tool in ("qemu", "workbench")]
        cells = [f"{value:.0f} MB/s" if value else "" for value in both]
        for found in (medians, firsts):
            theirs, ours = found.get((work, "qemu")), found.get((work, "workbench"))
            cells.append(f"{ours / theirs:.2f}" if ours and theirs else "")
        cells += [_ms(cpu.get((work, tool))) for tool in ("qemu", "workbench")]
        lines.append(f"| {work} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
