"""``python -m bench.screen``: how soon the screen answers, in a real terminal.

The application runs in a pseudo-terminal of 120x40, as a user starts it. Measured on the trace of a
boot with drivers and on one of 50 million accesses, which is made from it: the time to the first
screen, the time from a key to what it changes, at rest and while the machine or a scan of the log
runs beside the screen, with two traces side by side, and the memory that the process needs at most.
A key is answered when the screen shows it: the cursor, a number, a letter; rows of the log that
have to be read may follow. Other work on the machine counts against the screen: `net` is how many
keys took more than 50 ms without what its thread waited for a processor.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import io
import os
import pty
import queue
import re
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import guests
from guests.initramfs import run_option
from workbench.trace import container, tables
from workbench.trace.header import dump_json
from workbench.trace.reader import open_trace

COLUMNS, ROWS = 120, 40
SIZES = ((80, 24), (200, 60), (100, 30), (COLUMNS, ROWS))
ACCESSES = 50_000_000
_UNKNOWN = re.compile(rb"\x1b\[[<=>][0-9;]*[a-zA-Z]")
_FIRST = r"[\d,]{3,} .* (->|<-) 0x"
SCRIPT = """\
dd if=/dev/vda of=/dev/null bs=4k iflag=direct count=8
dd if=/dev/sda of=/dev/null bs=4k iflag=direct count=8
ifconfig eth0 10.0.2.15 up; ping -c 2 10.0.2.2
"""
BUSY_SCRIPT = """\
(while true; do dd if=/dev/vda of=/dev/null bs=4k iflag=direct 2>/dev/null; done) &
echo ready
setsid cttyhack sh
"""
OTHER_SCRIPT = SCRIPT.replace("count=8", "count=9", 1)


class Screen:
    """The application in a terminal; a thread notes when it prints."""

    def __init__(self, *args: str) -> None:
        import pyte

        self.screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self.screen)
        self.started = self.heard = time.perf_counter()
        """When it was started, and when it printed what is on the screen."""
        self._printed: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            variables = {**os.environ, "TERM": "xterm-256color"}
            variables["XDG_CONFIG_HOME"] = variables["XDG_STATE_HOME"] = tempfile.gettempdir()
            variables.pop("PYTHONDONTWRITEBYTECODE", None)
            argv = [sys.executable, "-m", "workbench", "tui", *args]
            os.execve(argv[0], argv, variables)
        self.resize(COLUMNS, ROWS)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def resize(self, columns: int, rows: int) -> None:
        """What a user does at the corner of the window."""
        self.screen.resize(rows, columns)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self.fd, 1 << 16):
                self._printed.put((time.perf_counter(), data))
                if b"\x1b[6n" in data:
                    os.write(self.fd, b"\x1b[1;1R")

    def pump(self, seconds: float) -> bool:
        """Take one piece of what is printed within some time; was there something?"""
        try:
            self.heard, data = self._printed.get(timeout=seconds)
        except queue.Empty:
            return False
        self._stream.feed(_UNKNOWN.sub(b"", data))
        return True

    @property
    def text(self) -> str:
        """What is on it."""
        return "\n".join(self.screen.display)

    def until(self, true: Callable[[], Any], seconds: float = 120) -> float:
        """Wait for something to be seen; gives when it came."""
        end = time.perf_counter() + seconds
        while not true():
            if time.perf_counter() > end:
                raise TimeoutError(f"the screen does not answer:\n{self.text}")
            self.pump(0.05)
        return self.heard

    def see(self, pattern: str, seconds: float = 120) -> float:
        """Wait for a pattern."""
        return self.until(lambda: re.search(pattern, self.text), seconds)

    def quiet(self, seconds: float = 0.15) -> None:
        """Wait until nothing is printed for a while."""
        while self.pump(seconds):
            pass

    def press(self, keys: str) -> None:
        """Type, without waiting."""
        os.write(self.fd, keys.encode())

    def answer(self, keys: str, seen: Callable[[], Any] | None = None) -> float:
        """Seconds from a key to what it changes on the screen (or to what is to be seen)."""
        before = self.screen.display[:]
        changed = seen or (lambda: self.screen.display != before)
        at = time.perf_counter()
        self.press(keys)
        return self.until(changed) - at

    def worked(self) -> tuple[float, float]:
        """Seconds that the screen's thread has computed so far, and has waited for a processor."""
        computed, waited = Path(f"/proc/{self.application}/schedstat").read_text().split()[:2]
        return int(computed) / 1e9, int(waited) / 1e9

    @property
    def application(self) -> int:
        """The process that draws: a child of the one that was started."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return int(children[0]) if children else self.pid

    def peak_bytes(self) -> int:
        """The most memory that it had, and those that it has started."""
        application = self.application
        processes = {str(application)}
        for task in Path(f"/proc/{application}/task").iterdir():
            processes.update((task / "children").read_text().split())
        total = 0
        for process in processes:
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{process}/status").read_text()
                found = re.search(r"VmHWM:\s+(\d+)", status)
                total += int(found[1]) << 10 if found else 0
        return total

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.application, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self._listener.join()
        os.close(self.fd)


@dataclass(slots=True)
class Times:
    """Seconds of one kind of answer."""

    what: str
    seconds: list[float] = field(default_factory=list)
    worked: list[float] = field(default_factory=list)
    """Seconds that the screen's thread computed for each: what another load does not change."""
    waited: list[float] = field(default_factory=list)
    """Seconds that it waited for a processor."""

    def add(self, screen: Screen, keys: str, seen: Callable[[], Any] | None = None) -> None:
        """Press a key."""
        self.measure(screen, lambda: screen.answer(keys, seen))

    def measure(self, screen: Screen, act: Callable[[], float]) -> None:
        """Note how long something takes."""
        computed, waited = screen.worked()
        self.seconds.append(act())
        after = screen.worked()
        self.worked.append(after[0] - computed)
        self.waited.append(after[1] - waited)

    def text(self) -> str:
        """A line of the table."""
        worst = max(self.seconds)
        late = sum(1 for s in self.seconds if s > 0.05)
        net = sum(1 for s, w in zip(self.seconds, self.waited, strict=True) if s - w > 0.05)
        return (f"{self.what:44} {1e3 * median(self.seconds):7.1f} {1e3 * worst:8.1f}"
                f" {len(self.seconds):5} {late:5} {net:5}"
                f" {1e3 * median(self.worked):7.1f} {1e3 * max(self.worked):8.1f}")  # fmt: skip


