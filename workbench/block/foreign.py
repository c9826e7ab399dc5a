"""What an image of a format that a helper reads names besides itself.

An image can come from anywhere, and a helper would open whatever it names. So this is looked up
here first: a parent (backing file) only when allowed, parts of the image only beside it.
"""

from __future__ import annotations

import re
import struct

from workbench.errors import FormatError, InputFileError

_EXTENT = re.compile(rb'^(?:RW|RDONLY|NOACCESS)\s+\d+\s+[A-Z0-9]+\s+"([^"\n]*)"', re.MULTILINE)
_PARENT = re.compile(rb"^parentCID\s*=\s*([0-9a-fA-F]+)", re.MULTILINE)
_HINT = re.compile(rb'^parentFileNameHint\s*=\s*"', re.MULTILINE)
_VHD_DIFFERENCING = 4
_QCOW2_DATA_FILE = 4
MAX_DESCRIPTOR_BYTES = 1 << 20


def check(name: str, kind: str, start: bytes, *, allow_backing: bool, remote: bool = False) -> None:
    """Raise InputFileError for an image that needs what it may not have."""
    parent = _has_parent(name, kind, start)
    if parent and remote:
        raise InputFileError(f"{name} needs a backing file, which an image of a URL cannot have")
    if parent and not allow_backing:
        raise InputFileError(f"{name} needs a backing file, which is opened only when allowed")
    if kind == "vpc" and len(start) >= 64 and start[60:64] == _VHD_DIFFERENCING.to_bytes(4, "big"):
        raise InputFileError(f"{name}: differencing VHD images are not supported")
    if kind == "vmdk":
        for raw in _EXTENT.findall(_descriptor(name, start)):
            part = raw.decode("utf-8", "replace")
            if remote or "/" in part or ":" in part or part in ("", ".", ".."):
                raise InputFileError(
                    f"{name}: the parts of an image have to lie beside it, not at {part!r}"
                )


def _has_parent(name: str, kind: str, start: bytes) -> bool:
    match kind:
        case "qed":
            if len(start) < 64:
                raise FormatError("expected a header of 64 bytes", path=name)
            return start[16] & 1 != 0  # the lowest bit of the features
        case "qcow2":
            if len(start) < 104:
                raise FormatError("expected a header of 104 bytes", path=name)
            version, backing = struct.unpack_from(">IQ", start, 4)
            if version >= 3 and struct.unpack_from(">Q", start, 72)[0] & _QCOW2_DATA_FILE:
                raise FormatError("external data files are not supported", path=name)
            return bool(backing)
        case "vmdk":
            text = _descriptor(name, start)
            found = _PARENT.search(text)
            return bool(_HINT.search(text)) or bool(found and found[1].lower() != b"ffffffff")
        case _:
            return False


def _descriptor(name: str, start: bytes) -> bytes:
    """The text of a VMDK that says what it is made of; empty if it has none."""
    if not start.startswith(b"KDMV"):
        return start if start.startswith(b"#") else b""
    if len(start) < 512:
        raise FormatError("expected a header of 512 bytes", path=name)
    sector, count = struct.unpack_from("<QQ", start, 28)
    at, length = sector * 512, count * 512
    if not sector:
        return b""
    if at + length > MAX_DESCRIPTOR_BYTES:
        raise FormatError("expected the descriptor in the first MiB", path=name, offset=28)
    return start[at : at + length].rstrip(b"\0")
