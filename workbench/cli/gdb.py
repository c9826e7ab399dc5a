"""`workbench gdb`: debug a recording, forward and backward."""

from __future__ import annotations

import argparse
import contextlib
import gc
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from workbench.cli import engine, text, travel
from workbench.errors import EXIT_OK, InputFileError, UsageError

if TYPE_CHECKING:
    import socket

    from workbench.gdbstub.server import Server
    from workbench.trace.session import Recording
    from workbench.trace.timeline import Timeline

EXAMPLES = """\
examples:
  workbench gdb boot.wbt
  workbench gdb boot.wbt --symbols vmlinux
  workbench gdb boot.wbt --listen :1234      # then: gdb -ex 'target remote :1234'

in gdb: continue, stepi, reverse-continue, reverse-stepi, hbreak, watch; monitor help lists more.
"""
_SCRIPT = """\
define hookpost-monitor
maintenance flush register-cache
end
"""


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "gdb", help="debug a trace with gdb, in both directions", description=__doc__,
        epilog=EXAMPLES,
    )  # fmt: skip
    add = parser.add_argument
    add("trace", metavar="TRACE", help="a trace (.wbt)")
    add("--listen", metavar="WHERE",
        help="serve gdb at :PORT, HOST:PORT or unix:PATH instead of starting it")  # fmt: skip
    add("--symbols", metavar="FILE|none",
        help="symbol file for gdb (default: the guest kernel's own symbols)")  # fmt: skip
    add("--gdb", metavar="PROGRAM", default="gdb", help="the debugger (default: gdb)")
    add("--at", metavar="POSITION",
        help="start here: a count, 50%%, end, access:N, request:ide0/17, bookmark:NAME"
        " (default: start)")  # fmt: skip
    add("--memory-budget", metavar="SIZE", default=text.CHECKPOINT_BUDGET,
        help="memory for checkpoints (default: %(default)s)")  # fmt: skip
    add("--architecture", choices=("auto", "i386:x86-64", "i386", "i8086"), default="auto",
        help="how gdb sees the processor (default: auto, by its mode)")  # fmt: skip
    parser.usage = "workbench gdb [OPTIONS] TRACE [-- ARGUMENTS FOR GDB]"
    parser.set_defaults(run=run, gdb_args=[])
    plain = parser.parse_known_args

    def parse(args: Any, namespace: Any) -> Any:
        """What stands behind `--` is gdb's, wherever the options are."""
        given = list(args)
        place = given.index("--") if "--" in given else len(given)
        found, unknown = plain(given[:place], namespace)
        found.gdb_args = given[place + 1 :]
        return found, unknown

    parser.parse_known_args = parse


def run(args: argparse.Namespace) -> int:
    """Serve the trace to gdb."""
    from workbench import gdbstub
    from workbench.cli.text import complain
    from workbench.gdbstub.server import Server, listen
    from workbench.gdbstub.stub import Stub
    from workbench.gdbstub.target import ReplayTarget
    from workbench.trace import position
    from workbench.trace.bookmarks import Bookmarks
    from workbench.trace.header import other_maker
    from workbench.trace.reader import open_trace
    from workbench.trace.timeline import Timeline

    program = shutil.which(args.gdb)
    if args.listen is None and program is None:
        raise InputFileError(f"the debugger {args.gdb} is not installed; see --gdb and --listen")
    budget_bytes = text.parse_size(args.memory_budget)
    kernel = None if args.symbols in (None, "none") else Path(args.symbols)
    if kernel is not None and not kernel.is_file():
        raise InputFileError(f"{kernel}: there is no such file of symbols")
    with (
        open_trace(args.trace) as trace,
        tempfile.TemporaryDirectory(prefix="workbench-") as folder,
    ):
        start = position.parse(args.at or "start", trace, Bookmarks(args.trace).places)
        where = f"unix:{Path(folder) / 'gdb'}" if args.listen is None else args.listen
        listener = listen(where)
        engine.prepare()
        timeline = Timeline(trace, budget_bytes=budget_bytes)
        gc.freeze()  # what is there stays: no collection has to look through it while gdb waits
        symbols = ""
        if args.symbols != "none" and args.listen is None:
            symbols = _kernel_symbols(timeline, Path(folder), kernel)
        travel.seek(timeline, start)
        if timeline.kept.problem:
            complain(timeline.kept.problem)
        other = other_maker(trace.header)
        if other:
            complain(f"{other}: what happens here may not be what was recorded")
        stub = Stub(ReplayTarget(timeline), args.architecture, kernel)
        with Server(stub, listener) as server:
            if args.listen is not None:
                complain(f"gdb may connect: target remote {server.address}")
                server.serve()
                return EXIT_OK
            assert program is not None
            script = Path(folder) / "gdbinit"
            commands = Path(gdbstub.__file__).with_name("gdb_commands.py")
            script.write_text(f"{_SCRIPT}source {commands}\n{symbols}")
            return _with_gdb([program, "-q", "-x", str(script)], args.gdb_args, server)


