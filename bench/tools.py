"""The programs that are measured, as command lines.

QEMU runs as its users run it for this purpose: the `pc` machine without default devices, plain, and
with its own record and replay, which need ``-icount``.
"""

import http.server
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.work import Work
from workbench.trace.reader import open_trace


@dataclass(frozen=True, slots=True)
class Tool:
    """One way to run a guest.

    `command` takes the work, a directory that is kept during a round, and the file for the console.
    `trace` names what a recorder leaves in that directory.
    """

    name: str
    command: Callable[[Work, Path, Path], list[str]]
    trace: str | None = None
    needs: str | None = None  # the tool whose trace is replayed
    own_status: bool = False  # exits with 0 when all went well, not with the guest's status


def _qemu(work: Work, console: Path, *options: str) -> list[str]:
    command = [
        "qemu-system-x86_64",
        *("-M", "pc", "-m", str(work.ram_mib), "-nodefaults", "-display", "none"),
        *("-no-reboot", "-serial", f"file:{console}", "-kernel", str(work.kernel)),
        *("-device", "isa-debug-exit,iobase=0xf4"),
        *options,
    ]
    if work.initrd:
        command += ["-initrd", str(work.initrd)]
    if work.append:
        command += ["-append", work.append]
    return command


def _qemu_rr(mode: str) -> Callable[[Work, Path, Path], list[str]]:
    def command(work: Work, directory: Path, console: Path) -> list[str]:
        log = directory / "qemu.rr"
        return _qemu(work, console, "-icount", f"shift=0,rr={mode},rrfile={log}")

    return command


def _workbench_record(work: Work, directory: Path, console: Path) -> list[str]:
    command = [
        *(sys.executable, "-m", "workbench", "record", "--kernel", str(work.kernel)),
        *("-m", str(work.ram_mib), "--serial", f"file:{console}"),
        *("-o", str(directory / "workbench.wbt")),
    ]
    if work.initrd:
        command += ["--initrd", str(work.initrd)]
    if work.append:
        command += ["--append", work.append]
    if work.exit_status:
        command.append("--debug-exit")
    return command


def _workbench_replay(work: Work, directory: Path, console: Path) -> list[str]:
    trace = directory / "workbench.wbt"
    return [sys.executable, "-m", "workbench", "replay", "--serial", f"file:{console}", str(trace)]


TOOLS = (
    Tool("qemu", lambda work, _, console: _qemu(work, console)),
    Tool("qemu rr=record", _qemu_rr("record"), trace="qemu.rr"),
    Tool("qemu rr=replay", _qemu_rr("replay"), needs="qemu rr=record"),
    Tool("workbench record", _workbench_record, trace="workbench.wbt"),
    Tool("workbench replay", _workbench_replay, needs="workbench record", own_status=True),
)


def trace_bytes(trace: Path) -> int:
    """Return the size of a trace, without the kernel and the initrd that ours has in it."""
    if trace.suffix != ".wbt":
        return trace.stat().st_size
    with open_trace(trace) as opened:
        return opened.file_bytes - opened.sizes()["images"]


def installed(tool: Tool) -> bool:
    """Tell whether `tool` can be run here."""
    return not tool.name.startswith("qemu") or shutil.which("qemu-system-x86_64") is not None


@contextmanager
def web_server(give: Callable[[str], bytes]) -> Iterator[int]:
    """A web server on the loopback interface that gives what `give(path)` says, and takes what is
    posted; its port.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            data = give(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_POST(self) -> None:
            left = int(self.headers["Content-Length"])
            while left > 0 and (data := self.rfile.read1(min(left, 1 << 20))):
                left -= len(data)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    try:
        yield web.server_port
    finally:
        web.shutdown()
        web.server_close()
