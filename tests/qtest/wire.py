"""A client of the qtest protocol and of QMP over sockets, for our server and for QEMU."""

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

OURS = (sys.executable, "-c", "import sys; from workbench.qtest.main import main; sys.exit(main())")
QEMU = shutil.which("qemu-system-x86_64")


class Wire:
    """Starts a program, which connects to us."""

    def __init__(self, program, directory: Path, *options: str) -> None:
        sockets = []
        for name in ("qtest", "qmp"):
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(directory / name))
            listener.listen(1)
            listener.settimeout(60)
            sockets.append(listener)
        self.process = subprocess.Popen(
            [
                *program,
                *("-qtest", f"unix:{directory / 'qtest'}", "-qtest-log", "/dev/null"),
                *("-chardev", f"socket,path={directory / 'qmp'},id=char0"),
                *("-mon", "chardev=char0,mode=control", "-display", "none", *options),
            ],
            stderr=subprocess.PIPE,
        )
        self._files = []
        for listener in sockets:
            peer, _ = listener.accept()
            peer.settimeout(60)
            self._files.append(peer.makefile("rwb"))
            peer.close()
            listener.close()
        for name in ("qtest", "qmp"):
            (directory / name).unlink()
        self.status: int | None = None
        self.errors = ""
        self.irqs: dict[int, bool] = {}
        self.events: list[str] = []
        self.greeting = self._message()
        self.qmp("qmp_capabilities")

    def close(self) -> int:
        """End the program as QEMU's tests do; gives its exit status."""
        if self.status is not None:
            return self.status
        self.process.terminate()
        self.status = self.process.wait(20)
        for file in self._files:
            file.close()
        assert self.process.stderr is not None
        self.errors = self.process.stderr.read().decode()
        self.process.stderr.close()
        return self.status

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def send(self, line: str) -> str:
        """One request; gives the answer."""
        file = self._files[0]
        file.write(line.encode() + b"\n")
        file.flush()
        while True:
            words = file.readline().decode().split()
            assert words, f"no answer to {line}"
            if words[0] != "IRQ":
                return " ".join(words)
            self.irqs[int(words[2])] = words[1] == "raise"

    def number(self, line: str) -> int:
        """A request whose answer is a number."""
        ok, value = self.send(line).split()
        assert ok == "OK"
        return int(value, 0)

    def config(self, slot: int, function: int, offset: int) -> int:
        """A dword of configuration space."""
        self.send(f"outl 0xcf8 {1 << 31 | slot << 11 | function << 8 | offset:#x}")
        return self.number("inl 0xcfc")

    def qmp(self, command: str, **arguments):
        """A command; gives the whole answer."""
        file = self._files[1]
        file.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        file.flush()
        while "event" in (message := self._message()):
            self.events.append(message["event"])
        return message

    def event(self, name: str) -> None:
        """Wait for an event."""
        while name not in self.events:
            self.events.append(self._message()["event"])
        self.events.remove(name)

    def _message(self):
        return json.loads(self._files[1].readline())
