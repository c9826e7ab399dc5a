"""What lies over the panes: the list of all keys, made from their table, and the tour."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from workbench.tui.keys import KEYS
from workbench.tui.lines import Line

if TYPE_CHECKING:
    from workbench.tui.view import View


def overlay(view: View, width: int, height: int) -> list[Line]:
    """The lines of what is open, from where it is scrolled to."""
    text = _keys(width)
    view.overlay_top = max(0, min(view.overlay_top, len(text) - height + 1))
    shown = text[view.overlay_top : view.overlay_top + height - 1]
    more = "" if view.overlay_top + height - 1 >= len(text) else "   Down for more"
    return [*shown, *([[]] * (height - 1 - len(shown))), [("class:dim", f"Esc closes{more}")]]


def _keys(width: int) -> list[Line]:
    entries: list[Line] = []
    for group, keys in groupby(KEYS, key=lambda key: key.group):
        entries.append([("class:heading", group)])
        for key in keys:
            entries.append([("class:key", f"  {key.shown:<10} "), ("class:text", key.help)])
        entries.append([])
    from workbench.tui.commands import COMMANDS

    entries.append([("class:heading", "commands, behind :")])
    for command in COMMANDS:
        entries.append([("class:key", f"  {command.usage:<36} "), ("class:text", command.help)])
    columns = max(width // 90, 1)
    if columns == 1:
        return entries
    down = -(-len(entries) // columns)
    from workbench.tui.lines import fit

    blank: Line = []
    out = []
    for row in range(down):
        line: Line = []
        for at in range(row, down * columns, down):
            line += fit(entries[at] if at < len(entries) else blank, width // columns)
        out.append(line)
    return out
