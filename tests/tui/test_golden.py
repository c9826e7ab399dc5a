"""Screens of the demo's trace, as text. `WORKBENCH_GOLDEN=1 pytest tests/tui` writes them anew."""

import os
from pathlib import Path

import pytest

from workbench.tui.screen import compose
from workbench.tui.view import View

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("size", [(80, 24), (160, 48)], ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("key", ["1", "2", "3", "5", "6"])
def test_screen(view: View, size: tuple[int, int], key: str) -> None:
    session = view.session
    view.choose_layout(key)
    session.set_filter("device!=port80")
    session.inspected = "pit"
    session.go_to_row(60)
    session.travel.step(1)
    session.say("")
    session.driver.checkpoints = []  # where they are depends on how fast the host is
    session.trace.path = "demo.wbt"
    lines = ["".join(text for _, text in line).rstrip() for line in compose(view, *size)]
    text = "\n".join(lines) + "\n"
    path = GOLDEN / f"{key}-{size[0]}x{size[1]}.txt"
    if os.environ.get("WORKBENCH_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()
