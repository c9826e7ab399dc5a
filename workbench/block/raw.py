"""Raw images: the file is the disk."""

from __future__ import annotations

from workbench.block.ahead import ReadAhead
from workbench.block.hostfile import HostFile
from workbench.block.image import SECTOR_BYTES, Image


class RawImage(Image):
    """A file or block device as it is; a last sector that is not whole is filled with zeroes."""

    format = "raw"

    def __init__(self, file: HostFile) -> None:
        sectors = -(-file.size_bytes // SECTOR_BYTES)
        super().__init__(file.name, sectors * SECTOR_BYTES, read_only=file.read_only)
        self._file = file
        self._ahead = ReadAhead(file.read, file.size_bytes)

    def _read(self, offset: int, length: int) -> bytes:
        return self._ahead.read(offset, length)

    def _write(self, offset: int, data: bytes) -> None:
        self._ahead.forget()
        self._file.write(offset, data)

    def _write_zeroes(self, offset: int, length: int) -> None:
        self._ahead.forget()
        self._file.zero(offset, length)

    def flush(self) -> None:
        """To stable storage."""
        self._file.sync()

    def close(self) -> None:
        """Flush and close the file."""
        self._ahead.close()
        try:
            self._file.sync()
        finally:
            self._file.close()
