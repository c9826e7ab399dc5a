"""What `monitor watch dma|irq|request` is told, as watches of a timeline."""

from __future__ import annotations

from typing import Final

from workbench.gdbstub.commands import Wrong
from workbench.trace.eventwatch import DmaWatch, EventWatch, IrqWatch, RequestWatch

WATCHED_EVENTS: Final = ("dma", "irq", "request")
_DIRECTIONS: Final = {"read": (True, False), "write": (False, True), "both": (True, True)}
_LEVELS: Final = {"high": True, "low": False}


def event_watch(args: list[str]) -> EventWatch:
    """The watch that these words describe; raises `Wrong`."""
    text = " ".join(args)
    match args:
        case ["dma", address, *rest] if len(rest) <= 2:
            reads, writes = _DIRECTIONS["write"]
            if rest and rest[-1] in _DIRECTIONS:
                reads, writes = _DIRECTIONS[rest.pop()]
            if len(rest) <= 1:
                length = _number(rest[0]) if rest else 1
                return DmaWatch(_number(address), max(length, 1), text, reads, writes)
        case ["irq", name]:
            return IrqWatch(name, None, text)
        case ["irq", name, "high" | "low" as level]:
            return IrqWatch(name, _LEVELS[level], text)
        case ["request", device, *rest] if len(rest) % 2 == 0:
            words = dict(zip(rest[::2], rest[1::2], strict=True))
            if words.keys() <= {"lba", "kind", "length"}:
                return RequestWatch(
                    "" if device == "any" else device,
                    text,
                    _span(words["lba"]) if "lba" in words else None,
                    words.get("kind", ""),
                    _span(words["length"]) if "length" in words else None,
                )
        case _:
            pass
    raise Wrong(
        "expected dma ADDRESS [BYTES] [read|write|both], irq LINE [high|low] or"
        f" request DEVICE|any [lba N[-N]] [kind TEXT] [length N[-N]], not {text!r:.200}"
    )


def _number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise Wrong(f"expected a number, not {text!r:.80}") from None


def _span(text: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    return _number(first), _number(last if dash else first)
