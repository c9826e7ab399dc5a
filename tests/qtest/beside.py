"""Register programs that run on ours and on QEMU's over qtest: what they see, and what differs.

A program is a function that does things to registers through a driver and notes what it sees.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from tests.qtest.wire import OURS, QEMU

Notes = dict[str, Any]
Side = tuple[str, ...]
Run = Callable[[Side, Path, str], Notes]
"""Runs the programs whose names contain a text on one machine: its command, a directory."""


class NoteBook:
    """What programs see, by program and by what it is."""

    def __init__(self) -> None:
        self.notes: Notes = {}
        self._prefix = ""

    def begin(self, name: str) -> None:
        """What follows belongs to the program of this name."""
        self._prefix = name

    def note(self, what: str, value: Any) -> None:
        """Keep what was seen."""
        key = f"{self._prefix}: {what}"
        assert key not in self.notes, key
        self.notes[key] = value


D = TypeVar("D", bound=NoteBook)


def run_all(driver: D, programs: Iterable[tuple[str, Callable[[D], None]]], only: str) -> Notes:
    """Run those whose names contain a text."""
    for name, function in programs:
        if only in name:
            driver.begin(name)
            function(driver)
    return driver.notes


def differences(
    run: Run, qemu_options: Side, directory: Path, only: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """(what, ours, QEMU's) where they differ; both run at the same time."""
    assert QEMU is not None
    sides = {"ours": OURS, "qemu": (QEMU, *qemu_options)}
    with ThreadPoolExecutor() as pool:
        for name in sides:
            (directory / name).mkdir()
        found = {
            name: pool.submit(run, side, directory / name, only) for name, side in sides.items()
        }
        mine, theirs = found["ours"].result(), found["qemu"].result()
    for key in dict.fromkeys([*mine, *theirs]):
        if mine.get(key) != theirs.get(key):
            yield key, mine.get(key), theirs.get(key)


def main(beside: Callable[[Path, str], Iterable[tuple[str, Any, Any]]]) -> None:
    """Print what differs in the programs named on the command line."""
    with tempfile.TemporaryDirectory() as name:
        for key, mine, theirs in beside(Path(name), sys.argv[1] if len(sys.argv) > 1 else ""):
            print(f"{key}\n    ours {mine}\n    QEMU {theirs}")
