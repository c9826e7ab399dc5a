"""A debugger's waiting times in a recorded boot, beside QEMU's stub under `-icount rr=replay`.

Ours is `workbench gdb --listen` after one run to the end, as `workbench gdb` itself makes it to
find the symbols; QEMU has the snapshot at the start that its reverse execution needs. Both are
driven over the remote protocol. QEMU goes anywhere by replaying from its snapshot, so that few
places are asked of it; its conditions are gdb's work, which is modelled as stop, registers, step,
go on.
"""

from __future__ import annotations

import contextlib
import gc
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.gdb_client import Gone, Qmp, Remote
from bench.tools import TOOLS
from bench.work import Work, prepare
from workbench.trace.guest import Guest, build_machine
from workbench.trace.reader import open_trace
from workbench.trace.replayer import inputs_of
from workbench.trace.timeline import Timeline

NAMES = ("gdb",)
MILLION = 1_000_000
CONDITION = bytes.fromhex("260000 25 1122334455667788 13 27")  # reg 0, const64, equal, end
QEMU_LIMIT_S = 240.0
QEMU_HITS_S = 20.0
SEEK, STEP, STEP_AGAIN = "seek to an access", "reverse-stepi after it", "the next reverse-stepi"
OPENED = "seek to an access, trace opened with checkpoints in it"
TO_END = "run to the end"
BACK = "reverse-continue over the whole boot"
HITS = "a million hits of a false condition"


@dataclass(slots=True)
class Latency:
    """Seconds that one thing took, each time; of the processor too, where that is known."""

    what: str
    tool: str
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    note: str = ""


@dataclass(slots=True)
class Latencies:
    """All that was measured."""

    found: list[Latency] = field(default_factory=list)
    replay_s: list[float] = field(default_factory=list)
    kept_s: list[float] = field(default_factory=list)
    """Processor time of a replay, plain and while a timeline keeps checkpoints, in turn."""

    def add(
        self,
        what: str,
        tool: str,
        seconds: float | None,
        note: str = "",
        cpu_seconds: float | None = None,
    ) -> None:
        """Take up one more; None is one that failed."""
        for latency in self.found:
            if (latency.what, latency.tool) == (what, tool):
                break
        else:
            latency = Latency(what, tool)
            self.found.append(latency)
        if seconds is not None:
            latency.seconds.append(seconds)
        if cpu_seconds is not None:
            latency.cpu_seconds.append(cpu_seconds)
        latency.note = note or latency.note


def measure(
    rounds: int, say: Callable[[str], None], quick: bool = False, with_qemu: bool = True
) -> Latencies:
    """Record the boot with both and measure; raises `guests.GuestError` and `Gone`."""
    out = Latencies()
    with tempfile.TemporaryDirectory(prefix="workbench-bench-") as name:
        directory = Path(name)
        work = prepare("boot", directory, quick=quick)
        record = next(tool for tool in TOOLS if tool.name == "workbench record")
        command = record.command(work, directory, directory / "console")
        subprocess.run(command, check=True, capture_output=True)
        trace = directory / "workbench.wbt"
        for _ in range(rounds):
            for how, seconds in (("plain", out.replay_s), ("kept", out.kept_s)):
                seconds.append(_replay_alone(trace, how))
            say(f"gdb: replay {out.replay_s[-1]:.2f} s, with checkpoints {out.kept_s[-1]:.2f} s")
        for n in range(rounds):
            _ours(trace, directory, out, 20 if quick else 200, seed=n)
            say(f"gdb: workbench, round {n + 1}/{rounds}")
        _ours_opened(trace, directory, out, 20 if quick else 200)
        if with_qemu:
            _qemu(work, directory, out, 2 if quick else 5, say)
    return out


# Workbench.


def replay(trace_path: str, how: str) -> float:
    """Processor time of one replay to the end: "plain", or with the checkpoints of a timeline."""
    with open_trace(trace_path) as trace:
        if how == "plain":
            machine = build_machine(trace.header.machine, Guest.from_trace(trace))
            machine.inputs.replay([item for _, item in inputs_of(trace)])
            gc.freeze()
            started = time.process_time()
            machine.run(trace.icount + 1)
        else:
            timeline = Timeline(trace)
            gc.freeze()  # as `workbench gdb` does
            started = time.process_time()
            timeline.go()
        return time.process_time() - started


