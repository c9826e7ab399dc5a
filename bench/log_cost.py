"""``python -m bench.log_cost``: what the access log costs, in bytes and in time.

*Bytes per access on disk*: the table of accesses of a recorded boot, the same with the symbol table
that ``--symbols`` keeps for that trace, the log as text without and with symbols, and beside them
the text that QEMU writes for the same boot with ``-trace memory_region_ops_*``.

*Time*: the same boot recorded with all logging on, and with the access log off, in turn, each in a
process of its own. Off means that the buses have no tracer; all other events are recorded.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import guests
from workbench import cache
from workbench.core.config import MachineConfig
from workbench.trace.guest import Guest
from workbench.trace.reader import open_trace
from workbench.trace.session import Limits, Recording

RAM_BYTES = 256 << 20
APPEND = "console=ttyS0 quiet"
LIMIT_S = 300.0


def record(kernel: str, initrd: str, path: str, *, log: bool) -> float:
    """Record a boot to its end; gives the seconds that the guest ran."""
    config = MachineConfig(ram_bytes=RAM_BYTES, seed=1, rtc_epoch_s=1_767_225_600).to_json()
    guest = Guest.from_files(kernel, initrd, APPEND)
    recording = Recording(path, config, guest, limits=Limits(wall_s=LIMIT_S))
    if not log:
        machine = recording.machine
        machine.pio.tracer = machine.mmio.tracer = None  # type: ignore[attr-defined]
        recording.recorder.on_access = _nothing  # type: ignore[method-assign, assignment]
    started = time.perf_counter()
    recording.run()
    return time.perf_counter() - started


def _nothing(*args: object) -> None:
    """An access that is not logged."""


def cost(kernel: str, initrd: str, runs: int, directory: Path) -> tuple[list[float], list[float]]:
    """Seconds with and without the access log, measured in turn."""
    found: dict[str, list[float]] = {"on": [], "off": []}
    for _ in range(runs):
        for name, seconds in found.items():
            command = [sys.executable, "-m", "bench.log_cost", "--one", name, kernel, initrd,
                       str(directory / f"{name}.wbt")]  # fmt: skip
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            seconds.append(float(done.stdout))
    return found["on"], found["off"]


def sizes(trace: Path, kernel: str, initrd: str, directory: Path) -> dict[str, float]:
    """Bytes per access in each form."""
    with open_trace(trace) as opened:
        count = opened.rows("accesses")
        found = {"trace": opened.sizes()["accesses"] / count}
    for name, option in (("text", []), ("text with symbols", ["--symbols"])):
        command = [sys.executable, "-m", "workbench", "log", str(trace), *option]
        text = subprocess.run(command, check=True, capture_output=True).stdout
        found[name] = len(text) / count
    newest = max(cache.folder().glob("symbols-*.zst"), key=lambda path: path.stat().st_mtime)
    kept = newest.stat().st_size
    found["trace with symbols"] = found["trace"] + kept / count
    if shutil.which("qemu-system-x86_64"):
        found["qemu -trace"] = _qemu(kernel, initrd, directory)
    found["accesses"] = count
    return found


def _qemu(kernel: str, initrd: str, directory: Path) -> float:
    log = directory / "qemu.log"
    command = ["qemu-system-x86_64", "-M", "pc", "-accel", "tcg", "-m", str(RAM_BYTES >> 20),
               "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot",
               "-kernel", kernel, "-initrd", initrd, "-append", APPEND,
               "-trace", "memory_region_ops_*", "-D", str(log)]  # fmt: skip
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=300)
    with log.open("rb") as lines:
        count = sum(1 for _ in lines)
    return log.stat().st_size / max(count, 1)


def main() -> int:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.log_cost", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--flavour", default="cloud", help="the kernel (default: cloud)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        log, kernel, initrd, path = options.one
        print(record(kernel, initrd, path, log=log == "on"))
        return 0
    guest = guests.ensure(options.flavour)
    kernel, initrd = str(guest.kernel), str(guest.images["boot"])
    with tempfile.TemporaryDirectory(prefix="workbench-bench-") as name:
        directory = Path(name)
        on, off = cost(kernel, initrd, options.runs, directory)
        found = sizes(directory / "on.wbt", kernel, initrd, directory)
    ratio = median(on) / median(off)
    if options.json:
        print(json.dumps({"on_s": on, "off_s": off, "ratio": ratio, "bytes": found}))
        return 0
    print(f"recording with the access log {median(on):.2f} s, without {median(off):.2f} s:"
          f" {ratio:.3f}")  # fmt: skip
    print(f"{found.pop('accesses'):,.0f} accesses; bytes for each:")
    for what, value in found.items():
        print(f"  {what:<20} {value:7.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
