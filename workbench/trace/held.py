"""Who records a trace holds a lock on its file, so that others can tell a recording that goes on
from one that was cut.

An open file description lock on the whole file: it ends with the process, however that ends. Where
a file system has none, a recording looks as if it had been cut.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from typing import Final

_FLOCK: Final = struct.Struct("hhqqi4x")  # struct flock with 64-bit offsets


def take(fd: int) -> bool:
    """Lock a file that is open for writing, until it is closed; False if another has it."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        return True
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, 0, 0, 0, 0))
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EACCES)
    return True


def is_held(fd: int) -> bool:
    """Whether somebody records into a file that is open for reading."""
    try:
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_RDLCK, 0, 0, 0, 0))
    except OSError:
        return False
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
