"""What every disk image is to the rest: a linear row of bytes, whatever the host has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Self

from workbench.errors import InputFileError

SECTOR_BYTES = 512
LARGEST_BYTES = 1 << 62


class Image(ABC):
    """A disk image. Offsets and lengths are bytes; `size_bytes` is a whole number of sectors.

    Errors are WorkbenchErrors (InputFileError for the host's, FormatError for a damaged image,
    RemoteError for a server's); an access outside the image is ours and a ValueError.
    """

    format = "raw"

    def __init__(self, name: str, size_bytes: int, *, read_only: bool) -> None:
        self.name = name  # as messages call it
        self.size_bytes = size_bytes
        self.read_only = read_only
        self._looks_raw: Callable[[bytes], bool] | None = None

    def guard_start(self, looks_raw: Callable[[bytes], bool]) -> None:
        """This image counts as raw because of its start. A guest must not write there what makes
        the next opening take it for another format, which may name files of the host.
        """
        self._looks_raw = looks_raw

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`."""
        self._check(offset, length)
        return self._read(offset, length) if length else b""

    def write(self, offset: int, data: bytes) -> None:
        """Write `data`; it is stable after `flush`."""
        self._check_writable(offset, len(data))
        if self._looks_raw is not None and offset < SECTOR_BYTES and data:
            start = bytearray(self._read(0, min(SECTOR_BYTES, self.size_bytes)))
            start[offset : offset + len(data)] = data[: SECTOR_BYTES - offset]
            if not self._looks_raw(bytes(start)):
                raise InputFileError(
                    f"{self.name}: the guest writes the start of another image format into this "
                    "raw image; allow it by naming the format (raw)"
                )
        if data:
            self._write(offset, data)

    def write_zeroes(self, offset: int, length: int) -> None:
        """Make this part read as zeroes, giving its space back to the host where possible."""
        self._check_writable(offset, length)
        if length:
            self._write_zeroes(offset, length)

    @abstractmethod
    def flush(self) -> None:
        """Return when everything written is on stable storage."""

    @abstractmethod
    def close(self) -> None:
        """Flush and let go of the image; further calls do nothing."""

    def info(self) -> dict[str, object]:
        """What is worth knowing about the image, as plain values."""
        return {"format": self.format, "name": self.name, "size_bytes": self.size_bytes}

    @abstractmethod
    def _read(self, offset: int, length: int) -> bytes: ...

    @abstractmethod
    def _write(self, offset: int, data: bytes) -> None: ...

    @abstractmethod
    def _write_zeroes(self, offset: int, length: int) -> None: ...

    def _check(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size_bytes:
            raise ValueError(
                f"{self.name}: expected a part of {self.size_bytes} bytes, not {offset} + {length}"
            )

    def _check_writable(self, offset: int, length: int) -> None:
        self._check(offset, length)
        if self.read_only:
            raise InputFileError(f"{self.name} is open for reading only")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()
