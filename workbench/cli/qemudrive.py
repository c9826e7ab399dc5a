"""QEMU's options of `-drive` that name nothing of ours: the values that say what happens anyway are
taken, the others refused with a sentence about what happens instead.
"""

from __future__ import annotations

from typing import Final

from workbench.core.config import IDE_PLACES
from workbench.errors import UsageError

__all__ = ["DEVICE_PLACE", "KEYS", "device_place", "understood"]

_OTHER_NAMES: Final = {"read-only": "readonly", "file.filename": "file", "driver": "format"}
_TAKEN: Final = {
    "cache": (
        ("writeback", "none", "unsafe"),
        "the guest's disk has a write cache, and what it flushes is on stable storage",
    ),
    "aio": (("threads", "native", "io_uring"), "how an image is read makes no difference"),
    "discard": (("unmap", "on"), "with rw=on, what the guest discards is given back to the host"),
    "detect-zeroes": (("off",), "zeroes that the guest writes are written as they are"),
    "copy-on-read": (("off",), "nothing that is only read is written to an image"),
    "rerror": (("report", "auto"), "the guest is told of what cannot be read"),
    "werror": (("stop",), "a run ends when its image cannot be written"),
    "media": (("disk", "cdrom"), "a drive is a disk or a CD-ROM drive"),
}
"""Option: the values that are taken, and what is always so."""
_PLACE: Final = ("index", "bus", "unit")
DEVICE_PLACE: Final = ("bus", "unit")
_BUSES: Final = {"ide.0": "0", "ide.1": "1"}
KEYS: Final = (*_OTHER_NAMES, *_TAKEN, *_PLACE, "snapshot")

Values = dict[str, str]


def understood(spec: str, given: Values) -> tuple[Values, int]:
    """The options without those that only QEMU has, and the place that they give to an IDE drive,
    -1 for none. Raises UsageError.
    """
    values = {_OTHER_NAMES.get(key, key): value for key, value in given.items()}
    for key, (taken, why) in _TAKEN.items():
        if values.get(key, taken[0]) not in taken:
            raise UsageError(
                f"expected --drive {key}={' or '.join(taken)}, not {values[key]!r}: {why}"
            )
    _check_snapshot(spec, values)
    place = _place(values)
    left = {key: value for key, value in values.items() if key == "media" or key not in KEYS}
    return left, place


def device_place(option: str, given: Values) -> int:
    """The place that `--device` gives to an IDE drive, whose buses are called ide.0 and ide.1."""
    values: Values = {key: given[key] for key in DEVICE_PLACE if key in given}
    if "bus" in values:
        if values["bus"] not in _BUSES:
            raise UsageError(f"expected {option} bus={' or '.join(_BUSES)}, not {values['bus']!r}")
        values["bus"] = _BUSES[values["bus"]]
    return _place(values)


def _check_snapshot(spec: str, values: Values) -> None:
    through = values.get("rw") == "on"
    if "snapshot" in values and values["snapshot"] != ("off" if through else "on"):
        raise UsageError(
            f"--drive {spec}: writes go to the image with rw=on, and else stay in memory; expected "
            f"snapshot={'off with' if through else 'on without'} rw=on"
        )


def _place(values: Values) -> int:
    """Two drives on each of two buses; an index counts them through."""
    given = {key: values[key] for key in _PLACE if key in values}
    if not given:
        return -1
    if values.get("if", "ide") not in ("ide", "cdrom"):
        raise UsageError(f"expected --drive {next(iter(given))}= for an IDE drive only")
    if "index" in given and len(given) > 1:
        raise UsageError("expected --drive index=, or bus= and unit=, not both")
    for key, most in (("index", IDE_PLACES - 1), ("bus", 1), ("unit", 1)):
        if key in given and given[key] not in map(str, range(most + 1)):
            raise UsageError(f"expected --drive {key}= from 0 to {most}, not {given[key]!r}")
    if "index" in given:
        return int(given["index"])
    return 2 * int(given.get("bus", "0")) + int(given.get("unit", "0"))
