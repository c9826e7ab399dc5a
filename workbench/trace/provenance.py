"""Which disk images a recording ran on: names, formats and SHA-256, for people, never for replay.

What a run read from an image is in its trace, so a replay does not need this; somebody who asks
"was that the same image?" does. A thread reads each file once while the guest runs. An image that
the guest may write through to has no fixed contents and gets no hash; neither does one that is not
a file, or whose reading has not ended when the recording does.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from workbench.errors import FormatError

MAX_DISKS = 64
MAX_NAME = 4096
_PART_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """One image: the drive's name, what the user named, its format; `sha256` is of the file.

    `size_bytes` is the disk that the guest saw. An empty `sha256` says that there is none.
    """

    name: str
    path: str
    format: str
    size_bytes: int
    sha256: str = ""

    def to_json(self) -> dict[str, Any]:
        """Give the JSON form."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: object) -> DiskFacts:
        """Check and take the JSON form; raises `FormatError`."""
        wanted = {"name": str, "path": str, "format": str, "size_bytes": int, "sha256": str}
        if not isinstance(value, Mapping):
            raise FormatError("the trace's list of disks is malformed")
        found = {key: value.get(key) for key in wanted}
        for key, kind in wanted.items():
            item = found[key]
            bad = type(item) is not kind
            if bad or (isinstance(item, str) and len(item) > MAX_NAME):
                raise FormatError(f"the trace's list of disks has no valid {key}")
        facts = cls(**found)  # type: ignore[arg-type]
        if not 0 <= facts.size_bytes < 1 << 63 or len(facts.sha256) not in (0, 64):
            raise FormatError("the trace's list of disks is malformed")
        return facts


class DiskHasher:
    """Reads image files in a thread of its own; `finish` gives what is known by then."""

    def __init__(self, disks: Iterable[DiskFacts], fixed: Iterable[str]) -> None:
        """`fixed`: names of the disks whose files nobody writes during the run."""
        self._disks = list(disks)
        self._fixed = set(fixed)
        self._hashes: dict[str, str] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="disk-hasher", daemon=True)
        self._thread.start()

    def finish(self, wait_s: float = 0.0) -> tuple[DiskFacts, ...]:
        """Give the facts, with the hashes of what was read within `wait_s` more seconds."""
        self._thread.join(wait_s)
        self._stop.set()
        self._thread.join()
        return tuple(replace(d, sha256=self._hashes.get(d.name, "")) for d in self._disks)

    def _work(self) -> None:
        with contextlib.suppress(OSError):  # what nobody waits for steps back for the guest
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        for disk in self._disks:
            path = Path(disk.path)
            if disk.name in self._fixed and path.is_file():
                digest = self._hash(path)
                if digest:
                    self._hashes[disk.name] = digest

    def _hash(self, path: Path) -> str:
        found = hashlib.sha256()
        try:
            with path.open("rb", buffering=0) as file:
                while part := file.read(_PART_BYTES):
                    if self._stop.is_set():
                        return ""
                    found.update(part)
        except OSError:
            return ""  # the image opened by other means, or went away: nothing to say about it
        return found.hexdigest()
