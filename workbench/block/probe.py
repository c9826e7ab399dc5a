"""Which format an image has, by what stands at its start, its end, and its name."""

from __future__ import annotations

from pathlib import PurePath

PROBE_BYTES = 65536
_MAGICS = (
    (b"QFI\xfb", "qcow2"),
    (b"QED\0", "qed"),
    (b"KDMV", "vmdk"),
    (b"COWD", "vmdk"),
    (b"# Disk DescriptorFile", "vmdk"),
    (b"vhdxfile", "vhdx"),
    (b"conectix", "vpc"),
    (b"LUKS\xba\xbe", "luks"),
)
_VDI_SIGNATURE = (0x40, b"\x7f\x10\xda\xbe")
_SUFFIXES = {".vhd": "vpc", ".vpc": "vpc"}


def image_format(name: str, start: bytes, last_sector: bytes = b"") -> str:
    """`raw` when nothing is recognised. A VHD of fixed size has its signature only at the end,
    where a guest could write it too, so the name must say it as well.
    """
    for magic, kind in _MAGICS:
        if start.startswith(magic):
            return kind
    at, signature = _VDI_SIGNATURE
    if start[at : at + 4] == signature:
        return "vdi"
    suffix = PurePath(name).suffix.lower()
    if suffix in _SUFFIXES and last_sector.startswith(b"conectix"):
        return _SUFFIXES[suffix]
    return "raw"
