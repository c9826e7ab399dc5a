"""Lines of styled text: lists of (style, text), as prompt_toolkit takes them.

A style is the name of a class of `style.py` ("value", "log.write"). Text that comes from a guest or
a file passes `safe` first, so that no control character ever reaches the terminal.
"""

from __future__ import annotations

from collections.abc import Iterable

from prompt_toolkit.utils import get_cwidth

Line = list[tuple[str, str]]


def safe(text: str) -> str:
    """Make a string harmless for a terminal: no control characters, one line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def width_of(line: Iterable[tuple[str, str]]) -> int:
    """Cells that a line takes."""
    return sum(get_cwidth(text) for _, text in line)


def clip(text: str, width: int) -> str:
    """Cut a text to so many cells; what was cut ends in "…"."""
    if text.isascii():
        return text if len(text) <= width else text[: max(width - 1, 0)] + "…" * (width > 0)
    if get_cwidth(text) <= width:
        return text
    out, used = "", 0
    for char in text:
        cells = get_cwidth(char)
        if used + cells > width - 1:
            break
        out, used = out + char, used + cells
    return out + "…" * (width > 0)


def fit(line: Line, width: int, fill: str = "") -> Line:
    """Cut or pad a line to exactly `width` cells; the padding has the style `fill`."""
    out: Line = []
    left = width
    for style, text in line:
        cells = len(text) if text.isascii() else get_cwidth(text)
        if cells > left:
            text = " " * left if text.isspace() else clip(text, left)
            cells = get_cwidth(text)
        if text:
            out.append((style, text))
        left -= cells
        if left <= 0:
            break
    if left > 0:
        out.append((fill, " " * left))
    return out


def restyle(line: Line, style: str) -> Line:
    """Add a style to every part."""
    return [(f"{old} {style}".strip(), text) for old, text in line]


def plain(line: Line) -> str:
    """The text alone."""
    return "".join(text for _, text in line)


def mark(changed: bool) -> str:
    """The style of a value that may have changed since the last stop."""
    return "class:changed" if changed else "class:value"
