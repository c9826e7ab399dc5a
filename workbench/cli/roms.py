"""Where distributions put the ROMs of a PC, and the short names that options take for them."""

from __future__ import annotations

from pathlib import Path

from workbench.errors import InputFileError

__all__ = [
    "IPXE_FILES",
    "LINUXBOOT_FILES",
    "OVMF_FILES",
    "SEABIOS_FILES",
    "bios_path",
    "first_of",
    "ipxe_path",
    "linuxboot_path",
]

SEABIOS, OVMF, IPXE = "seabios", "ovmf", "ipxe"
SEABIOS_FILES = (
    "/usr/share/seabios/bios-256k.bin",
    "/usr/share/qemu/bios-256k.bin",
    "/usr/share/seabios/bios.bin",
)
OVMF_FILES = (
    "/usr/share/ovmf/OVMF.fd",
    "/usr/share/qemu/OVMF.fd",
    "/usr/share/OVMF/OVMF.fd",
    "/usr/share/edk2/x64/OVMF.fd",
)
LINUXBOOT_FILES = ("/usr/share/qemu/linuxboot_dma.bin", "/usr/lib/qemu/linuxboot_dma.bin")
IPXE_FILES = {  # the first ones have an image for UEFI besides the one for a PC BIOS
    model: tuple(
        f"{folder}/{kind}-{name}.rom"
        for kind in ("efi", "pxe")
        for folder in ("/usr/lib/ipxe/qemu", "/usr/share/qemu")
    )
    for model, name in (("e1000", "e1000"), ("virtio-net", "virtio"))
}


def first_of(paths: tuple[str, ...]) -> str | None:
    """The first that exists."""
    return next((path for path in paths if Path(path).exists()), None)


def bios_path(text: str) -> str:
    """The file that `--bios` means; raises InputFileError for firmware that is not installed."""
    if text == OVMF:
        return _path(text, OVMF, OVMF_FILES, "UEFI firmware OVMF", "ovmf")
    return _path(text, SEABIOS, SEABIOS_FILES, "SeaBIOS", "seabios")


def ipxe_path(text: str, model: str) -> str:
    """The file that `romfile=` of a NIC means; raises InputFileError likewise."""
    return _path(text, IPXE, IPXE_FILES[model], f"iPXE for {model}", "ipxe-qemu")


def linuxboot_path() -> str:
    """The option ROM that boots a kernel which `--kernel` gives to a BIOS; raises likewise."""
    return _installed(LINUXBOOT_FILES, "the option ROM linuxboot_dma.bin", "qemu-system-data")


def _path(text: str, short: str, paths: tuple[str, ...], what: str, package: str) -> str:
    if text != short or Path(text).exists():
        return text
    return _installed(paths, what, package)


def _installed(paths: tuple[str, ...], what: str, package: str) -> str:
    found = first_of(paths)
    if found is None:
        raise InputFileError(
            f"{what} is not installed (Debian's package {package}): expected one of "
            + ", ".join(paths)
        )
    return found
