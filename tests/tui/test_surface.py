"""Lines become cells of the terminal as prompt_toolkit's own windows make them."""

from __future__ import annotations

import pytest
from prompt_toolkit.layout import FormattedTextControl, Window
from prompt_toolkit.layout.mouse_handlers import MouseHandlers
from prompt_toolkit.layout.screen import Screen, WritePosition

from workbench.tui.lines import Line
from workbench.tui.surface import Surface

LINES: list[Line] = [
    [("class:a", "plain "), ("class:b", "text"), ("", "      ")],
    [("class:a", "│ box ▁▂ "), ("class:b", "日本"), ("class:c", "xyz")],
    [("class:a", "e\u0301a"), ("", "日\u0301!"), ("class:a", "          ")],
    [],
]


def drawn(window: Window, width: int = 16, height: int = 4, left: int = 0, top: int = 0) -> Screen:
    screen = Screen()
    where = WritePosition(left, top, width, height)
    window.write_to_screen(screen, MouseHandlers(), where, "", False, None)
    return screen


@pytest.mark.parametrize("place", [(0, 0), (3, 2)])
def test_the_cells_are_those_of_the_library(place: tuple[int, int]) -> None:
    ours = drawn(Surface(lambda width, height: LINES, lambda event: None), 16, 4, *place)
    text = [part for line in LINES for part in [*line, ("", "\n")]]
    theirs = drawn(Window(FormattedTextControl(text), always_hide_cursor=True), 16, 4, *place)
    for y in range(8):
        for x in range(24):
            cell, wanted = ours.data_buffer[y][x], theirs.data_buffer[y][x]
            assert (cell.char, cell.width) == (wanted.char, wanted.width), (x, y)
            assert cell.style == wanted.style or cell.char == " ", (x, y)
    assert ours.height == theirs.height
    assert not ours.show_cursor or not ours.cursor_positions


def test_a_line_that_was_drawn_is_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [*LINES]
    surface = Surface(lambda width, height: lines, lambda event: None)
    first = drawn(surface)
    made: list[Line] = []
    cells = surface._cells
    monkeypatch.setattr(surface, "_cells", lambda line, x: made.append(line) or cells(line, x))
    lines = [LINES[1], [("class:a", "new")], LINES[0]]
    second = drawn(surface)
    assert made == [lines[1]]
    assert second.data_buffer[0] == first.data_buffer[1]
    first.data_buffer[1][0] = second.data_buffer[1][0]  # a menu over it
    assert second.data_buffer[0] != first.data_buffer[1]
