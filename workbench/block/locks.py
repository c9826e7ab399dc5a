"""Advisory locks on an image file, in the convention that QEMU's tools keep on Linux.

Open file description locks on single bytes: byte 100 + p says "I use permission p", byte 200 + p
says "nobody else may use p", with p = 0 consistent read, 1 write, 3 resize. All are shared locks;
who wants to know whether another holds one asks for a conflict with an exclusive lock. So a running
QEMU and a workbench never write the same image, nor does one read what the other changes.
"""

from __future__ import annotations

import errno
import fcntl
import struct

from workbench.errors import InputFileError

_FLOCK = struct.Struct("hhqqi4x")  # struct flock with 64-bit offsets
_USES, _DENIES = 100, 200
_READ, _WRITE, _RESIZE = 0, 1, 3
_UNSUPPORTED = {errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


def lock(fd: int, name: str, *, write: bool) -> None:
    """Lock an open image file until it is closed. Raises InputFileError when another has it."""
    uses = (_READ, _WRITE, _RESIZE) if write else (_READ,)
    denies = (_WRITE, _RESIZE)
    try:
        for byte in [_USES + p for p in uses] + [_DENIES + p for p in denies]:
            request = _FLOCK.pack(fcntl.F_RDLCK, 0, byte, 1, 0)
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, request)
        for byte in [_DENIES + p for p in uses] + [_USES + p for p in denies]:
            request = _FLOCK.pack(fcntl.F_WRLCK, 0, byte, 1, 0)
            answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, request)
            if _FLOCK.unpack(answer)[0] != fcntl.F_UNLCK:
                raise _in_use(name)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise _in_use(name) from None
        if error.errno not in _UNSUPPORTED:
            raise InputFileError(f"{name}: locking fails: {error.strerror}") from error


def _in_use(name: str) -> InputFileError:
    return InputFileError(f"{name} is in use by another program")
