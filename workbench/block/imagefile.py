"""An image as the file that another format's image is in: an image behind a URL, which helpers know
as a raw one only.
"""

from __future__ import annotations

from pathlib import Path

from workbench.block.hostfile import HostFile
from workbench.block.image import Image
from workbench.errors import InputFileError

__all__ = ["ImageFile"]


class ImageFile(HostFile):
    """For reading only: nothing can be appended to an image. Closes it in the end."""

    def __init__(self, image: Image) -> None:
        self.path = Path(image.name)
        self.name = image.name
        self.read_only = True
        self._image = image
        self._size = image.size_bytes

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes; what lies behind the end is zero."""
        inside = max(0, min(length, self._size - offset))
        data = self._image.read(offset, inside) if inside else b""
        return data if inside == length else data.ljust(length, b"\0")

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Refuse."""
        raise InputFileError(f"{self.name} is open for reading only")

    def zero(self, offset: int, length: int) -> None:
        """Refuse."""
        self.write(offset, b"")

    def sync(self) -> None:
        """Nothing was written."""

    def close(self) -> None:
        """Close the image."""
        self._image.close()
