"""A file of the host, or a block device: complete reads and writes at an offset, and its errors."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from pathlib import Path

from workbench.block import locks
from workbench.errors import FormatError, InputFileError, os_error_text

_KEEP_SIZE, _PUNCH_HOLE, _ZERO_RANGE = 1, 2, 16  # fallocate(2)
_UNSUPPORTED = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV, errno.ENOTTY}
_ZEROES = bytes(1 << 20)


class HostFile:
    """An open image file, locked against other users of it."""

    def __init__(self, path: str | Path, *, read_only: bool, lock: bool = True) -> None:
        self.path = Path(path)
        self.name = str(path)
        self.read_only = read_only
        self._fd = -1
        self._unsynced = False
        try:
            flags = (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC | os.O_NONBLOCK
            self._fd = os.open(self.path, flags)
            mode = os.fstat(self._fd).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
                raise InputFileError(f"expected a file or a block device, not {self.name}")
            self._regular = stat.S_ISREG(mode)
            self._size = os.lseek(self._fd, 0, os.SEEK_END)
            if lock:
                locks.lock(self._fd, self.name, write=not read_only)
        except OSError as error:
            self._discard_fd()
            raise self._error("cannot be opened", error) from None
        except InputFileError:
            self._discard_fd()
            raise

    @property
    def size_bytes(self) -> int:
        """Length of the file."""
        return self._size

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode: equal for two names of one file."""
        status = os.fstat(self._fd)
        return status.st_dev, status.st_ino

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes; what lies behind the end of the file is zero."""
        parts: list[bytes] = []
        left = length
        try:
            while left:
                part = os.pread(self._fd, min(left, 1 << 30), offset)
                if not part:
                    parts.append(bytes(left))
                    break
                parts.append(part)
                offset += len(part)
                left -= len(part)
        except (OSError, OverflowError) as error:
            raise self._error("cannot be read", error) from None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_exactly(self, offset: int, length: int, what: str) -> bytes:
        """`length` bytes that must lie in the file, else FormatError: `what` says what they are."""
        if offset + length > self._size:
            raise FormatError(f"expected {what} inside the file", path=self.name, offset=offset)
        return self.read(offset, length)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write all of `data`."""
        view = memoryview(data)
        self._unsynced = True
        try:
            while view:
                done = os.pwrite(self._fd, view, offset)
                offset += done
                view = view[done:]
        except (OSError, OverflowError) as error:
            raise self._error("cannot be written", error) from None
        self._size = max(self._size, offset)

    def zero(self, offset: int, length: int) -> None:
        """Make a part zero, as a hole where the host can; the file's length stays or grows."""
        self._unsynced = True
        for mode in (_PUNCH_HOLE | _KEEP_SIZE, _ZERO_RANGE | _KEEP_SIZE):
            if offset + length <= self._size and _fallocate(self._fd, mode, offset, length):
                return
        end = offset + length
        while offset < end:
            count = min(len(_ZEROES), end - offset)
            self.write(offset, memoryview(_ZEROES)[:count])
            offset += count

    def sync(self) -> None:
        """Return when what was written is on stable storage."""
        if self._unsynced:
            try:
                os.fdatasync(self._fd)
            except OSError as error:
                raise self._error("cannot be written to stable storage", error) from None
            self._unsynced = False

    def close(self) -> None:
        """Close the file, which gives its locks back."""
        self._discard_fd()

    def _discard_fd(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _error(self, what: str, error: OSError | OverflowError) -> InputFileError:
        reason = os_error_text(error) if isinstance(error, OSError) else "offset out of range"
        return InputFileError(f"{self.name} {what}: {reason}")


def _fallocate(fd: int, mode: int, offset: int, length: int) -> bool:
    """Try fallocate(2); False where the file system has no such thing."""
    libc = ctypes.CDLL(None, use_errno=True)
    call = libc.fallocate64 if hasattr(libc, "fallocate64") else libc.fallocate
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    if call(fd, mode, offset, length) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        return False
    raise InputFileError(f"fallocate fails: {os.strerror(code)}")
