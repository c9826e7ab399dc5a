"""Colours by what the terminal can; one style object for each theme."""

import pytest

from workbench.tui.style import THEMES, choose, style


@pytest.mark.parametrize(
    ("wanted", "environment", "theme"),
    [
        ("auto", {"TERM": "xterm-256color"}, "dark"),
        ("auto", {"TERM": "xterm-256color", "COLORFGBG": "0;15"}, "light"),
        ("light", {"TERM": "xterm-256color"}, "light"),
        ("auto", {"TERM": "linux"}, "ansi"),
        ("dark", {"TERM": "xterm-16color"}, "ansi"),
        ("dark", {"TERM": "xterm", "COLORTERM": "truecolor"}, "dark"),
        ("mono", {"TERM": "linux"}, "mono"),
        ("dark", {"TERM": "xterm-256color", "NO_COLOR": "1"}, "mono"),
        ("auto", {"TERM": "vt100"}, "mono"),
    ],
)
def test_the_theme(wanted: str, environment: dict[str, str], theme: str) -> None:
    assert choose(wanted, environment) == theme


def test_every_theme_has_every_class() -> None:
    assert len({frozenset(theme) for theme in THEMES.values()}) == 1


def test_a_style_is_made_once() -> None:
    """For another object the library would draw the whole screen anew at each key."""
    assert all(style(name) is style(name) for name in THEMES)
