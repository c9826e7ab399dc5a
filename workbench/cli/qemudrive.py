"""QEMU's options of `-drive` that name nothing of ours: the values that say what happens anyway are
taken, the others refused with a sentence about what happens instead.
"""

from __future__ import annotations

from typing import Final

from workbench.errors import UsageError

__all__ = ["KEYS", "understood"]

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
KEYS: Final = (*_OTHER_NAMES, *_TAKEN, *_PLACE, "snapshot")

Values = dict[str, str]


def understood(spec: str, given: Values, place: int) -> Values:
    """The options without those that only QEMU has; `place` is the one that an IDE drive gets.
    Raises UsageError.
    """
    values = {_OTHER_NAMES.get(key, key): value for key, value in given.items()}
    for key, (taken, why) in _TAKEN.items():
        if values.get(key, taken[0]) not in taken:
            raise UsageError(
                f"expected --drive {key}={' or '.join(taken)}, not {values[key]!r}: {why}"
            )
    _check_snapshot(spec, values)
    _check_place(values, place)
    return {key: value for key, value in values.items() if key == "media" or key not in KEYS}


def _check_snapshot(spec: str, values: Values) -> None:
    through = values.get("rw") == "on"
    if "snapshot" in values and values["snapshot"] != ("off" if through else "on"):
        raise UsageError(
            f"--drive {spec}: writes go to the image with rw=on, and else stay in memory; expected "
            f"snapshot={'off with' if through else 'on without'} rw=on"
        )


def _check_place(values: Values, place: int) -> None:
    given = {key: values[key] for key in _PLACE if key in values}
    if not given:
        return
    if values.get("if", "ide") not in ("ide", "cdrom"):
        raise UsageError(f"expected --drive {next(iter(given))}= for an IDE drive only")
    bus, unit = divmod(place, 2)
    places = {"index": place, "bus": bus, "unit": unit}
    for key, value in given.items():
        if value != str(places[key]):
            raise UsageError(
                f"expected --drive {key}={places[key]} (or none), not {value!r}: IDE drives get "
                "index 0 to 3 in their order, two on each bus"
            )
