"""Where the bytes of a trace come from: a file here, or a URL (s3://, gs://, https://, memory://).

URLs are read through fsspec, which finds the package for each scheme. A trace is read in blocks of
which some are kept, so that its many small chunks cost few requests, whatever its size.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any, Final, Protocol
from urllib.parse import unquote, urlsplit

from workbench.errors import InputFileError, UsageError, os_error_text
from workbench.trace import held

SUFFIX: Final = ".wbt"
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_BLOCK_BYTES: Final = 4 << 20
_BLOCKS_KEPT: Final = 16
_MISSING: Final = "pip install 'guest-driver-workbench[bucket]'"


class Source(Protocol):
    """The bytes of one trace; may be read in several threads."""

    def size(self) -> int:
        """Bytes that there are now."""

    def read(self, count: int, offset: int) -> bytes:
        """Read so many bytes from an offset on, fewer at the end; raises `InputFileError`."""

    def held(self) -> bool:
        """Whether a recording into it goes on."""

    def close(self) -> None:
        """Close it; idempotent."""


def is_url(name: str) -> bool:
    """Whether a name is a URL and not a path."""
    return _SCHEME.match(name) is not None


def open_source(name: str) -> Source:
    """Open a trace by path or URL; raises `InputFileError`."""
    if is_url(name) and not name.startswith("file://"):
        return _Remote(name)
    return _Local(name)


def local(name: str) -> str:
    """Give the path of what has to be a file here, because it is written or watched."""
    if name.startswith("file://"):
        return unquote(urlsplit(name).path)
    if is_url(name):
        raise UsageError(f"expected a file on this machine, not {name}")
    return name


def is_folder(name: str) -> bool:
    """Whether a name means a folder of traces: a directory, or a URL with something below it."""
    if not is_url(name) or name.startswith("file://"):
        return Path(local(name)).is_dir()
    system, path = _system(name)
    with _explained(name):
        return not path.endswith(SUFFIX) and bool(system.isdir(path))


def find(name: str) -> list[str]:
    """Names of all traces in and below a folder, sorted."""
    if not is_url(name) or name.startswith("file://"):
        return sorted(str(p) for p in Path(local(name)).rglob(f"*{SUFFIX}") if p.is_file())
    system, path = _system(name)
    with _explained(name):
        found = [str(system.unstrip_protocol(each)) for each in system.find(path)]
    return sorted(each for each in found if each.endswith(SUFFIX))


class _Local:
    def __init__(self, name: str) -> None:
        self._name = name
        self._file = -1
        try:
            self._file = os.open(local(name), os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise InputFileError(f"{name}: {os_error_text(error)}") from None

    def size(self) -> int:
        return os.fstat(self._file).st_size

    def read(self, count: int, offset: int) -> bytes:
        try:
            return _pread(self._file, count, offset)
        except OSError as error:
            raise InputFileError(f"{self._name}: {os_error_text(error)}") from None

    def held(self) -> bool:
        return held.is_held(self._file)

    def close(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def __del__(self) -> None:
        # A stream over many traces leaves them to the last of its tasks.
        self.close()


def _pread(file: int, count: int, offset: int) -> bytes:
    data = os.pread(file, count, offset)
    while len(data) < count:
        more = os.pread(file, count - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


class _Remote:
    def __init__(self, name: str) -> None:
        self._name = name
        self._system, self._path = _system(name)
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._lock = Lock()
        self._whole: Any = None
        with _explained(name):
            size = self._system.info(self._path).get("size")
        self._size = -1 if size is None else int(size)
        if self._size < 0 or len(self._block(0)) > _BLOCK_BYTES:
            self._take_whole()

    def size(self) -> int:
        return self._size

    def read(self, count: int, offset: int) -> bytes:
        with self._lock:
            if self._whole is not None:
                return _pread(self._whole.fileno(), count, offset)
            parts = []
            end = min(offset + count, self._size)
            while offset < end:
                block = self._block(offset // _BLOCK_BYTES)
                part = block[offset % _BLOCK_BYTES :][: end - offset]
                if not part:
                    break
                parts.append(part)
                offset += len(part)
            return b"".join(parts)

    def _block(self, number: int) -> bytes:
        block = self._blocks.get(number)
        if block is None:
            start = number * _BLOCK_BYTES
            end = min(start + _BLOCK_BYTES, self._size)
            with _explained(self._name):
                block = (
                    self._system.cat_file(self._path, start=start, end=end) if start < end else b""
                )
            self._blocks[number] = block
            if len(self._blocks) > _BLOCKS_KEPT:
                self._blocks.popitem(last=False)
        else:
            self._blocks.move_to_end(number)
        return block

    def _take_whole(self) -> None:
        """Of a server that gives no parts of files: into a file without a name."""
        self._blocks.clear()
        self._whole = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            with _explained(self._name):
                self._system.get_file(self._path, self._whole)
            self._whole.flush()
            self._size = os.fstat(self._whole.fileno()).st_size
        except BaseException:
            self.close()
            raise

    def held(self) -> bool:
        return False

    def close(self) -> None:
        self._blocks.clear()
        if self._whole is not None:
            self._whole.close()


def _system(name: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it."""
    try:
        core = importlib.import_module("fsspec.core")
    except ImportError:
        raise InputFileError(f"{name}: URLs need fsspec ({_MISSING})") from None
    scheme = name.partition("://")[0]
    if "::" in name or scheme in ("reference", "local", "filecache", "simplecache", "blockcache"):
        raise UsageError(f"expected a URL such as s3://bucket/folder, not {name}")
    with _explained(name):
        system, path = core.url_to_fs(name)
    return system, path


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn whatever a file system raises into one sentence: each has errors of its own."""
    try:
        yield
    except InputFileError:
        raise
    except Exception as error:
        raise InputFileError(f"{name}: {_reason(name.partition('://')[0], error)}") from None


def _reason(scheme: str, error: Exception) -> str:
    first = str(error).partition("\n")[0]
    if isinstance(error, ImportError):
        package = _PACKAGES.get(scheme.lower())
        hint = first if package is None else f"pip install {package}"
        return f"{scheme}:// needs a package that is not installed ({hint})"
    if isinstance(error, FileNotFoundError):
        cause = error.__cause__
        if isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError):
            return str(cause).partition("\n")[0]
        return "there is no such file or folder"
    if isinstance(error, ValueError) and first.startswith("Protocol not known"):
        return f"{scheme}:// is no kind of URL that fsspec knows"
    if isinstance(error, OSError) and error.strerror:
        return os_error_text(error)
    return first or type(error).__name__


_PACKAGES: Final = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp",
    "https": "aiohttp", "abfs": "adlfs", "az": "adlfs", "sftp": "paramiko", "ssh": "paramiko",
}  # fmt: skip
