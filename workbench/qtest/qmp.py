"""A part of QEMU's monitor protocol (QMP): bytes in, messages out.  No input or output of its own.

JSON values follow each other in both directions. After the greeting a client has to say
`qmp_capabilities`. Each command is answered by `{"return": ...}` or `{"error": ...}`, with its
`id` if it had one; events come in between. What the commands do is in `monitor.py`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, Final

import workbench
from workbench.errors import WorkbenchError

__all__ = ["MOST_BYTES", "CommandNotFound", "Qmp"]

MOST_BYTES: Final = 1 << 20
"""The longest command."""
QMP_VERSION: Final = {"major": 7, "minor": 2, "micro": 0}

Execute = Callable[[str, dict[str, Any]], Any]
Message = dict[str, Any]


class CommandNotFound(WorkbenchError):
    """There is no such command."""


class Qmp:
    """One client. `execute(command, arguments)` gives the value to return, or raises a
    WorkbenchError.
    """

    def __init__(self, execute: Execute) -> None:
        self._execute = execute
        self._text: list[str] = []
        self._depth = 0
        self._quoted = self._escaped = False
        self._ready = False
        self._out: list[Message] = []

    @staticmethod
    def version() -> Message:
        """What `query-version` gives: the QMP whose names are spoken, and who speaks them."""
        return {"qemu": dict(QMP_VERSION), "package": f"workbench {workbench.__version__}"}

    def greeting(self) -> Message:
        """The first message."""
        return {"QMP": {"version": self.version(), "capabilities": []}}

    def event(self, name: str, data: Message | None = None) -> None:
        """Something happened; a client that is not ready yet hears nothing of it."""
        if not self._ready:
            return
        now = time.time_ns()
        message: Message = {
            "timestamp": {"seconds": now // 10**9, "microseconds": now // 1000 % 10**6},
            "event": name,
        }
        if data is not None:
            message["data"] = data
        self._out.append(message)

    def take(self) -> list[Message]:
        """Messages that are due."""
        out, self._out = self._out, []
        return out

    def feed(self, data: bytes) -> list[Message]:
        """Take bytes from the client; gives what to send."""
        for char in data.decode("latin-1"):
            self._take(char)
        return self.take()

    def _take(self, char: str) -> None:
        """Collect characters up to the end of a JSON value; what is none ends with its line."""
        text = self._text
        if not text and char.isspace():
            return
        text.append(char)
        if self._quoted:
            if self._escaped:
                self._escaped = False
            elif char == "\\":
                self._escaped = True
            elif char == '"':
                self._quoted = False
        elif char == '"':
            self._quoted = True
        elif char in "{[":
            self._depth += 1
        elif char in "}]":
            self._depth -= 1
        if char == "\n" and text[0] not in "{[":
            self._depth, self._quoted = 0, False
        elif self._quoted or self._depth > 0 or text[0] not in "{[":
            if len(text) > MOST_BYTES:
                self._fail("GenericError", f"expected a command of at most {MOST_BYTES} bytes")
                self._forget()
            return
        whole = "".join(text).encode("latin-1").decode("utf-8", "replace")
        self._forget()
        self._one(whole)

    def _forget(self) -> None:
        self._text = []
        self._depth, self._quoted, self._escaped = 0, False, False

    def _one(self, text: str) -> None:
        try:
            request = json.loads(text)
        except (ValueError, RecursionError):
            self._fail("GenericError", "Invalid JSON syntax")
            return
        if not isinstance(request, dict):
            self._fail("GenericError", "QMP input must be a JSON object")
            return
        ident = {"id": request["id"]} if "id" in request else {}
        command, arguments = request.get("execute"), request.get("arguments", {})
        if not isinstance(command, str):
            self._fail("GenericError", "QMP input lacks member 'execute'", ident)
        elif not isinstance(arguments, dict):
            self._fail("GenericError", "QMP input member 'arguments' must be an object", ident)
        elif command == "qmp_capabilities":
            self._ready = True
            self._out.append({"return": {}} | ident)
        elif not self._ready:
            text = "Expecting capabilities negotiation with 'qmp_capabilities'"
            self._fail("CommandNotFound", text, ident)
        else:
            self._answer(command, arguments, ident)

    def _answer(self, command: str, arguments: dict[str, Any], ident: Message) -> None:
        before = len(self._out)
        try:
            value = self._execute(command, arguments)
        except CommandNotFound as error:
            self._fail("CommandNotFound", str(error), ident)
        except WorkbenchError as error:
            self._fail("GenericError", str(error), ident)
        else:
            # the answer comes before the events of what it did
            self._out.insert(before, {"return": value} | ident)

    def _fail(self, kind: str, text: str, ident: Message | None = None) -> None:
        self._out.append({"error": {"class": kind, "desc": text}} | (ident or {}))
