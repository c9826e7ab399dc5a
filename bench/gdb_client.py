"""A debugger's side of gdb's remote protocol, and QEMU's QMP: as much as measuring needs."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any


class Gone(Exception):
    """The other side closed the connection, or did not answer in time."""


def connect(path: Path, timeout_s: float = 120.0) -> socket.socket:
    """Connect to a Unix socket that somebody is about to listen at."""
    end = time.monotonic() + timeout_s
    while True:
        peer = socket.socket(socket.AF_UNIX)
        try:
            peer.connect(str(path))
        except OSError:
            peer.close()
            if time.monotonic() > end:
                raise Gone(f"nobody listens at {path}") from None
            time.sleep(0.05)
        else:
            return peer


class Remote:
    """A connection to a stub; packets without acknowledgement once it agreed to that."""

    def __init__(self, path: Path, timeout_s: float = 600.0) -> None:
        self._socket = connect(path)
        self._socket.settimeout(timeout_s)
        self._data = b""
        self._acknowledge = True
        self.ask("qSupported:multiprocess+;swbreak+;hwbreak+;ReverseStep+;ReverseContinue+")
        if self.ask("QStartNoAckMode") == "OK":
            self._acknowledge = False

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def send(self, packet: str) -> None:
        """Send a packet."""
        data = packet.encode("latin-1")
        self._socket.sendall(b"$%s#%02x" % (data, sum(data) & 0xFF))

    def receive(self, timeout_s: float | None = None) -> str:
        """The next packet; `Gone` if none comes."""
        while True:
            start = self._data.find(b"$")
            end = self._data.find(b"#", start + 1)
            if 0 <= start < end and end + 3 <= len(self._data):
                packet, self._data = self._data[start + 1 : end], self._data[end + 3 :]
                if self._acknowledge:
                    self._socket.sendall(b"+")
                return packet.decode("latin-1")
            old = self._socket.gettimeout()
            self._socket.settimeout(timeout_s if timeout_s is not None else old)
            try:
                data = self._socket.recv(1 << 16)
            except TimeoutError:
                raise Gone("no answer came in time") from None
            finally:
                self._socket.settimeout(old)
            if not data:
                raise Gone("the stub hung up")
            self._data += data

    def ask(self, packet: str, timeout_s: float | None = None) -> str:
        """Send a packet, and give the answer; what the stub says on the console is dropped."""
        self.send(packet)
        while True:
            answer = self.receive(timeout_s)
            if answer == "OK" or not answer.startswith("O"):
                return answer

    def monitor(self, command: str) -> str:
        """The text that a monitor command gives."""
        self.send(f"qRcmd,{command.encode().hex()}")
        text = ""
        while True:
            answer = self.receive()
            if answer == "OK":
                return text
            if answer.startswith("E"):
                raise Gone(f"the command {command!r} failed: {answer}")
            text += bytes.fromhex(answer.removeprefix("O")).decode(errors="replace")
            if not answer.startswith("O"):
                return text

    def interrupt(self) -> str:
        """Stop the guest, which runs, as Ctrl-C does."""
        self._socket.sendall(b"\x03")
        return self.receive()

    def pc(self) -> int:
        """RIP: register 16 of gdb's x86-64."""
        data = bytes.fromhex(self.ask("g"))
        return int.from_bytes(data[128:136], "little")


class Qmp:
    """QEMU's machine protocol."""

    def __init__(self, path: Path, timeout_s: float = 600.0) -> None:
        self._socket = connect(path)
        self._socket.settimeout(timeout_s)
        self._file = self._socket.makefile("rw", encoding="utf-8")
        self._read()
        self.run("qmp_capabilities")

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._socket.close()

    def _read(self) -> dict[str, Any]:
        try:
            line = self._file.readline()
        except OSError:
            line = ""
        if not line:
            raise Gone("QEMU did not answer")
        found: dict[str, Any] = json.loads(line)
        return found

    def run(self, command: str, **arguments: object) -> dict[str, Any]:
        """Run a command; what it returns."""
        line = json.dumps({"execute": command, "arguments": arguments})
        try:
            print(line, file=self._file, flush=True)
        except OSError:
            raise Gone("QEMU has gone") from None
        while True:
            answer = self._read()
            if "error" in answer:
                raise Gone(f"{command}: {answer['error'].get('desc')}")
            if "return" in answer:
                return dict(answer["return"])

    def wait_for(self, event: str) -> None:
        """Wait for an event."""
        while self._read().get("event") != event:
            pass

    def icount(self) -> int:
        """Where the replay is."""
        return int(self.run("query-replay")["icount"])
