"""The errors that a user sees: one sentence each, and the exit status that goes with it.

Guest misbehaviour is an event, never an exception (`docs/decisions`); what stands here is about the
outside world: files, options, disks, and a replay that parts from its recording. Every message is
a whole sentence without the program's name, which the command line puts in front.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_BAD_INPUT = 1
EXIT_USAGE = 2
EXIT_DIVERGED = 3
EXIT_LIMIT = 124
EXIT_INTERRUPTED = 130


class WorkbenchError(Exception):
    """Base class: something that is not our fault and that one sentence explains."""

    exit_status = EXIT_BAD_INPUT


class UsageError(WorkbenchError):
    """The command line makes no sense."""

    exit_status = EXIT_USAGE


class InputFileError(WorkbenchError):
    """A file given by the user cannot be read or is not what it has to be."""


class FormatError(WorkbenchError):
    """A stored form (trace, snapshot, image) lies, is damaged, or is of an unknown version."""

    def __init__(self, what: str, *, path: str = "", offset: int | None = None) -> None:
        self.what = what
        self.path = path
        self.offset = offset
        where = "" if offset is None else f" (at byte {offset:,})"
        super().__init__(f"{path}: {what}{where}" if path else f"{what}{where}")


class TraceWriteError(WorkbenchError):
    """The trace cannot be written (any further); what was recorded before is kept and valid."""


class GuestError(WorkbenchError):
    """The guest cannot go on (no kernel, too little memory, triple fault)."""


def os_error_text(error: OSError) -> str:
    """Give the system's reason of an OSError in lower case, without number and file name."""
    reason = error.strerror or str(error) or type(error).__name__
    return reason[:1].lower() + reason[1:]
