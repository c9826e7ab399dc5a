"""What a user does to the running guest besides typing: discs, cables, the power button.

An action becomes an input of the machine and so a part of the trace. It comes from a key after
Ctrl-A, or from `--do "TIME ACTION"` at an exact guest time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from workbench.errors import UsageError

__all__ = ["KEYS", "Actions", "parse_time"]

Post = Callable[[str, str, bytes], None]
KEYS: Final = {"e": "eject", "i": "insert", "l": "link", "p": "power"}
EXPECTED: Final = "eject [DRIVE], insert [DRIVE] [NUMBER], link [NIC] [on|off] or power"
PS: Final = {"": 10**12, "s": 10**12, "ms": 10**9, "us": 10**6, "ns": 10**3}


def parse_time(text: str) -> int:
    """`2.5`, `2.5s`, `300ms` as guest picoseconds; raises UsageError."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)(|s|ms|us|ns)", text)
    if found is None:
        raise UsageError(f"expected a guest time such as 2.5s or 300ms, not {text!r}")
    return int(float(found[1]) * PS[found[2]])


class Actions:
    """The actions that a machine of this configuration has."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """`config` is that of the machine, as plain values."""
        self._discs: dict[str, int] = {}  # drive: how many discs there are for it
        self._in: dict[str, int] = {}  # and which one was put in last
        drive = ""
        for part in config.get("drives", ()):
            if part["interface"] == "cdrom":
                drive = part["name"]
                self._discs[drive], self._in[drive] = 1, 0
            elif part["interface"] == "disc" and drive:
                self._discs[drive] += 1
        self._links = {part["name"]: bool(part["link"]) for part in config.get("nics", ())}

    def do(self, text: str, post: Post) -> str:
        """Post the inputs of an action; gives a sentence for the user. Raises UsageError."""
        words = text.split()
        match words:
            case ["eject", *rest]:
                drive = _one("CD-ROM drive", rest, self._discs)
                post(drive, "eject", b"")
                return f"the eject button of {drive} was pressed"
            case ["insert", *rest]:
                return self._insert(rest, post)
            case ["link", *rest]:
                return self._link(rest, post)
            case ["power"]:
                post("acpi", "power", b"")
                return "the power button was pressed"
        raise UsageError(f"expected {EXPECTED}, not {text!r}")

    def _insert(self, rest: Sequence[str], post: Post) -> str:
        number = rest[-1] if rest and rest[-1].isdecimal() else ""
        drive = _one("CD-ROM drive", rest[: len(rest) - bool(number)], self._discs)
        count = self._discs[drive]
        disc = int(number) if number else (self._in[drive] + 1) % count
        if disc >= count:
            raise UsageError(f"expected one of {count} discs (from 0) for {drive}, not {disc}")
        self._in[drive] = disc
        post(drive, "insert", b"%d" % disc)
        return f"disc {disc} was put into {drive}"

    def _link(self, rest: Sequence[str], post: Post) -> str:
        state = rest[-1] if rest and rest[-1] in ("on", "off") else ""
        nic = _one("network interface", rest[: len(rest) - bool(state)], self._links)
        link = state == "on" if state else not self._links[nic]
        self._links[nic] = link
        post(nic, "link", bytes([link]))
        return f"the cable of {nic} was {'put in' if link else 'pulled out'}"


def _one(what: str, rest: Sequence[str], known: Mapping[str, object]) -> str:
    """The part that an action names, or the first one."""
    if not known:
        raise UsageError(f"expected a machine with a {what}")
    if not rest:
        return next(iter(known))
    if len(rest) > 1 or rest[0] not in known:
        raise UsageError(f"expected a {what} ({', '.join(known)}), not {' '.join(rest)!r}")
    return rest[0]
