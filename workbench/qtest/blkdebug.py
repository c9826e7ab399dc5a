"""Disks that a test makes fail or wait: QEMU's `blkdebug`, as far as its tests of flushing go.

`blkdebug:RULES:FILE` names a file of rules: sections `[inject-error]` with `event`, `errno` and
`once`. The events are `flush_to_os` and `flush_to_disk`; others never happen. A break at an event
(the monitor's `qemu-io DRIVE "break EVENT TAG"`) holds the request that gets there until `resume`.
"""

from __future__ import annotations

import configparser
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from workbench.block.disk import BLOCK_BYTES, SECTOR_BYTES, Disk, DiskError
from workbench.errors import InputFileError, UsageError
from workbench.qtest.testbed import Held

__all__ = ["ERROR_TAG", "DebugDisk", "Rule", "read_rules"]

FLUSH_EVENTS: Final = ("flush_to_os", "flush_to_disk")
ERROR_TAG: Final = "stopped by an error"
MOST_RULES_BYTES: Final = 1 << 16


@dataclass
class Rule:
    """Fail at an event, the first time or every time."""

    event: str
    once: bool = False


def read_rules(path: str) -> list[Rule]:
    """The rules of a file, none for an empty name. Raises InputFileError and UsageError."""
    if not path:
        return []
    try:
        with Path(path).open("rb") as file:
            text = file.read(MOST_RULES_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise InputFileError(f"{path}: {error.strerror}") from error
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    try:
        parser.read_string(text)
    except configparser.Error:
        raise UsageError(f"{path}: expected sections of rules for blkdebug") from None
    rules = []
    for section in parser.sections():
        values = {key: value.strip('"') for key, value in parser[section].items()}
        if section.split(" ")[0] == "inject-error" and "event" in values:
            rules.append(Rule(values["event"], values.get("once") == "on"))
    return rules


class DebugDisk(Disk):
    """A disk with rules and breaks. `on_stop` is called when an error stops the machine."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rules: list[Rule] = []
        self.breaks: dict[str, str] = {}
        self.stops = False
        self.on_stop: Callable[[], None] = lambda: None

    def flush(self) -> None:
        """Flush, if neither a break nor a rule is in the way."""
        for event in FLUSH_EVENTS:
            tag = self.breaks.get(event)
            if tag is not None:
                raise Held(tag)
            for rule in self.rules:
                if rule.event == event:
                    self._fail(rule)
        super().flush()

    def _fail(self, rule: Rule) -> None:
        if rule.once:
            self.rules.remove(rule)
        if self.stops:
            self.on_stop()
            raise Held(ERROR_TAG)
        raise DiskError(f"{self.target}: an error that blkdebug injected")

    def resize(self, size_bytes: int) -> None:
        """Another size from now on; beyond the image there are zeroes."""
        self.size_bytes = size_bytes // SECTOR_BYTES * SECTOR_BYTES
        self.sectors = size_bytes // SECTOR_BYTES
        last = -(-size_bytes // BLOCK_BYTES)
        self._blocks = {n: block for n, block in self._blocks.items() if n < last}

    def _supply(self, offset: int, length: int) -> bytes:
        image = self._image
        inside = length if image is None else max(0, min(length, image.size_bytes - offset))
        return super()._supply(offset, inside).ljust(length, b"\0") if inside else bytes(length)

    def command(self, text: str) -> None:
        """`break EVENT TAG` and `resume TAG`; raises UsageError for anything else."""
        match text.split():
            case ["break", event, tag]:
                self.breaks[event] = tag
            case ["resume" | "remove_break", tag]:
                self.breaks = {e: t for e, t in self.breaks.items() if t != tag}
            case _:
                raise UsageError(f"expected break EVENT TAG or resume TAG, not {text!r:.80}")