@contextlib.contextmanager
def listening(where: str | None, wait: bool, budget: str | None) -> Iterator[socket.socket | None]:
    """Open the socket of `record --gdb`, before a trace is overwritten."""
    if where is None:
        if wait or budget is not None:
            raise UsageError(f"expected --gdb with {'--wait' if wait else '--memory-budget'}")
        yield None
        return
    from workbench.gdbstub.server import leave, listen

    listener = listen(where)
    try:
        yield listener
    finally:
        leave(listener)


@contextlib.contextmanager
def held(
    recording: Recording, listener: socket.socket | None, wait: bool, budget_bytes: int
) -> Iterator[None]:
    """Let gdb connect to a recording while it runs, if there is a socket."""
    if listener is None:
        yield
        return
    from workbench.cli.text import complain
    from workbench.gdbstub.live import LiveDebugger
    from workbench.gdbstub.server import Server
    from workbench.gdbstub.stub import Stub
    from workbench.gdbstub.target import ReplayTarget
    from workbench.trace.live import LiveTimeline

    timeline = LiveTimeline(recording, budget_bytes=budget_bytes)
    with Server(Stub(ReplayTarget(timeline)), listener) as server:
        complain(f"gdb may connect: target remote {server.address}")
        recording.driver = LiveDebugger(server, timeline, wait).run
        yield


def _kernel_symbols(timeline: Timeline, folder: Path, kernel: Path | None = None) -> str:
    """Go to the end, which leaves checkpoints on the way, and take the symbols from memory, those
    of the kernel from its file if the user has one; gives lines for gdb's script.
    """
    from workbench.cli.text import complain
    from workbench.gdbstub.symbolfiles import SymbolFiles

    travel.seek(timeline, timeline.end_icount, "replaying once")
    found = SymbolFiles(kernel).of(timeline.machine)
    if kernel is not None and not (found and found[0].path):
        if found:
            complain(f"{kernel} is not of the guest's kernel, or has no symbols: it is not moved")
        return f"python gdb.execute('symbol-file ' + quoted({str(kernel)!r}))\n"
    if not found:
        return ""
    names = ""
    rows: list[dict[str, Any]] = []
    for file in found:
        if file.path:
            names += f" {file.name}"
        else:
            path = folder / f"{len(rows)}-{file.name}"  # a guest may call a module anything
            path.write_bytes(file.data)
            file.path = str(path)
        rows.append({**asdict(file), "data": "", "bytes": len(file.data)})
    complain(f"symbols found in guest memory: the kernel and {len(found) - 1} modules")
    if names:
        complain(f"debug information is installed for{names}")
    return f"python GUEST.update({rows!r})\n"


def _with_gdb(start: list[str], more: list[str], server: Server) -> int:
    command = list(start)
    command += ["-ex", f"target remote {server.address}"]
    command += more
    saved = signal.signal(signal.SIGINT, _leave_it_to_gdb)
    try:
        with subprocess.Popen(command) as process:
            while process.poll() is None and not server.stub.killed:
                server.work(0.2)
            return max(process.wait(), 0)
    finally:
        signal.signal(signal.SIGINT, saved)


def _leave_it_to_gdb(number: int, frame: FrameType | None) -> None:
    """Ctrl-C is gdb's, which tells the stub; a handler, unlike SIG_IGN, is not inherited."""
