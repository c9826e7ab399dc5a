"""Files that only save time: the compiled engine, the symbols of traces. Losing them costs time."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def folder() -> Path:
    """Where they are: $WORKBENCH_CACHE, else the XDG cache directory."""
    base = os.environ.get("WORKBENCH_CACHE")
    if base:
        return Path(base)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "workbench"


def fetch(name: str) -> bytes | None:
    """What is kept under a name, which now counts as used; None when there is nothing."""
    path = folder() / name
    try:
        data = path.read_bytes()
    except OSError:
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return data


def store(name: str, data: bytes, keep: int) -> None:
    """Keep data under a name such as `kind-KEY.ext`, and of its kind the `keep` last used ones.

    A cache that cannot be written is no error.
    """
    path = folder() / name
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(data)
        Path(file.name).replace(path)
        kind = name.partition("-")[0]
        _prune([p for p in path.parent.glob(f"{kind}-*{path.suffix}") if p != path], keep - 1)


def _prune(paths: list[Path], keep: int) -> None:
    """Remove all but the last used; another process may be doing the same."""
    used: list[tuple[float, Path]] = []
    for path in paths:
        with contextlib.suppress(OSError):
            used.append((path.stat().st_mtime, path))
    for _, path in sorted(used, reverse=True)[keep:]:
        path.unlink(missing_ok=True)