def _replay_alone(trace: Path, how: str) -> float:
    command = [sys.executable, "-m", "bench.gdb", how, str(trace)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


@contextlib.contextmanager
def _stub(trace: Path, directory: Path) -> Iterator[tuple[Remote, Path]]:
    """Our stub on a trace, and where Linux says how long its process ran."""
    path = directory / "workbench.sock"
    command = [sys.executable, "-m", "workbench", "gdb", "--listen", f"unix:{path}", str(trace)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            remote = Remote(path)
            yield remote, Path(f"/proc/{process.pid}/schedstat")
            remote.send("k")
            remote.close()
            process.wait(20)
        finally:
            process.kill()


def _ran_s(schedstat: Path) -> float:
    """Processor time of a process' first thread (proc(5): nanoseconds, the first number)."""
    return int(schedstat.read_text().split()[0]) / 1e9


def _timed(action: Callable[[], str]) -> tuple[float, str]:
    started = time.perf_counter()
    answer = action()
    return time.perf_counter() - started, answer


def _ours(trace: Path, directory: Path, out: Latencies, places: int, seed: int) -> None:
    rng = random.Random(seed)
    with open_trace(trace) as opened:
        count, end = opened.rows("accesses"), opened.icount
    with _stub(trace, directory) as (remote, schedstat):

        def timed(what: str, action: Callable[[], str], expected: str) -> None:
            before = _ran_s(schedstat)
            seconds, answer = _timed(action)
            if not answer.startswith(expected):
                raise Gone(f"workbench, {what}: expected {expected}, not {answer}")
            out.add(what, "workbench", seconds, cpu_seconds=_ran_s(schedstat) - before)

        timed(TO_END, lambda: remote.ask("c"), "T05replaylog:end")
        for _ in range(places):
            n = rng.randrange(count)
            timed(SEEK, lambda n=n: remote.monitor(f"seek access {n}"), "")  # type: ignore[misc]
            timed(STEP, lambda: remote.ask("bs"), "T05")
            timed(STEP_AGAIN, lambda: remote.ask("bs"), "T05")
        for _ in range(places):
            icount = rng.randrange(end)
            remote.monitor(f"seek {icount}")
            timed(STEP, lambda: remote.ask("bs"), "T05")
            timed(STEP_AGAIN, lambda: remote.ask("bs"), "T05")
        register = _early_register(trace)
        answer = remote.monitor(f"watch {register}")
        remote.monitor("seek end")
        timed(BACK, lambda: remote.ask("bc"), "T05")
        out.add(BACK, "workbench", None, f"to an access of {register}")
        remote.monitor("unwatch")
        if "no register" in answer:
            raise Gone(f"workbench: {answer}")
        remote.monitor("seek start")
        started = _ran_s(schedstat)
        remote.ask("c")
        plain = _ran_s(schedstat) - started
        pc, hits = _busy_place(trace, seed)
        remote.monitor("seek start")
        remote.ask(f"Z1,{pc:x},1;X{len(CONDITION):x},{CONDITION.hex()}")
        started = _ran_s(schedstat)
        took, answer = _timed(lambda: remote.ask("c"))
        if not answer.startswith("T05replaylog:end"):
            raise Gone(f"workbench, a false condition: {answer}")
        ran = _ran_s(schedstat) - started
        # What it adds: a difference of two runs is taken in processor time, which is less noisy.
        added = max(ran - plain, 0.0) / hits * MILLION
        out.add(HITS, "workbench", added * took / ran, f"{hits:,} hits", added)


def _ours_opened(trace: Path, directory: Path, out: Latencies, places: int) -> None:
    """A debugger that goes places at once, in a trace that holds checkpoints."""
    path = directory / "checkpoints.wbt"
    shutil.copy(trace, path)
    command = [sys.executable, "-m", "workbench", "checkpoint", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    rng = random.Random(places)
    with open_trace(path) as opened:
        count = opened.rows("accesses")
    with _stub(path, directory) as (remote, schedstat):
        for _ in range(places):
            n, before = rng.randrange(count), _ran_s(schedstat)
            seconds, _ = _timed(lambda n=n: remote.monitor(f"seek access {n}"))  # type: ignore[misc]
            out.add(OPENED, "workbench", seconds, cpu_seconds=_ran_s(schedstat) - before)


def _early_register(trace: Path) -> str:
    """The register whose last access is the first: the farthest way back."""
    command = [sys.executable, "-m", "workbench", "log", "--json", str(trace)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    last: dict[str, int] = {}
    for line in text.splitlines():
        row = json.loads(line)
        if row["device"] and row["register"] and row["kind"] in ("pio", "mmio"):
            last[f"{row['device']}.{row['register']}"] = row["icount"]
    return min(last, key=lambda name: last[name])


def _busy_place(trace: Path, seed: int) -> tuple[int, int]:
    """An instruction that runs one to a few million times: its address, how often exactly."""
    rng = random.Random(seed)
    with open_trace(trace) as opened:
        places = sorted(rng.randrange(opened.icount) for _ in range(1000))
        machine = Timeline(opened).machine
        start = machine.save()
        pcs = []
        for place in places:
            machine.run(place)
            pcs.append(machine.cpu.get("rip"))
        once = [pc for pc in pcs if pcs.count(pc) == 1]
        for pc in rng.sample(once, len(once)):
            machine.restore(start)
            machine.cpu.set_breakpoints([pc])
            machine.cpu.set("bp_log", 1)
            machine.cpu.set("bp_hits", 0)
            machine.run(opened.icount)
            hits = machine.cpu.get("bp_hits")
            if MILLION <= hits <= 8 * MILLION:
                return pc, hits
    raise Gone("no instruction runs a million times")


# QEMU.


def _qemu_command(work: Work, directory: Path, mode: str, *more: str) -> list[str]:
    command = [
        *("qemu-system-x86_64", "-M", "pc", "-m", str(work.ram_mib), "-nodefaults"),
        *("-display", "none", "-no-reboot", "-serial", f"file:{directory / 'qemu-console'}"),
        *("-kernel", str(work.kernel), "-initrd", str(work.initrd), "-append", work.append),
        *("-drive", f"file={directory / 'rr.qcow2'},if=none,id=rr"),
        *("-icount", f"shift=0,rr={mode},rrfile={directory / 'rr.bin'},rrsnapshot=init"),
    ]
    return [*command, *more]


class _Qemu:
    """A replay in QEMU, stopped at its beginning."""

    def __init__(self, work: Work, directory: Path) -> None:
        gdb, qmp = directory / "qemu-gdb.sock", directory / "qemu-qmp.sock"
        for path in (gdb, qmp):
            path.unlink(missing_ok=True)
        more = ("-gdb", f"unix:{gdb},server=on,wait=off", "-qmp", f"unix:{qmp},server=on,wait=off")
        command = _qemu_command(work, directory, "replay", *more, "-S")
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        try:
            self.qmp = Qmp(qmp, QEMU_LIMIT_S)
            self.remote = Remote(gdb, QEMU_LIMIT_S)
        except Gone:
            self.close()
            raise

    def seek(self, icount: int) -> None:
        """`replay_seek`, until it is there."""
        self.qmp.run("replay-seek", icount=icount)
        self.qmp.wait_for("STOP")
        self.remote.receive()

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


def _qemu(
    work: Work, directory: Path, out: Latencies, places: int, say: Callable[[str], None]
) -> None:
    command = ["qemu-img", "create", "-q", "-f", "qcow2", str(directory / "rr.qcow2"), "1G"]
    subprocess.run(command, check=True)
    command = _qemu_command(work, directory, "record")
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=600)
    end, breakpoint_pc = _qemu_to_end(work, directory, out)
    say("gdb: qemu replayed to the end")
    rng = random.Random(7)
    for n in range(places):
        icount = int(end * (n + rng.random()) / places)
        with _qemu_part(work, directory, out, STEP) as qemu:
            seconds, _ = _timed(lambda i=icount, q=qemu: q.seek(i) or "")  # type: ignore[misc]
            out.add(SEEK, "qemu", seconds, "to an instruction")
            seconds, _ = _timed(lambda q=qemu: q.remote.ask("bs"))  # type: ignore[misc]
            out.add(STEP, "qemu", seconds)
        say(f"gdb: qemu, place {n + 1}/{places}")
    with _qemu_part(work, directory, out, BACK) as qemu:
        qemu.seek(end - 10_000)
        qemu.remote.ask(f"Z1,{breakpoint_pc:x},1")
        seconds, _ = _timed(lambda: qemu.remote.ask("bc"))
        out.add(BACK, "qemu", seconds, "to a breakpoint early in it")
    with _qemu_part(work, directory, out, HITS) as qemu:
        qemu.seek(int(end * 0.6))
        out.add(HITS, "qemu", _qemu_hits(qemu.remote), "extrapolated")


@contextlib.contextmanager
def _qemu_part(work: Work, directory: Path, out: Latencies, what: str) -> Iterator[_Qemu]:
    """A fresh QEMU; what fails or takes too long is a note in the table."""
    qemu = _Qemu(work, directory)
    try:
        yield qemu
    except Gone:
        out.add(what, "qemu", None, f"once none in {QEMU_LIMIT_S:.0f} s")
    finally:
        qemu.close()


def _qemu_to_end(work: Work, directory: Path, out: Latencies) -> tuple[int, int]:
    """Replay once; instructions in all, and an address that is hit early."""
    qemu = _Qemu(work, directory)
    try:
        qemu.seek(30 * MILLION)
        pc = qemu.remote.pc()
        started, end = time.perf_counter(), 0
        qemu.remote.send("c")
        with contextlib.suppress(Gone):  # it quits at the end
            while True:
                end = max(end, qemu.qmp.icount())
                time.sleep(0.05)
        out.add(TO_END, "qemu", time.perf_counter() - started)
        return end, pc
    finally:
        qemu.close()


def _qemu_hits(remote: Remote) -> float | None:
    """Seconds for a million hits, from those of some seconds."""
    point = f"1,{remote.pc():x},1"
    remote.ask("Z" + point)
    started, hits = time.perf_counter(), 0
    while time.perf_counter() - started < QEMU_HITS_S:
        remote.ask("z" + point)
        remote.ask("s")
        remote.ask("Z" + point)
        remote.ask("c", QEMU_LIMIT_S)
        remote.ask("g")
        hits += 1
    return (time.perf_counter() - started) / hits * MILLION


# Results.


def to_json(found: Latencies) -> dict[str, object]:
    """All that was measured."""
    return {
        "latencies": [
            {
                "what": x.what,
                "tool": x.tool,
                "seconds": x.seconds,
                "cpu_seconds": x.cpu_seconds,
                "note": x.note,
            }
            for x in found.found
        ],
        "replay_cpu_s": found.replay_s,
        "replay_with_checkpoints_cpu_s": found.kept_s,
    }


def to_markdown(found: Latencies) -> str:
    """A table, and what checkpoints cost."""
    lines = [
        "| | Workbench: median | range | processor time: median, most | QEMU: median | range"
        " | QEMU / Workbench |",
        "|---|---|---|---|---|---|---|",
    ]
    by = {(x.what, x.tool): x for x in found.found}
    for what in dict.fromkeys(x.what for x in found.found):
        ours, theirs = by.get((what, "workbench")), by.get((what, "qemu"))
        cells = [f"{what}{_note(ours)}", *_cells(ours), _cpu(ours), *_cells(theirs)]
        if theirs is not None and theirs.note:
            cells[5] += f" ({theirs.note})"
        both = ours and theirs and ours.seconds and theirs.seconds
        ratio = f"{median(theirs.seconds) / median(ours.seconds):,.0f}" if both else ""  # type: ignore[union-attr]
        lines.append("| " + " | ".join([*cells, ratio]) + " |")
    if found.replay_s and found.kept_s:
        plain, kept = median(found.replay_s), median(found.kept_s)
        ratios = [b / a for a, b in zip(found.replay_s, found.kept_s, strict=True)]
        lines += [
            "",
            f"A replay without checkpoints takes {plain:.2f} s of processor time, with those of a"
            f" timeline {kept:.2f} s: {median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f}).",
        ]
        back = by.get((BACK, "workbench"))
        if back is not None and back.cpu_seconds:
            share = median(back.cpu_seconds) / plain
            lines.append(f"`reverse-continue` over it takes {share:.2f} times that of a replay.")
    return "\n".join(lines) + "\n"


def _note(latency: Latency | None) -> str:
    return f" ({latency.note})" if latency is not None and latency.note else ""


def _cells(latency: Latency | None) -> list[str]:
    if latency is None:
        return ["", ""]
    if not latency.seconds:
        return ["none", ""]
    low, high = min(latency.seconds), max(latency.seconds)
    return [_time(median(latency.seconds)), f"{_time(low)} to {_time(high)}"]


def _cpu(latency: Latency | None) -> str:
    if latency is None or not latency.cpu_seconds:
        return ""
    return f"{_time(median(latency.cpu_seconds))}, {_time(max(latency.cpu_seconds))}"


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:,.2f} s"


if __name__ == "__main__":
    print(replay(sys.argv[2], sys.argv[1]))
