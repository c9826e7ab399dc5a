"""Lines that were typed, kept between sessions: `$XDG_STATE_HOME/workbench/tui-commands`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from prompt_toolkit.history import History

MOST_LINES: Final = 1000
_MOST_BYTES: Final = 1 << 20


def history_path(kind: str) -> Path:
    """Where the lines of a kind ("commands", "filters") are."""
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "workbench" / f"tui-{kind}"


class Lines(History):
    """A history in a file, a line each; what cannot be read or written is left out silently.

    A line goes to the file when it is typed; more than twice `MOST_LINES` are cut at the start.
    """

    def __init__(self, path: Path | None) -> None:
        super().__init__()
        self._path = path

    def load_history_strings(self) -> Iterable[str]:
        """The kept lines, the last one first."""
        return list(dict.fromkeys(reversed(self._read())))

    def _read(self) -> list[str]:
        if self._path is None:
            return []
        try:
            with self._path.open("rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(file.tell() - _MOST_BYTES, 0))
                data = file.read(_MOST_BYTES)
        except OSError:
            return []
        lines = data.decode("utf-8", "replace").splitlines()
        kept = [line for line in lines if line and line.isprintable()]
        if len(kept) > 2 * MOST_LINES:
            kept = kept[-MOST_LINES:]
            with contextlib.suppress(OSError):
                self._path.write_text("".join(f"{line}\n" for line in kept))
        return kept[-MOST_LINES:]

    def store_string(self, string: str) -> None:
        """Keep a line; nothing but its owner may read it."""
        if self._path is None or not string.isprintable():
            return
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            with os.fdopen(os.open(self._path, flags, 0o600), "w") as file:
                file.write(string + "\n")
