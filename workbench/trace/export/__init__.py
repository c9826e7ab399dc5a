"""What a trace becomes for other people's tools: one module for each format.

An event has an instruction count and no time; the formats want a time, which is `icount *
ps_per_insn`: what the guest spent executing. What it spent halted is left out, so an idle second
has no width in a picture. pcapng is the exception, for inputs have their guest time.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from workbench.errors import InputFileError, os_error_text

if TYPE_CHECKING:
    from workbench.trace.reader import Trace


def ps_per_insn(trace: Trace) -> int:
    """Picoseconds for each instruction, from the machine in the header."""
    value = trace.header.machine.get("ps_per_insn")
    return value if isinstance(value, int) and 0 < value <= 1_000_000 else 1000


@contextlib.contextmanager
def written(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a file to write; it gets its name only when it is complete."""
    target = Path(path)
    with _named(target):
        is_special = target.exists() and not target.is_file()
    if is_special:
        # A pipe or a device: nothing to replace.
        with _named(target), target.open("wb") as file:
            yield file
        return
    part = target.with_name(f"{target.name}.part{os.getpid()}")
    try:
        with _named(target):
            with part.open("wb") as file:
                yield file
            part.replace(target)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputFileError(f"{path} cannot be written: {os_error_text(error)}") from None
