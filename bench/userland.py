"""Real programs in a Linux guest, Workbench recording beside plain QEMU.

One boot runs them all; a mark on the console before and after each gives its time, as the host saw
it. QEMU's processor is given the extensions that ours has, so that programs take the same paths.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

import guests
from bench.throughput import marks
from guests.cpio import Archive
from guests.initramfs import INITS
from guests.programs import with_programs

NAMES = ("work",)
PROGRAMS = ("openssl", "xz", "perl", "python3")
CPU = "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt"
PRIME = "7" + "F" * 319  # hexadecimal, 2**1279 - 1: many rounds of Montgomery's multiplication

PERL_MATRIX = """\
my $n=70; my (@a,@b,@c); for my $i (0..$n-1) { for my $j (0..$n-1) {
$a[$i][$j]=1/($i+$j+1); $b[$i][$j]=$i-$j/2; } } for my $i (0..$n-1) { for my $j (0..$n-1) {
my $s=0; $s+=$a[$i][$_]*$b[$_][$j] for 0..$n-1; $c[$i][$j]=$s; } } print $c[3][5],"\\n";"""
PYTHON_LOOP = """\
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
print(fib(21)); d = {}
for i in range(60000): d[str(i * 7 % 1009)] = d.get(str(i % 97), 0) + i
print(sum(d.values()))"""

ZEROS = "dd if=/dev/zero bs=64k count=512 2>&-"

# Each is a line of the guest's shell.  `$x` is a file of two megabytes.
WORKS = {
    "sha256sum, 32 MB": f"{ZEROS} | sha256sum",
    "gzip -9, 2 MB": "gzip -9 -c $x | md5sum",
    "xz -2, 2 MB": "/sbin/xz -2 -T1 -c $x | md5sum",
    "sort, 90,000 lines": "seq 90000 | rev | sort | md5sum",
    "awk, arithmetic": "awk 'BEGIN{for(i=0;i<100000;i++){s+=i%7*1.5;t=t+length(s)};print s,t}'",
    "awk, fields and arrays": "seq 12000 | awk '{n[$1%100]+=$1;s=s substr($1,1,1)}END{print n[7]}'",
    "find and stat": "for i in 1 2; do find /proc /sys /tree >/dev/null; "
    "find /sys /tree | xargs stat -c %s; done | wc -l",
    "fork and exec, 300": "for i in $(seq 300); do /bin/busybox true; done",
    "pipe, 60,000 writes": "dd if=/dev/zero bs=16 count=60000 2>&- | dd bs=16 of=/dev/null 2>&-",
    "page faults": "for i in $(seq 12); do dd if=/dev/zero of=/dev/null bs=40M count=1 2>&-; done",
    "shell loop": "n=0; while [ $n -lt 40000 ]; do n=$((n+1)); done; echo $n",
    "perl, matrix": f"perl -e '{PERL_MATRIX}'",
    "python, calls and dicts": f'python3 -I -S -c "{PYTHON_LOOP}"',
    "openssl, SHA-512, 32 MB": f"{ZEROS} | openssl dgst -sha512",
    "openssl, ChaCha20, 32 MB": f"{ZEROS} | openssl enc -chacha20 -K 01 -iv 02 "
    "| tail -c 16 | md5sum",
    "openssl, a prime": f"openssl prime -hex {PRIME}",
}


@dataclass(slots=True)
class Timed:
    """Seconds that one piece of work took in each round, and those of all processors."""

    work: str
    tool: str
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)


def guest_script() -> str:
    """The guest's /init."""
    before = INITS["boot"].partition('echo "== init')[0]
    lines = [
        "export OPENSSL_CONF=/dev/null",
        "x=/bin/busybox",
        "for i in $(seq 30); do mkdir -p /tree/$i; for k in $(seq 20); do >/tree/$i/$k; done; done",
    ]
    for name, line in WORKS.items():
        lines += [f"echo WB-GO {name}", line, "echo WB-END"]
    return before + "\n".join(lines) + "\npoweroff -f\n"


def make_guest(directory: Path) -> list[str]:
    """The options that boot the guest, its initramfs being written to `directory`."""
    guest = guests.ensure("cloud")
    here = [name for name in PROGRAMS if shutil.which(name, path="/usr/bin:/bin")]
    files = [str(path) for path in sorted(Path("/usr/lib").glob("python3.*/encodings/*.py"))]
    top = Archive()
    top.file("init", guest_script().encode(), mode=0o755)
    initrd = directory / "work.cpio.gz"
    made = with_programs(guest.images["boot"].read_bytes(), here, files)
    initrd.write_bytes(made + top.to_gzip())
    append = "console=ttyS0 quiet"
    return ["-m", "512", "-kernel", str(guest.kernel), "-initrd", str(initrd), "-append", append]


def measure(rounds: int, say: Callable[[str], None], tools: Sequence[str]) -> list[Timed]:
    """Run the works on each of `tools` ("qemu", "workbench"), alternating.

    Raises `guests.GuestError` if the guest cannot be made or does nothing.
    """
    found: dict[tuple[str, str], Timed] = {}
    with tempfile.TemporaryDirectory(prefix="workbench-bench-") as folder:
        boot = make_guest(Path(folder))
        for n in range(rounds):
            for tool in tools:
                for what, seconds, cpu_s in marks(_command(tool, Path(folder)) + boot):
                    timed = found.setdefault((what, tool), Timed(what, tool))
                    timed.seconds.append(seconds)
                    timed.cpu_seconds.append(cpu_s)
                    say(f"work       {n + 1}/{rounds}  {tool:10} {what:26} {seconds:7.2f} s")
    return list(found.values())


def _command(tool: str, directory: Path) -> list[str]:
    if tool == "qemu":
        return ["qemu-system-x86_64", "-M", "pc", "-accel", "tcg,thread=single", "-cpu", CPU,
                "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"]  # fmt: skip
    trace = str(directory / "work.wbt")
    return [sys.executable, "-m", "workbench", "record", "-q", "-o", trace]


def to_json(times: Sequence[Timed]) -> list[dict[str, object]]:
    """All that was measured."""
    return [asdict(timed) for timed in times]


def to_markdown(times: Sequence[Timed]) -> str:
    """One table: medians, and how ours relates to QEMU's."""
    lines = ["| work | QEMU | Workbench, recording | of QEMU |", "|---|---|---|---|"]
    medians = {(timed.work, timed.tool): median(timed.seconds) for timed in times}
    for work in dict.fromkeys(timed.work for timed in times):
        theirs, ours = medians.get((work, "qemu")), medians.get((work, "workbench"))
        cells = [f"{value:.2f} s" if value else "" for value in (theirs, ours)]
        cells.append(f"{ours / theirs:.2f}" if ours and theirs else "")
        lines.append(f"| {work} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
