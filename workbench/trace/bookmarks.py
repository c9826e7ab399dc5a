"""Places in a recording that were given names, in a small JSON file beside the trace.

The trace itself never changes. Names are letters, digits, `-`, `_` and `.`.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Final

from workbench.errors import InputFileError, UsageError, os_error_text

__all__ = ["MOST", "Bookmarks"]

MOST: Final = 10_000
_MOST_BYTES: Final = 1 << 20
_NAME: Final = re.compile(r"[\w.-]{1,64}")


class Bookmarks:
    """The bookmarks of one trace; `places` maps names to instruction counts."""

    def __init__(self, trace: str | os.PathLike[str]) -> None:
        """Read them; raises `InputFileError` for a file that holds something else."""
        self.path = Path(f"{os.fspath(trace)}.bookmarks")
        self.places: dict[str, int] = self._read()

    def _read(self) -> dict[str, int]:
        try:
            with self.path.open("rb") as file:
                raw = file.read(_MOST_BYTES + 1)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise InputFileError(f"{self.path}: {os_error_text(error)}") from None
        try:
            found = json.loads(raw) if len(raw) <= _MOST_BYTES else None
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) or len(found) > MOST or not all(
            _NAME.fullmatch(name) and type(at) is int and 0 <= at < 1 << 62
            for name, at in found.items()
        ):  # fmt: skip
            raise InputFileError(f"{self.path}: expected bookmarks, which this is not")
        return found

    def set(self, name: str, icount: int) -> None:
        """Name a place, or give a name to another one; raises `UsageError`, `InputFileError`."""
        if not _NAME.fullmatch(name):
            raise UsageError(f"expected a name of letters, digits, '-', '_', '.', not {name!r:.80}")
        if name not in self.places and len(self.places) >= MOST:
            raise UsageError(f"expected at most {MOST:,} bookmarks")
        self._write({**self.places, name: icount})

    def drop(self, name: str) -> None:
        """Forget a name; raises `UsageError` if there is no such one."""
        if name not in self.places:
            raise UsageError(f"expected a bookmark, not {name!r:.80}")
        self._write({key: at for key, at in self.places.items() if key != name})

    def _write(self, places: dict[str, int]) -> None:
        ordered = dict(sorted(places.items(), key=lambda item: (item[1], item[0])))
        fresh = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        try:
            fresh.write_text(json.dumps(ordered, indent=1) + "\n", encoding="ascii")
            fresh.replace(self.path)
        except OSError as error:
            fresh.unlink(missing_ok=True)
            raise InputFileError(f"{self.path}: {os_error_text(error)}") from None
        self.places = ordered
