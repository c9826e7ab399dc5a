"""Colours: one class for each meaning; dark, light, and without colour.

Without colour everything is still told apart by words, signs, bold and reverse.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Final

from prompt_toolkit.output import ColorDepth
from prompt_toolkit.styles import Style

_MONO: Final = {
    "title": "",
    "title.focus": "bold reverse",
    "border": "",
    "border.focus": "bold",
    "status": "reverse",
    "status.busy": "reverse bold",
    "error": "bold reverse",
    "count": "",
    "dim": "",
    "name": "",
    "device": "",
    "register": "bold",
    "read": "",
    "write": "bold",
    "value": "",
    "changed": "bold underline",
    "address": "",
    "symbol": "",
    "mnemonic": "",
    "branch": "bold",
    "selected": "reverse",
    "selected.idle": "underline",
    "current": "bold",
    "breakpoint": "bold reverse",
    "mark": "bold",
    "on": "bold",
    "off": "",
    "key": "bold",
    "bar": "",
    "cursor": "reverse",
    "different": "bold reverse",
    "only": "bold",
    "text": "",
    "heading": "bold",
    "stale": "",
    "stale.title": "bold reverse",
}
_DARK: Final = {
    "title": "#9aa5b1",
    "title.focus": "bold #ffffff bg:#2f5d8a",
    "border": "#4c5866",
    "border.focus": "#6fb3ff",
    "status": "bg:#25303b #d5dde5",
    "status.busy": "bg:#6b4e00 #ffffff",
    "error": "bold #ffffff bg:#a02020",
    "count": "#8d99a6",
    "dim": "#77828e",
    "name": "#d7dee6",
    "device": "#e6c07b",
    "register": "#61c6ff",
    "read": "#8fd18f",
    "write": "#ff9e64",
    "value": "#ffffff",
    "changed": "bold #ffd75f",
    "address": "#8d99a6",
    "symbol": "#b7a3ff",
    "mnemonic": "#d7dee6",
    "branch": "bold #ff9e64",
    "selected": "bg:#2b4a6b",
    "selected.idle": "bg:#262f38",
    "current": "bold #ffffff",
    "breakpoint": "bold #ffffff bg:#a02020",
    "mark": "bold #ffd75f",
    "on": "bold #8fd18f",
    "off": "#5c6670",
    "key": "bold #ffd75f",
    "bar": "#61c6ff",
    "cursor": "bg:#d7dee6 #10161c",
    "different": "bg:#5a2d00 #ffffff",
    "only": "bg:#3a2a50 #ffffff",
    "text": "#d7dee6",
    "heading": "bold #ffffff",
    "stale": "#5f6a75",
    "stale.title": "bold #10161c bg:#ffd75f",
}
_LIGHT: Final = {
    **_DARK,
    "title": "#4a5560",
    "title.focus": "bold #ffffff bg:#2f5d8a",
    "border": "#a5b0bb",
    "border.focus": "#1f5fa8",
    "status": "bg:#d8dfe6 #1b242c",
    "status.busy": "bg:#ffe08a #1b242c",
    "count": "#5c6670",
    "dim": "#77828e",
    "name": "#1b242c",
    "device": "#8a5a00",
    "register": "#005fa8",
    "read": "#1d7a1d",
    "write": "#b34700",
    "value": "#000000",
    "changed": "bold #b30059",
    "address": "#5c6670",
    "symbol": "#5a3fc0",
    "mnemonic": "#1b242c",
    "branch": "bold #b34700",
    "selected": "bg:#bcd8f5",
    "selected.idle": "bg:#e3e9ef",
    "current": "bold #000000",
    "mark": "bold #b30059",
    "on": "bold #1d7a1d",
    "off": "#a5b0bb",
    "key": "bold #8a5a00",
    "bar": "#005fa8",
    "cursor": "bg:#1b242c #ffffff",
    "different": "bg:#ffd9a8 #000000",
    "only": "bg:#e3d5f7 #000000",
    "text": "#1b242c",
    "heading": "bold #000000",
    "stale": "#98a3ad",
    "stale.title": "bold #1b242c bg:#ffe08a",
}
_ANSI: Final = {
    **_MONO,
    "title.focus": "bold reverse",
    "border.focus": "ansicyan",
    "status.busy": "bold ansiblack bg:ansiyellow",
    "error": "bold ansiwhite bg:ansired",
    "device": "ansiyellow",
    "register": "ansicyan",
    "read": "ansigreen",
    "write": "ansired",
    "changed": "bold ansimagenta underline",
    "symbol": "ansimagenta",
    "branch": "bold ansired",
    "breakpoint": "bold ansiwhite bg:ansired",
    "mark": "bold ansimagenta",
    "on": "bold ansigreen",
    "key": "bold ansicyan",
    "bar": "ansicyan",
    "different": "bold reverse",
    "only": "bold ansimagenta",
    "stale.title": "bold ansiblack bg:ansiyellow",
}
"""The terminal's own 16 colours, which fit its background, be it dark or light."""
THEMES: Final[Mapping[str, Mapping[str, str]]] = {
    "dark": _DARK, "light": _LIGHT, "mono": _MONO, "ansi": _ANSI
}  # fmt: skip


def depth(environment: Mapping[str, str] = os.environ) -> ColorDepth | None:
    """How many colours the terminal has, by NO_COLOR, TERM and COLORTERM; None if nothing says."""
    term = environment.get("TERM", "")
    if environment.get("NO_COLOR") or term in ("dumb", "vt100", "vt220"):
        return ColorDepth.MONOCHROME
    if environment.get("COLORTERM") in ("truecolor", "24bit") or term.endswith("-direct"):
        return ColorDepth.TRUE_COLOR
    if term in ("linux", "xterm", "screen", "tmux", "ansi") or term.endswith("-16color"):
        return ColorDepth.ANSI_COLORS_ONLY
    return None


def choose(wanted: str, environment: Mapping[str, str] = os.environ) -> str:
    """The theme that is meant by a setting; `auto` looks at COLORFGBG too. With few colours there
    is only one.
    """
    match depth(environment):
        case ColorDepth.MONOCHROME:
            return "mono"
        case ColorDepth.ANSI_COLORS_ONLY if wanted != "mono":
            return "ansi"
    if wanted in THEMES:
        return wanted
    background = environment.get("COLORFGBG", "").rpartition(";")[2]
    return "light" if background in ("7", "15") else "dark"


@cache
def style(theme: str) -> Style:
    """The style of a theme for prompt_toolkit; for another object it would draw everything anew."""
    extra = {
        "completion-menu.completion": "reverse" if theme == "mono" else "bg:#3a4654 #ffffff",
        "completion-menu.completion.current": "bold" if theme == "mono" else "bg:#6fb3ff #000000",
        "completion-menu.meta.completion": "" if theme == "mono" else "bg:#303a46 #c0c8d0",
        "completion-menu.meta.completion.current": "" if theme == "mono" else "bg:#4f8fd0 #000000",
    }
    return Style.from_dict({**THEMES[theme], **extra})
