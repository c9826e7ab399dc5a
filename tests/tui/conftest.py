"""A session without a terminal: work is done at once, in the test's thread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from workbench.trace.reader import Trace, open_trace
from workbench.tui.layout import Settings
from workbench.tui.session import Session
from workbench.tui.view import View
from workbench.tui.worker import Inline

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "traces" / "v1-demo.wbt"


@pytest.fixture
def trace() -> Iterator[Trace]:
    """The demo guest, as it was recorded once and for all."""
    with open_trace(DEMO) as opened:
        yield opened


@pytest.fixture
def session(trace: Trace) -> Session:
    """A session on it, with its machine."""
    made = Session(trace, lambda name, failed: Inline(failed))
    made.start()
    return made


@pytest.fixture
def view(session: Session) -> View:
    """A view of it."""
    return View(session, Settings({}))
