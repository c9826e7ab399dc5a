"""From what the user names, a file or a URL, to an image."""

from __future__ import annotations

import os
from pathlib import Path

from workbench.block import foreign, helper, urls
from workbench.block.hostfile import HostFile
from workbench.block.image import Image
from workbench.block.imagefile import ImageFile
from workbench.block.nbd import uri
from workbench.block.nbd.client import NbdImage
from workbench.block.probe import PROBE_BYTES, image_format
from workbench.block.qcow2 import header as qcow2_header
from workbench.block.qcow2.image import Qcow2Image
from workbench.block.raw import RawImage
from workbench.errors import FormatError, InputFileError, UsageError

MAX_CHAIN = 32
NATIVE = ("raw", "qcow2")
BY_HELPER = ("vhdx", "qed", "vmdk", "vdi", "vpc")
FORMATS = (*NATIVE, *BY_HELPER)
_WITH_BACKING = ("qcow2", "qed", "vmdk")

Chain = tuple[tuple[int, int], ...]


def open_image(
    spec: str | os.PathLike[str],
    read_only: bool = True,
    allow_backing: bool = False,
    format_name: str | None = None,
) -> Image:
    """Open a disk image: a file name, an NBD URI, or a URL that qemu-storage-daemon knows.

    `format_name` (one of FORMATS) says the format, which otherwise the image's own start tells. A
    backing file is another file that the image names; since an image can come from anywhere, it is
    opened only with `allow_backing`. Raises WorkbenchErrors: UsageError, InputFileError,
    FormatError, RemoteError.
    """
    if format_name is not None and format_name not in FORMATS:
        raise UsageError(f"expected a format ({', '.join(FORMATS)}), not {format_name!r}")
    text = os.fspath(spec)
    if "\0" in text:
        raise UsageError(f"expected the name of an image, not {text!r}")
    if not isinstance(spec, Path):
        text = urls.without_qemu_prefix(text)
    scheme = "" if isinstance(spec, Path) else urls.scheme_of(text)
    if scheme in uri.SCHEMES:
        if format_name not in (None, "raw"):
            raise UsageError(f"an NBD export is a raw disk, not {format_name}")
        return NbdImage(uri.parse(text), read_only=read_only)
    if scheme:
        return _open_url(text, read_only, format_name)
    return _open_file(Path(text), read_only, allow_backing, format_name, ())


def _open_file(
    path: Path, read_only: bool, allow_backing: bool, kind: str | None, chain: Chain
) -> Image:
    file = HostFile(path, read_only=read_only)
    try:
        if file.identity in chain or len(chain) >= MAX_CHAIN:
            raise FormatError("expected a chain of backing files that ends", path=file.name)
        start = file.read(0, min(PROBE_BYTES, file.size_bytes))
        if kind is None:
            last = file.read(max(0, file.size_bytes - 512), 512)
            kind = image_format(file.name, start, last)
            if kind == "raw":
                return _guarded(RawImage(file))
        if kind == "raw":
            return RawImage(file)
        if kind == "qcow2":
            return _open_qcow2(file, allow_backing, chain)
        start = file.read(0, min(foreign.MAX_DESCRIPTOR_BYTES, file.size_bytes))
    except BaseException:
        file.close()
        raise
    file.close()  # the helper opens and locks it
    if kind not in BY_HELPER:
        raise InputFileError(f"{file.name}: {kind} images are not supported")
    folder = path.absolute().parent
    foreign.check(file.name, kind, start, allow_backing=allow_backing, folder=folder)
    node: helper.Node = {"driver": "file", "filename": str(path.absolute())}
    return _open_node(file.name, kind, node, read_only, allow_backing)


def _guarded(image: Image) -> Image:
    """An image whose format was found by looking at it."""
    image.guard_start(lambda start: image_format("", start) == "raw")
    return image


def _open_qcow2(file: HostFile, allow_backing: bool, chain: Chain) -> Qcow2Image:
    header = qcow2_header.parse(file)
    backing: Image | None = None
    name = header.backing_file
    if name is not None:
        if not allow_backing:
            raise InputFileError(
                f"{file.name} needs the backing file {name!r}, which is opened only when allowed"
            )
        name = name.removeprefix("file:")
        if urls.scheme_of(name):
            raise InputFileError(f"{file.name}: a backing file has to be a file, not {name!r}")
        kind = header.backing_format
        if kind is not None and kind not in FORMATS:
            raise InputFileError(f"{file.name}: backing files of format {kind!r} are not supported")
        place = file.path.parent / name
        backing = _open_file(place, True, True, kind, (*chain, file.identity))
    try:
        return Qcow2Image(file, header, backing)
    except BaseException:
        if backing is not None:
            backing.close()
        raise


def _open_url(url: str, read_only: bool, kind: str | None) -> Image:
    """An image behind a URL: first as it is, to see its format."""
    node = urls.node_of(url)
    image = helper.open_node(url, "raw", {"driver": "raw", "file": node}, read_only)
    try:
        start = image.read(0, min(foreign.MAX_DESCRIPTOR_BYTES, image.size_bytes))
        if kind is None:
            kind = image_format(url, start)
            _guarded(image)
        if kind == "raw":
            return image
        if kind not in FORMATS:
            raise InputFileError(f"{url}: {kind} images are not supported")
        # What a server gives now it need not give again when a helper looks. So a format that could
        # name files of this host is not left to a helper, unless the user has it write there.
        if kind == "vmdk" and urls.scheme_of(url) in urls.WEB:
            raise InputFileError(f"{url}: a VMDK cannot be opened from the web; download it first")
        foreign.check(url, kind, start, allow_backing=False, folder=None)
        if kind == "qcow2" and read_only:
            return _open_qcow2(ImageFile(image), False, ())
    except BaseException:
        image.close()
        raise
    image.close()
    return _open_node(url, kind, node, read_only, False)


def _open_node(
    name: str, kind: str, file: helper.Node, read_only: bool, allow_backing: bool
) -> Image:
    node: helper.Node = {"driver": kind, "file": file}
    if kind in _WITH_BACKING and not allow_backing:
        node["backing"] = None
    return helper.open_node(name, kind, node, read_only)
