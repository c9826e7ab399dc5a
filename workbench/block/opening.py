"""From what the user names to an image."""

from __future__ import annotations

from pathlib import Path

from workbench.block.hostfile import HostFile
from workbench.block.image import Image
from workbench.block.probe import PROBE_BYTES, image_format
from workbench.block.qcow2 import header as qcow2_header
from workbench.block.qcow2.image import Qcow2Image
from workbench.block.raw import RawImage
from workbench.errors import FormatError, InputFileError

MAX_CHAIN = 32
NATIVE = ("raw", "qcow2")


def open_image(
    spec: str | Path,
    read_only: bool = True,
    allow_backing: bool = False,
    image_format_name: str | None = None,
) -> Image:
    """Open a disk image by file name.

    `image_format_name` says the format instead of the image's own start. A backing file is another
    file that the image names; since an image can come from anywhere, it is opened only with
    `allow_backing`.
    """
    return _open_file(Path(spec), read_only, allow_backing, image_format_name, ())


def _open_file(
    path: Path,
    read_only: bool,
    allow_backing: bool,
    kind: str | None,
    chain: tuple[tuple[int, int], ...],
) -> Image:
    file = HostFile(path, read_only=read_only)
    try:
        if file.identity in chain or len(chain) >= MAX_CHAIN:
            raise FormatError("expected a chain of backing files that ends", path=file.name)
        if kind is None:
            last = file.read(max(0, file.size_bytes - 512), 512)
            kind = image_format(file.name, file.read(0, PROBE_BYTES), last)
        if kind == "raw":
            return RawImage(file)
        if kind == "qcow2":
            return _open_qcow2(file, allow_backing, chain)
        raise InputFileError(f"{file.name}: images of format {kind} are not supported")
    except BaseException:
        file.close()
        raise


def _open_qcow2(
    file: HostFile, allow_backing: bool, chain: tuple[tuple[int, int], ...]
) -> Qcow2Image:
    header = qcow2_header.parse(file)
    backing: Image | None = None
    if header.backing_file is not None:
        name = header.backing_file
        if not allow_backing:
            raise InputFileError(
                f"{file.name} needs the backing file {name!r}, which is opened only when allowed"
            )
        name = name.removeprefix("file:")
        if name.startswith("json:") or "://" in name:
            raise InputFileError(f"{file.name}: a backing file can only be a file, not {name!r}")
        place = file.path.parent / name
        backing = _open_file(place, True, True, header.backing_format, (*chain, file.identity))
    try:
        return Qcow2Image(file, header, backing)
    except BaseException:
        if backing is not None:
            backing.close()
        raise