def options(directory: Path, name: str, script: str) -> list[str]:
    """Options for a recording of Debian's kernel with drivers at work; may raise `GuestError`."""
    guest = guests.ensure("cloud")
    disk = directory / "disk.raw"
    disk.write_bytes(bytes(1 << 20))
    return [
        "--kernel", str(guest.kernel), "--initrd", str(guest.images["drivers"]), "-m", "128",
        "--seed", "1", "--rtc", "2026-01-01", "-q",
        "--append", f"console=ttyS0 {run_option(script)}",
        "--drive", f"file={disk},if=virtio,format=raw", "--drive", f"file={disk},if=ide,format=raw",
        "--nic", "e1000,user", "-o", str(directory / name),
    ]  # fmt: skip


def record(directory: Path, name: str = "boot.wbt", script: str = SCRIPT) -> Path:
    """Record a boot."""
    argv = [sys.executable, "-m", "workbench", "record", *options(directory, name, script)]
    subprocess.run([*argv, "--serial", "none"], check=True, stdin=subprocess.DEVNULL)
    return directory / name


def enlarge(source: Path, target: Path, accesses: int) -> None:
    """Write a trace whose log is that of another again and again, with counts that go on."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    spec = tables.BY_NAME["accesses"]
    with open_trace(source) as trace, target.open("wb") as file:
        pieces = [trace.piece("accesses", n) for n in range(len(trace.pieces("accesses")))]
        whole = trace.icount + 1
        chunks: list[container.ChunkInfo] = []

        def put(kind: bytes, data: bytes, rows: int = 0) -> None:
            offset = file.tell()
            file.write(container.encode_chunk(kind, len(chunks), data, rows=rows))
            size = len(data)
            chunks.append(container.ChunkInfo(kind, len(chunks), 0, rows, size, size, 0, offset))

        file.write(container.encode_prelude())
        for chunk in trace.chunks(container.HEAD, container.BLOB):
            put(chunk.kind, trace.payload(chunk))
        seq = copies = 0
        while seq < accesses:
            for piece in pieces:
                rows = piece.num_rows
                columns = {
                    name: pa.array(range(seq, seq + rows), pa.int64())
                    if name == "seq"
                    else pa.compute.add(column, copies * whole)
                    if name == "icount"
                    else pa.chunked_array([p.dictionary_decode() for p in column.chunks])
                    if pa.types.is_dictionary(column.type)
                    else column
                    for name, column in zip(piece.column_names, piece.columns, strict=True)
                }
                sink = io.BytesIO()
                schema = pa.schema([(c.name, pa.type_for_alias(c.type), False)
                                    for c in spec.columns])  # fmt: skip
                pq.write_table(pa.table(columns, schema=schema), sink, compression="zstd")
                put(spec.chunk, sink.getvalue(), rows)
                seq += rows
                last = int(piece["icount"][rows - 1].as_py()) + copies * whole
                put(container.MARK, dump_json({"icount": last, "events": seq}))
            copies += 1
        mark = {"icount": copies * whole, "events": seq}
        end = trace.end
        assert end is not None
        put(container.END, dump_json({**end.to_json(), **mark}))
        index = file.tell()
        file.write(container.encode_chunk(container.INDEX, len(chunks),
                                          container.encode_index(chunks)))  # fmt: skip
        file.write(container.encode_trailer(index, len(chunks)))


@contextlib.contextmanager
def _open(*args: str) -> Iterator[Screen]:
    screen = Screen(*args)
    try:
        yield screen
    finally:
        screen.close()


def _row(screen: Screen) -> int:
    """Number of the selected row, from the heading of the log, which is in the first lines."""
    for line in screen.screen.display[:12]:
        if found := re.search(r"accesses ([\d,]+)/", line):
            return int(found[1].replace(",", ""))
    return -1


def _scroll(screen: Screen, times: Times, keys: Sequence[str], pause: float) -> None:
    """Press keys that move the selection, while other things may be printed too."""
    for key in keys:
        row = _row(screen)

        def answered(row: int = row) -> bool:
            return _row(screen) != row or "searching" in screen.screen.display[-1]

        times.add(screen, key, answered)
        time.sleep(pause)
        while screen.pump(0.001) or "searching" in screen.screen.display[-1]:
            pass


def _hold(screen: Screen, times: Times, key: str, count: int) -> None:
    """Hold a key down, 30 times a second, and let go: how long does it go on then?"""
    for _ in range(count):
        screen.press(key)
        end = time.perf_counter() + 1 / 30
        while (left := end - time.perf_counter()) > 0:
            screen.pump(left)
    times.add(screen, key)
    at = time.perf_counter()
    screen.quiet(0.1)
    times.seconds[-1] += max(screen.heard - at, 0)


def _reaction(screen: Screen, key: str) -> float:
    """Seconds from a key to what is printed for it; 0 if it changes nothing."""
    at = time.perf_counter()
    screen.press(key)
    return screen.heard - at if screen.pump(0.5) else 0.0


def _resize(screen: Screen, times: Times) -> None:
    for columns, rows in SIZES:

        def resized(columns: int = columns, rows: int = rows) -> float:
            at = time.perf_counter()
            screen.resize(columns, rows)
            return screen.until(lambda: "? help" in screen.screen.display[rows - 1]) - at

        screen.quiet()
        times.measure(screen, resized)


DOWN, UP, PAGE_DOWN, PAGE_UP = "\x1b[B", "\x1b[A", "\x1b[6~", "\x1b[5~"
END, HOME = "\x1b[F", "\x1b[H"
WHEEL_DOWN, WHEEL_UP = "\x1b[<65;30;12M", "\x1b[<64;30;12M"


def first_screens(path: str, runs: int) -> Times:
    """From the start of the process to rows of the log."""
    times = Times("first screen")
    for _ in range(runs):
        with _open(path) as screen:
            times.seconds.append(screen.see(_FIRST) - screen.started)
            computed, waited = screen.worked()
            times.worked.append(computed)
            times.waited.append(waited)
    return times


def keys_of_boot(path: str) -> list[Times]:
    """Keys on the trace of the boot."""
    early, rest, layouts, moving, busy, typing = (
        Times("boot: keys from the first screen on"), Times("boot: log, at rest"),
        Times("boot: layouts, inspectors, help"), Times("boot: steps, shown by the log"),
        Times("boot: log, while the machine runs"), Times("boot: typing a filter"),
    )  # fmt: skip
    wheel, held, resized, commands, panes = (
        Times("boot: mouse wheel"), Times("boot: a page down held down, let go"),
        Times("boot: another size of the window"), Times("boot: typing commands"),
        Times("boot: in code, memory, stack, console"),
    )  # fmt: skip
    with _open(path) as screen:
        screen.see(_FIRST)
        _scroll(screen, early, [DOWN, DOWN, PAGE_DOWN, PAGE_DOWN, UP, DOWN] * 6, 0.03)
        screen.see(r"rbx[ *]\w{16}")
        screen.quiet(3.0)
        _scroll(screen, rest, [DOWN, PAGE_DOWN, UP, PAGE_DOWN, END, HOME] * 8, 0.1)
        for key in "2345689261pppPP??t\x1b" * 2:
            layouts.add(screen, key)
            screen.quiet()
        for key in ("aaaaAAssssSS" + "nnNN") * 2:
            position = _position(screen)
            moving.add(screen, key, lambda p=position: _position(screen) != p)  # type: ignore[misc]
            screen.quiet()
        for key in "/device=com1":
            typing.add(screen, key)
            screen.quiet()
        screen.press("\x1b")
        screen.quiet()
        for line in (":br vfs_re", ":as virtq", ":inspect i", ":go request:"):
            for key in line:
                commands.add(screen, key)
                screen.quiet()
            screen.press("\x1b")
            screen.quiet()
        _scroll(screen, wheel, [WHEEL_DOWN, WHEEL_DOWN, WHEEL_UP] * 10, 0.03)
        for key in (PAGE_DOWN, PAGE_UP, DOWN) * 2:
            _hold(screen, held, key, 40)
        _resize(screen, resized)
        for layout in "245":
            screen.press(layout)
            screen.quiet()
            for _ in range(4):
                for key in ("z", DOWN, "z"):
                    screen.quiet()
                    panes.measure(screen, lambda key=key: _reaction(screen, key))  # type: ignore[misc]
                screen.press("\t")
                screen.quiet()
        screen.press("1")
        screen.quiet()
        screen.press(":go 95%\r")
        screen.see("seek")
        while "seek" in screen.text and len(busy.seconds) < 60:
            _scroll(screen, busy, [DOWN, PAGE_DOWN, UP], 0.03)
    return [early, rest, layouts, moving, typing, commands, wheel, held, resized, panes, busy]


def keys_of_two(path: str, other: str) -> list[Times]:
    """Keys with two traces side by side."""
    moving, states = Times("two: differences"), Times("two: log")
    with _open(path, other) as screen:
        screen.see(r"[\d,]+ differences?; d goes")
        screen.see(r"rbx +\w{16}")
        screen.quiet(2.0)
        for key in "dddDDd":
            moving.add(screen, key)
            screen.quiet()
        for key in [DOWN, PAGE_DOWN, UP, END, PAGE_UP, HOME] * 4:
            screen.quiet()
            states.measure(screen, lambda key=key: _reaction(screen, key))  # type: ignore[misc]
    return [moving, states]


def _position(screen: Screen) -> str:
    found = re.search(r"([\d,]+)  \? help", screen.text)
    return found[1] if found else ""


def keys_of_long(path: str) -> tuple[list[Times], int]:
    """Keys on a long log, from the first screen on; and the most memory."""
    early, jumps, filtered, later, shares = (
        Times("long: log, while it is being read"), Times("long: ends, while it is being read"),
        Times("long: log with a filter, being scanned"), Times("long: log, afterwards"),
        Times("long: to a percentage"),
    )  # fmt: skip
    with _open(path) as screen:
        screen.see(_FIRST)
        _scroll(screen, early, [DOWN, PAGE_DOWN, PAGE_DOWN, UP] * 20, 0.02)
        _scroll(screen, jumps, [END, PAGE_UP, HOME, PAGE_DOWN] * 6, 0.02)
        screen.press("/device=pit and write\r")
        screen.see(r"\[device=pit")
        _scroll(screen, filtered, [DOWN, PAGE_DOWN, DOWN, UP] * 5, 0.02)
        screen.see("accesses match", 600)
        screen.press("\x1b")
        screen.see("all accesses are shown")
        screen.quiet(2.0)
        _scroll(screen, later, [DOWN, PAGE_DOWN, END, PAGE_UP, HOME, PAGE_DOWN] * 6, 0.05)
        peak_bytes = screen.peak_bytes()  # before the machine is sent about, which keeps states
        for share in (37, 82, 11, 64, 50, 93):
            screen.press(f":go {share}%")
            screen.quiet()
            shares.add(screen, "\r", lambda share=share: f" {share}.00 %" in screen.text)  # type: ignore[misc]
            screen.press("\x1b")  # the machine would be on its way for hours
            screen.quiet()
        return [early, jumps, filtered, later, shares], peak_bytes


def keys_of_recording(directory: Path) -> list[Times]:
    """Keys while a guest that works with its disk is being recorded."""
    first, log, typing, busy, paused, past, on = (
        Times("first screen of a recording"), Times("recording: layouts, a boot"),
        Times("recording: typing, until the guest echoes"),
        Times("recording: layouts, disk at work"),
        Times("recording: paused, log"), Times("recording: paused, steps in the past"),
        Times("recording: going on, pausing"),
    )  # fmt: skip

    def panes() -> list[str]:
        return re.findall(r"─ (\w+)", screen.text)

    def switch(times: Times, count: int) -> None:
        for key in ["2", "4", "5", "1", "z", "z", "?", "?"] * count:
            before = panes()
            times.add(screen, key, lambda before=before: panes() != before)  # type: ignore[misc]
            time.sleep(0.05)
            screen.quiet(0)

    with _open("--record", *options(directory, "live.wbt", BUSY_SCRIPT)) as screen:
        first.measure(screen, lambda: screen.see("● recording") - screen.started)
        switch(log, 4)
        screen.press("5")
        screen.see("ready")
        screen.see("/ # ")
        screen.press("e")
        screen.see("the keys go to the guest")
        for number, key in enumerate("echo some words, one after the other", 1):
            typed = "echo some words, one after the other"[:number].rstrip()
            if key != " ":
                typing.add(screen, key, lambda typed=typed: f"# {typed}" in screen.text)  # type: ignore[misc]
            else:
                screen.press(key)
            time.sleep(0.02)
        screen.press("\r\x1d1")
        screen.see("● recording")
        switch(busy, 4)
        for _ in range(4):
            on.add(screen, "\x1b", lambda: "pausing" in screen.text or "paused" in screen.text)
            screen.see("paused")
            screen.quiet()
            _scroll(screen, paused, [UP, PAGE_UP, DOWN, HOME, END, UP], 0.05)
            for key in "AAaSs":
                position = _position(screen)
                past.add(screen, key, lambda p=position: _position(screen) != p)  # type: ignore[misc]
                screen.quiet()
            on.add(screen, "c", lambda: re.search("running|recording", screen.screen.display[-1]))
            screen.see("● recording")
            time.sleep(1)
            screen.quiet(0)
    return [first, log, typing, busy, on, paused, past]


def main() -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.screen", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="starts (default: 5)")
    parser.add_argument("--boot", help="a trace of a boot (default: one is recorded)")
    parser.add_argument("--other", help="another one, beside it (default: one is recorded)")
    parser.add_argument("--long", help="a trace with a long log (default: one is made)")
    parser.add_argument("--accesses", type=int, default=ACCESSES, help="of the long one")
    parser.add_argument("--quick", action="store_true", help="only the boot's trace")
    args = parser.parse_args()
    sys.setswitchinterval(1e-4)
    with tempfile.TemporaryDirectory(prefix="workbench-bench-") as name:
        boot = args.boot or str(record(Path(name)))
        other = args.other or str(record(Path(name), "other.wbt", OTHER_SCRIPT))
        found = [first_screens(boot, args.runs), *keys_of_boot(boot)]
        found += keys_of_two(boot, other)
        found += keys_of_recording(Path(name))
        peak = 0
        if not args.quick:
            long = args.long
            if not long:
                long = str(Path(name) / "long.wbt")
                enlarge(Path(boot), Path(long), args.accesses)
            first = first_screens(long, args.runs)
            first.what = f"first screen, {args.accesses:,} accesses"
            times, peak = keys_of_long(long)
            found += [first, *times]
    print(
        f"{'ms':44} {'median':>7} {'longest':>8} {'of':>5} {'>50':>5} {'net':>5}"
        f" {'thread':>7} {'longest':>8}"
    )
    for times_ in found:
        print(times_.text())
    if peak:
        print(f"most memory, {args.accesses:,} accesses: {peak / 1e6:,.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
