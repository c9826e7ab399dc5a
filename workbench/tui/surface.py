"""Lines of styled text as cells of the terminal: the whole screen but the line at the bottom.

A window of prompt_toolkit can scroll, wrap and place a cursor, and notes for each cell where in the
text it is; that is half of the time of a drawing. Here a line is a row, and rows that have been
drawn before are taken as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prompt_toolkit.layout import UIContent, UIControl, Window
from prompt_toolkit.layout.mouse_handlers import MouseHandlers
from prompt_toolkit.layout.screen import Char, Screen, WritePosition
from prompt_toolkit.mouse_events import MouseEvent

from workbench.tui.lines import Line

Draw = Callable[[int, int], list[Line]]
Mouse = Callable[[MouseEvent], None]
_Cells = dict[int, Char]
_REST: Final = Char("", "")
"""The second cell of a wide character."""
_MOST_KEPT: Final = 1 << 12


class _Characters(dict[str, Char]):
    """Those of one style."""

    def __init__(self, style: str) -> None:
        super().__init__()
        self._style = style

    def __missing__(self, character: str) -> Char:
        if len(self) >= _MOST_KEPT:
            self.clear()
        made = self[character] = Char(character, self._style)
        return made


class _Focus(UIControl):
    """Has the keys; what it shows is drawn by its window."""

    def create_content(self, width: int, height: int) -> UIContent:
        """Nothing."""
        return UIContent()

    def is_focusable(self) -> bool:
        """The keys go to the application's bindings."""
        return True


class Surface(Window):
    """Shows what `draw` gives for a width and a height; `mouse` is told of the mouse."""

    def __init__(self, draw: Draw, mouse: Mouse) -> None:
        super().__init__(_Focus(), always_hide_cursor=True)
        self._draw = draw
        self._mouse = mouse
        self._styles: dict[str, _Characters] = {}
        self._rows: dict[tuple[tuple[str, str], ...], _Cells] = {}
        """Those of the last drawing, by their lines."""
        self._left = 0

    def write_to_screen(
        self,
        screen: Screen,
        mouse_handlers: MouseHandlers,
        write_position: WritePosition,
        parent_style: str,
        erase_bg: bool,
        z_index: int | None,
    ) -> None:
        """Draw."""
        left, top = write_position.xpos, write_position.ypos
        width, height = write_position.width, write_position.height
        if len(self._styles) > _MOST_KEPT:
            self._styles.clear()
        if left != self._left:
            self._left, self._rows = left, {}
        rows: dict[tuple[tuple[str, str], ...], _Cells] = {}
        for y, line in enumerate(self._draw(width, height)[:height], top):
            key = tuple(line)
            cells = rows.get(key) or self._rows.get(key) or self._cells(line, left)
            rows[key] = cells
            screen.data_buffer[y].update(cells)
        self._rows = rows
        screen.height = max(screen.height, top + height)
        screen.visible_windows_to_write_positions[self] = write_position
        mouse_handlers.set_mouse_handler_for_range(
            left, left + width, top, top + height, self._mouse
        )

    def _cells(self, line: Line, x: int) -> _Cells:
        cells: _Cells = {}
        for style, text in line:
            known = self._styles.get(style)
            if known is None:
                known = self._styles[style] = _Characters(style)
            if text.isascii():
                cells.update(zip(range(x, x + len(text)), map(known.__getitem__, text)))  # noqa: B905
                x += len(text)
                continue
            for character in text:
                made = known[character]
                if made.width:
                    cells[x] = made
                    for rest in range(x + 1, x + made.width):
                        cells[rest] = _REST
                elif cells:  # it goes on top of the one before
                    at = x - 1
                    while cells[at] is _REST:
                        at -= 1
                    cells[at] = Char(cells[at].char + character, cells[at].style)
                x += made.width
        return cells
