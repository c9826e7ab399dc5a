"""Kernel modules for the ``drivers`` image: those for the devices, and what they need."""

import lzma
import re
from pathlib import Path

# Drivers and file systems whose modules are taken where the package has them.
WANTED = (
    "ata_piix", "ata_generic", "sd_mod", "sr_mod", "sg", "virtio_pci", "virtio_blk", "virtio_net",
    "virtio_rng", "virtio_console", "virtio_mmio", "virtio_scsi", "e1000", "af_packet", "ext4",
    "isofs", "crc32c_generic", "button",
)  # fmt: skip
_SUFFIXES = (".ko", ".ko.xz")


def _name(path: Path) -> str:
    return path.name.split(".ko")[0].replace("-", "_")


def _content(path: Path) -> bytes:
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


def _depends(module: bytes) -> list[str]:
    """The names in the module's ``depends=`` and soft dependencies that come before it."""
    out: list[str] = []
    for tag in (rb"\0depends=([^\0]*)", rb"\0softdep=pre: ([^\0]*)"):
        for found in re.findall(tag, b"\0" + module):
            out += [n.replace("-", "_") for n in re.split(r"[, ]+", found.decode()) if n]
    return out


def collect(tree: Path) -> list[tuple[str, bytes]]:
    """Modules under a kernel package's tree as (name, content), each after what it needs."""
    found = {
        _name(path): path
        for path in sorted(tree.glob("**/lib/modules/*/kernel/**/*.ko*"))
        if path.name.endswith(_SUFFIXES)
    }
    done: dict[str, bytes] = {}

    def add(name: str, above: tuple[str, ...]) -> None:
        if name in done or name in above or name not in found:
            return
        content = _content(found[name])
        for other in _depends(content):
            add(other, (*above, name))
        done[name] = content

    for name in WANTED:
        add(name, ())
    return list(done.items())
