"""The header of a trace: what made it, which machine, which guest; and its JSON forms, checked."""

from __future__ import annotations

import functools
import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import workbench
from workbench.errors import FormatError
from workbench.trace.container import BLOB_PART_BYTES, FORMAT_VERSION
from workbench.trace.provenance import MAX_DISKS, DiskFacts

MAX_IMAGES = 64
MAX_IMAGE_BYTES = 1 << 32
MAX_NAME = 4096


@dataclass(frozen=True, slots=True)
class Image:
    """A file that the guest was started with: its role (`kernel`, `initrd`), size and SHA-256."""

    role: str
    path: str
    size_bytes: int
    sha256: str
    embedded: bool

    @property
    def parts(self) -> int:
        """How many BLOB chunks hold it."""
        return -(-self.size_bytes // BLOB_PART_BYTES) if self.embedded else 0

    @classmethod
    def of(cls, role: str, path: str, data: bytes, embedded: bool) -> Image:
        """Describe `data`; keeps the absolute path only where the data stay outside."""
        where = Path(path).name if embedded else str(Path(path).resolve())
        return cls(role, where, len(data), hashlib.sha256(data).hexdigest(), embedded)


@dataclass(frozen=True, slots=True)
class Header:
    """What the HEAD chunk says."""

    machine: dict[str, Any]
    """The MachineConfig as JSON: RAM, clock, RTC start, RDRAND seed, board."""
    images: tuple[Image, ...] = ()
    loader: str = "kernel"
    cmdline: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    """The command line options of the recorder, for people."""
    created: str = ""
    host: dict[str, str] = field(default_factory=dict)
    workbench_version: str = workbench.__version__
    format_version: int = FORMAT_VERSION

    def image(self, role: str) -> Image | None:
        """Find an image by its role."""
        return next((image for image in self.images if image.role == role), None)

    def to_json(self) -> dict[str, Any]:
        """Give the JSON form."""
        return {
            "format_version": self.format_version,
            "workbench_version": self.workbench_version,
            "created": self.created,
            "host": self.host,
            "machine": self.machine,
            "loader": self.loader,
            "cmdline": self.cmdline,
            "options": self.options,
            "images": [
                {
                    "role": image.role,
                    "path": image.path,
                    "size_bytes": image.size_bytes,
                    "sha256": image.sha256,
                    "embedded": image.embedded,
                }
                for image in self.images
            ],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Header:
        """Check and take the JSON form; raises `FormatError`."""
        images = _get(value, "images", list)
        if len(images) > MAX_IMAGES:
            raise FormatError(f"the header names {len(images)} images, too many")
        return cls(
            machine=_get(value, "machine", dict),
            images=tuple(_image(item) for item in images),
            loader=_get(value, "loader", str),
            cmdline=_get(value, "cmdline", str),
            options=_get(value, "options", dict),
            created=_get(value, "created", str),
            host={str(k): str(v) for k, v in _get(value, "host", dict).items()},
            workbench_version=_get(value, "workbench_version", str),
            format_version=_get(value, "format_version", int),
        )


def _image(value: object) -> Image:
    if not isinstance(value, dict):
        raise FormatError("the header's list of images is malformed")
    image = Image(
        role=_get(value, "role", str),
        path=_get(value, "path", str),
        size_bytes=_get(value, "size_bytes", int),
        sha256=_get(value, "sha256", str),
        embedded=_get(value, "embedded", bool),
    )
    if not 0 <= image.size_bytes <= MAX_IMAGE_BYTES:
        raise FormatError(f"the header claims an image of {image.size_bytes:,} bytes")
    if len(image.role) > MAX_NAME or len(image.path) > MAX_NAME or len(image.sha256) != 64:
        raise FormatError("the header's list of images is malformed")
    return image


@dataclass(frozen=True, slots=True)
class Mark:
    """A MARK chunk: everything before it is complete; `events` were recorded up to `icount`."""

    icount: int
    events: int

    def to_json(self) -> dict[str, Any]:
        """Give the JSON form."""
        return {"icount": self.icount, "events": self.events}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Mark:
        """Check and take the JSON form; raises `FormatError`."""
        mark = cls(_get(value, "icount", int), _get(value, "events", int))
        if mark.icount < 0 or mark.events < 0:
            raise FormatError("a mark has negative counts")
        return mark


@dataclass(frozen=True, slots=True)
class End:
    """The END_ chunk of a closed trace: where and why the run stopped."""

    icount: int
    time_ps: int
    events: int
    stop: str
    code: int
    reason: str
    wall_s: float
    digest: str
    """The last full digest as hex digits; empty when there is none."""
    disks: tuple[DiskFacts, ...] = ()
    """The images behind the drives, as far as they were read to their ends."""

    def to_json(self) -> dict[str, Any]:
        """Give the JSON form."""
        return {
            "icount": self.icount,
            "time_ps": self.time_ps,
            "events": self.events,
            "stop": self.stop,
            "code": self.code,
            "reason": self.reason,
            "wall_s": round(self.wall_s, 6),
            "digest": self.digest,
            "disks": [disk.to_json() for disk in self.disks],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> End:
        """Check and take the JSON form; raises `FormatError`."""
        end = cls(
            icount=_get(value, "icount", int),
            time_ps=_get(value, "time_ps", int),
            events=_get(value, "events", int),
            stop=_get(value, "stop", str),
            code=_get(value, "code", int),
            reason=_get(value, "reason", str),
            wall_s=float(_get(value, "wall_s", (int, float))),
            digest=_get(value, "digest", str),
            disks=_disks(value),
        )
        if end.icount < 0 or end.events < 0 or end.time_ps < 0:
            raise FormatError("the end of the trace has negative counts")
        return end


def _disks(value: Mapping[str, Any]) -> tuple[DiskFacts, ...]:
    if "disks" not in value:  # not known before 0.2
        return ()
    disks = _get(value, "disks", list)
    if len(disks) > MAX_DISKS:
        raise FormatError(f"the end of the trace names {len(disks)} disks, too many")
    return tuple(DiskFacts.from_json(item) for item in disks)


_DEVICES: Final = ("block", "firmware", "hw", "net")


@functools.cache
def _devices_key() -> str:
    """Hash of what decides how devices answer, and of what the guest finds at its start."""
    root = Path(workbench.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(path for part in _DEVICES for path in (root / part).rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()[:32]


def other_maker(header: Header) -> str:
    """A sentence for a trace whose replay may be another run than the recording, or ""."""
    from workbench.core.build import source_key

    host = header.host
    if host.get("engine") != source_key():
        what = "by another engine, that"
    elif host.get("devices", "") not in ("", _devices_key()):
        what = "with other models of devices, those"
    else:
        return ""
    return (
        f"it was recorded {what} of workbench {header.workbench_version}"
        f" (this is {workbench.__version__})"
    )


def host_facts() -> dict[str, str]:
    """Say on what the recording was made; for people, never for replay."""
    from workbench.core.build import source_key

    return {
        "engine": source_key(),
        "devices": _devices_key(),
        "system": platform.system(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def dump_json(value: Mapping[str, Any]) -> bytes:
    """Encode a JSON chunk."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True).encode()


def load_json(payload: bytes) -> dict[str, Any]:
    """Decode a JSON chunk, which has to be an object; raises `FormatError`."""
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        raise FormatError("a part of the trace is not valid JSON") from None
    if not isinstance(value, dict):
        raise FormatError("a part of the trace is not a JSON object")
    return value


def _get(value: Mapping[str, Any], key: str, kind: type | tuple[type, ...]) -> Any:
    found = value.get(key)
    wrong = not isinstance(found, kind) or (kind is int and isinstance(found, bool))
    if wrong or (isinstance(found, int) and not -(1 << 63) <= found < (1 << 64)):
        raise FormatError(f"the trace states no valid {key}")
    return found
