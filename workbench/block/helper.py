"""Images and protocols that others know: qemu-storage-daemon (or qemu-nbd, or nbdkit) behind NBD.

The helper serves one image on a Unix socket in a directory of our own, and ends with us:
where setpriv is installed the kernel ends it even after a SIGKILL of ours.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from workbench.block.errors import RemoteError
from workbench.block.image import Image
from workbench.block.nbd.client import NbdImage
from workbench.block.nbd.uri import Address
from workbench.errors import InputFileError

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0
MODULES = "QEMU's block drivers are in the package qemu-block-extra"
EXPORT = "disk"
TOOLS = ("qemu-storage-daemon: ", "qemu-nbd: ")  # how their messages begin

Node = dict[str, object]


class HelperImage(NbdImage):
    """An image behind a helper, which ends when the image is closed."""

    def __init__(
        self, name: str, kind: str, address: Address, read_only: bool, stop: Callable[[], None]
    ) -> None:
        super().__init__(address, read_only=read_only, on_close=stop)
        self.name = name
        self.format = kind


def open_node(name: str, kind: str, node: Node, read_only: bool) -> Image:
    """Serve a block node (as in QEMU's `blockdev-add`) and open it. `name` is for messages."""
    daemon = shutil.which("qemu-storage-daemon")
    if daemon is not None:
        return _start(name, kind, read_only, lambda s: _storage_daemon(daemon, node, s, read_only))
    tool = shutil.which("qemu-nbd")
    if tool is not None:
        return _start(name, kind, read_only, lambda s: _qemu_nbd(tool, node, s, read_only))
    other = _nbdkit(node)
    if other is not None:
        return _start(name, kind, read_only, lambda s: [*other(s), *(["-r"] if read_only else [])])
    raise InputFileError(
        f"{name} ({kind}) needs qemu-storage-daemon, which is not installed (package "
        "qemu-system-common; qemu-nbd of qemu-utils does as well)"
    )


def _storage_daemon(daemon: str, node: Node, socket: str, read_only: bool) -> list[str]:
    top = json.dumps({**node, "node-name": "image", "read-only": read_only})
    server = json.dumps({"addr": {"type": "unix", "path": socket}})
    export = json.dumps(
        {"type": "nbd", "id": "export", "node-name": "image", "name": EXPORT,
         "writable": not read_only}
    )  # fmt: skip
    return [daemon, "--blockdev", top, "--nbd-server", server, "--export", export]


def _qemu_nbd(tool: str, node: Node, socket: str, read_only: bool) -> list[str]:
    image = "json:" + json.dumps({**node, "read-only": read_only})
    mode = ["--read-only"] if read_only else []
    return [tool, *mode, "--socket", socket, "--export-name", EXPORT, image]


def _nbdkit(node: Node) -> Callable[[str], list[str]] | None:
    """nbdkit's plugins, for what they know."""
    tool = shutil.which("nbdkit")
    source = node.get("file")
    if tool is None or node.get("driver") != "raw" or not isinstance(source, dict):
        return None
    match source.get("driver"):
        case "http" | "https" | "ftp" | "ftps":
            arguments = ["curl", f"url={source['url']}"]
        case "ssh":
            server = source["server"]
            arguments = ["ssh", f"host={server['host']}", f"port={server['port']}",
                         f"path={source['path']}"]  # fmt: skip
            if "user" in source:
                arguments.append(f"user={source['user']}")
            match source.get("host-key-check", {}):
                case {"mode": "none"}:
                    arguments.append("verify-remote-host=false")
                case {"mode": "hash"}:
                    return None  # nbdkit has no such check
        case _:
            return None
    plugin, *options = arguments
    return lambda socket: [
        tool, "--foreground", "--exit-with-parent", "--unix", socket, "--exportname", EXPORT,
        plugin, *options,
    ]  # fmt: skip


def _start(
    name: str, kind: str, read_only: bool, command: Callable[[str], Sequence[str]]
) -> HelperImage:
    directory = tempfile.mkdtemp(prefix="workbench-nbd-")
    socket = str(Path(directory) / "socket")
    log = Path(directory) / "log"
    arguments = list(command(socket))
    setpriv = shutil.which("setpriv")
    if setpriv is not None:
        arguments = [setpriv, "--pdeathsig", "TERM", *arguments]
    process: subprocess.Popen[bytes] | None = None

    def stop() -> None:
        if process is not None:
            _end(process)
        shutil.rmtree(directory, ignore_errors=True)

    try:
        with log.open("wb") as out:
            process = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        return _connect(name, kind, read_only, socket, process, log, stop)
    except OSError as error:
        stop()
        raise InputFileError(f"{arguments[0]} cannot be started: {error.strerror}") from None
    except BaseException:
        if process is not None:
            process.kill()  # it has nothing to write, and may be waiting for a host
        stop()
        raise


def _connect(
    name: str,
    kind: str,
    read_only: bool,
    socket: str,
    process: subprocess.Popen[bytes],
    log: Path,
    stop: Callable[[], None],
) -> HelperImage:
    """Wait until the helper answers; it ends with a message when it cannot open the image."""
    end = time.monotonic() + START_TIMEOUT_S
    address = Address(socket=socket, export=EXPORT, label=f"{name} (behind a helper)")
    while process.poll() is None:
        if Path(socket).exists():
            try:
                return HelperImage(name, kind, address, read_only, stop)
            except RemoteError:
                # qemu-storage-daemon listens before it has the export; nbdkit opens the image only
                # when somebody connects, and complains then.
                if b"error: " in log.read_bytes():
                    raise InputFileError(f"{name} cannot be opened: {_complaint(log)}") from None
                if time.monotonic() > end:
                    raise
        if time.monotonic() > end:
            raise RemoteError(f"{name}: no answer within {START_TIMEOUT_S:.0f} seconds")
        time.sleep(0.01)
    raise InputFileError(f"{name} cannot be opened: {_complaint(log)}")


def _complaint(log: Path) -> str:
    """The last line that a helper wrote in its own name, without the arguments that it repeats;
    libraries write other lines, before and after.
    """
    text = log.read_bytes()[-4096:].decode("utf-8", "replace").strip()
    lines = text.splitlines() or ["the helper has ended without a message"]
    own = [line for line in lines if any(mark in line for mark in (*TOOLS, "error: "))]
    line = (own or lines)[-1]
    line = "".join(c if c.isprintable() else "?" for c in line)
    for mark in ("}: ", *TOOLS, "error: "):
        if mark in line:
            line = line.rpartition(mark)[2]
    if "nknown driver" in line or "Parameter 'driver' does not accept" in line:
        line += f" ({MODULES})"
    return line[:500]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the helper, with the time that it needs to write what it has."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
