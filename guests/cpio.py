"""Write initramfs archives: the cpio "newc" format.

The format is described in the kernel's ``Documentation/driver-api/early-userspace/
buffer-format.rst``. Archives are written from a description, not from a directory, so that device
nodes need no root and equal descriptions give equal bytes: all times are 0, inode numbers count up.
"""

import gzip
import stat
from dataclasses import dataclass, field

_TRAILER = "TRAILER!!!"


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    mode: int
    data: bytes = b""
    rdev: tuple[int, int] = (0, 0)


@dataclass(slots=True)
class Archive:
    """An initramfs under construction; parent directories are added by themselves."""

    _entries: dict[str, _Entry] = field(default_factory=dict)

    def directory(self, name: str, mode: int = 0o755) -> None:
        """Add a directory."""
        self._add(_Entry(name, stat.S_IFDIR | mode))

    def file(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """Add a regular file."""
        self._add(_Entry(name, stat.S_IFREG | mode, data))

    def symlink(self, name: str, target: str) -> None:
        """Add a symbolic link to `target`."""
        self._add(_Entry(name, stat.S_IFLNK | 0o777, target.encode()))

    def char_device(self, name: str, major: int, minor: int, mode: int = 0o600) -> None:
        """Add a character device node."""
        self._add(_Entry(name, stat.S_IFCHR | mode, rdev=(major, minor)))

    def to_bytes(self) -> bytes:
        """Return the archive, not compressed."""
        parts = [_member(n, entry) for n, entry in enumerate(self._entries.values(), start=1)]
        parts.append(_member(0, _Entry(_TRAILER, 0)))
        return b"".join(parts)

    def to_gzip(self) -> bytes:
        """Return the archive compressed with gzip, without a name or a time in its header."""
        return gzip.compress(self.to_bytes(), compresslevel=9, mtime=0)

    def _add(self, entry: _Entry) -> None:
        name = entry.name
        if not name or name.startswith("/") or name in self._entries:
            raise ValueError(f"expected a new relative name, not {name!r}")
        parent = name.rpartition("/")[0]
        if parent and parent not in self._entries:
            self.directory(parent)
        self._entries[name] = entry


def _member(inode: int, entry: _Entry) -> bytes:
    name = entry.name.encode() + b"\0"
    fields = (
        inode,
        entry.mode,
        0,  # uid
        0,  # gid
        2 if stat.S_ISDIR(entry.mode) else 1,  # links
        0,  # mtime
        len(entry.data),
        0,  # major and minor of the file system it was on
        0,
        *entry.rdev,
        len(name),
        0,  # check sum, zero in "070701"
    )
    header = b"070701" + b"".join(b"%08X" % value for value in fields)
    return _pad4(header + name) + _pad4(entry.data)


def _pad4(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
