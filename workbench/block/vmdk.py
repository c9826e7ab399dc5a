"""What a VMDK image names: its parts and its parent, told from its descriptor.

QEMU's reader takes a line for one of a part wherever C's `sscanf` can see it so: with spaces before
it, a sign before a number, broken into lines. So nothing is searched for here: every line has to
be of a known form (VMware, Virtual Disk Format 1.1, "The Descriptor"), else the image is refused.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path

from workbench.block.hostfile import HostFile
from workbench.errors import FormatError, InputFileError

__all__ = ["MAX_DESCRIPTOR_BYTES", "check_parts", "has_parent"]

MAX_DESCRIPTOR_BYTES = 1 << 20
MAGIC, VMFS_MAGIC = b"KDMV", b"COWD"
_SETTING = re.compile(r'[A-Za-z][\w.:-]*[ \t]*=[^"\r]*("[^"\r]*")?[ \t]*')
_PART = re.compile(
    r"(?:RW|RDONLY|NOACCESS) [0-9]{1,19} (FLAT|SPARSE|ZERO|VMFS|VMFSSPARSE|SESPARSE)"
    r'(?: "([^"\r]+)")?(?: [0-9]{1,19})?[ \t]*'
)
_PARENT = re.compile(r"^parentCID[ \t]*=[ \t]*\"?([0-9a-fA-F]+)", re.MULTILINE)
_HINT = re.compile(r"^parentFileNameHint[ \t]*=", re.MULTILINE)


def has_parent(name: str, start: bytes) -> bool:
    """Whether the image with this start is a difference to another one."""
    text = _descriptor(name, start)
    found = _PARENT.search(text)
    return bool(_HINT.search(text)) or bool(found and int(found[1], 16) != 0xFFFF_FFFF)


def check_parts(name: str, start: bytes, folder: Path | None) -> None:
    """Raise InputFileError for a part that does not lie in `folder`, the image's own; an image
    without one (behind a URL) has no parts.
    """
    if start.startswith((MAGIC, VMFS_MAGIC)):
        _check_whole(name, start)
        return
    for part in _parts(name, start):
        if folder is None or "/" in part or ":" in part or part in (".", ".."):
            raise InputFileError(
                f"{name}: the parts of an image have to lie beside it, not at {part!r}"
            )
        place = folder / part
        if place.is_symlink():
            raise InputFileError(
                f"{name}: the parts of an image have to lie beside it, and {part!r} is a link"
            )
        file = HostFile(place, read_only=True, lock=False)
        try:
            _check_whole(part, file.read(0, 512))
        finally:
            file.close()


def _check_whole(name: str, start: bytes) -> None:
    """A file with a binary header may hold a descriptor of further parts instead of data."""
    if start.startswith(MAGIC) and not any(start[12:20]):
        raise InputFileError(f"{name}: expected a VMDK with data, not one that names its parts")


def _parts(name: str, start: bytes) -> list[str]:
    parts: list[str] = []
    for number, line in enumerate(_descriptor(name, start).split("\n"), 1):
        text = line.removesuffix("\r")
        if not text.strip(" \t") or text.startswith("#") or _SETTING.fullmatch(text):
            continue
        found = _PART.fullmatch(text)
        if found is None:
            raise FormatError(
                f"expected a setting or a part of the disk in line {number} of the descriptor, "
                f"not {text[:60]!r}",
                path=name,
            )
        if found[2] is not None:
            parts.append(found[2])
    return parts


def _descriptor(name: str, start: bytes) -> str:
    """The text that says what the image is made of; empty if it has none."""
    if start.startswith(VMFS_MAGIC):
        return ""
    if start.startswith(MAGIC):
        if len(start) < 512:
            raise FormatError("expected a header of 512 bytes", path=name)
        sector, count = struct.unpack_from("<QQ", start, 28)
        at, length = sector * 512, count * 512
        if not sector:
            return ""
        if at + length > MAX_DESCRIPTOR_BYTES:
            raise FormatError("expected the descriptor in the first MiB", path=name, offset=28)
        start = start[at : at + length]
    elif len(start) >= MAX_DESCRIPTOR_BYTES:
        raise FormatError("expected a descriptor below one MiB", path=name)
    return start.partition(b"\0")[0].decode("utf-8", "surrogateescape")
