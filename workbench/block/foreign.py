"""What an image of a format that a helper reads names besides itself.

An image can come from anywhere, and a helper would open whatever it names. So this is looked up
here first: a parent (backing file) only when allowed, parts of the image only beside it.
"""

from __future__ import annotations

import struct
from pathlib import Path

from workbench.block import vmdk
from workbench.errors import FormatError, InputFileError

_VHD_DIFFERENCING = 4
_QCOW2_DATA_FILE = 4
MAX_DESCRIPTOR_BYTES = vmdk.MAX_DESCRIPTOR_BYTES


def check(name: str, kind: str, start: bytes, *, allow_backing: bool, folder: Path | None) -> None:
    """Raise InputFileError for an image that needs what it may not have. `folder` is where it
    lies, None for one behind a URL.
    """
    parent = _has_parent(name, kind, start)
    if parent and folder is None:
        raise InputFileError(f"{name} needs a backing file, which an image of a URL cannot have")
    if parent and not allow_backing:
        raise InputFileError(f"{name} needs a backing file, which is opened only when allowed")
    if kind == "vpc" and len(start) >= 64 and start[60:64] == _VHD_DIFFERENCING.to_bytes(4, "big"):
        raise InputFileError(f"{name}: differencing VHD images are not supported")
    if kind == "vmdk":
        vmdk.check_parts(name, start, folder)


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
            return vmdk.has_parent(name, start)
        case _:
            return False
