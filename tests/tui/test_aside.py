"""The screen's thread reads nothing itself: rows that have to be read come a moment later."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from workbench.trace.reader import Trace
from workbench.tui import aside
from workbench.tui.aside import Aside, Helper
from workbench.tui.layout import Settings
from workbench.tui.lines import plain
from workbench.tui.log import BLOCK, AccessLog, Block
from workbench.tui.matches import Matches
from workbench.tui.pages import Pages
from workbench.tui.screen import compose
from workbench.tui.session import Session
from workbench.tui.view import View
from workbench.tui.worker import Inline


class Held(Aside):
    """Answers when the test says so."""

    def __init__(self) -> None:
        self.questions: list[Callable[[], None]] = []

    def ask(self, work: Callable[[], Any], then: Callable[[Any], None]) -> bool:
        self.questions.append(lambda: then(work()))
        return False

    def later(self, work: Callable[[], None]) -> None:
        self.ask(work, lambda _: None)

    def answer(self) -> None:
        questions, self.questions = self.questions, []
        for question in questions:
            question()


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
def view(trace: Trace, held: Held) -> View:
    session = Session(trace, lambda name, failed: Inline(failed), aside=held)
    return View(session, Settings({}))


def shown(view: View) -> list[str]:
    return [plain(line) for line in compose(view, 100, 30)]


def test_rows_come_as_placeholders_and_are_completed(view: View, held: Held) -> None:
    redrawn = []
    view.session.changed = lambda: redrawn.append(1)
    before = shown(view)
    assert not redrawn
    assert sum(line.rstrip().endswith("…") for line in before) > 5
    assert not any(" <- 0x" in line for line in before)
    held.answer()
    assert redrawn, "what has come is to be drawn"
    after = shown(view)
    assert sum(" <- 0x" in line or " -> 0x" in line for line in after) > 5
    assert not any(line.rstrip().endswith("…") for line in after)


def test_the_cursor_moves_among_rows_that_are_not_there_yet(view: View, held: Held) -> None:
    shown(view)
    view.page(1)
    view.move(1)
    assert view.session.row > 5
    assert f"accesses {view.session.row + 1}/1,935" in "\n".join(shown(view))


def test_keys_that_come_faster_than_pages_leave_no_queue(view: View, held: Held) -> None:
    log, read = view.session.log, []
    decode = log.decode

    def note(block: Block, places: Any = None) -> Any:
        read.append(block.first // BLOCK)
        return decode(block, places)

    log.decode = note  # type: ignore[method-assign]
    log.blocks, log.rows = 100, 100 << 12
    for number in range(20, 40):
        view.session.pages.need([number], view.session.matches)
    log.rows = 1935
    view.session.pages.need([0], view.session.matches)
    held.answer()
    assert read == [0], "who is elsewhere by now does not wait for what lies between"


def test_an_answer_to_an_old_question_moves_nothing(view: View, held: Held) -> None:
    session = view.session
    session.place(session.end_icount // 2)
    session.place(1)
    held.answer()
    assert session.row == session.log.row_at(1)
    session.place(session.end_icount // 2)
    held.answer()
    assert session.row == session.log.row_at(session.end_icount // 2) > 0


def test_a_filter_is_looked_through_aside(view: View, held: Held) -> None:
    session = view.session
    session.search.scanning.submit = lambda *_: None  # type: ignore[assignment,method-assign,return-value]
    session.set_filter("device=pit and write")
    assert "… looking for more" in "\n".join(shown(view))
    assert (session.matches.counts == -1).all()
    while held.questions:
        held.answer()
        text = "\n".join(shown(view))
    assert " pit " in text
    assert " com1 " not in text.split("[device=pit")[1].split("─ code")[0]


def test_a_key_is_not_lost_when_its_row_is_found_at_once(trace: Trace) -> None:
    session = Session(trace, lambda name, failed: Inline(failed))
    session.search.scanning.submit = lambda *_: None  # type: ignore[assignment,method-assign,return-value]
    session.pages.need = lambda *_: False  # type: ignore[method-assign]
    view = View(session, Settings({}))
    session.set_filter("device=pit and write")
    view.move(1)
    assert session.log.access(session.row).device == "pit"


def test_the_screens_thread_never_reads_or_decodes(
    trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []

    def noting(name: str) -> None:
        real = getattr(AccessLog, name)

        def noted(self: AccessLog, *args: Any) -> Any:
            threads.append(threading.current_thread().name)
            return real(self, *args)

        monkeypatch.setattr(AccessLog, name, noted)

    for name in ("_read", "decode", "_piece", "_decoder_at"):
        noting(name)
    posted: list[Callable[[], None]] = []
    helper = Helper(posted.append)
    session = Session(trace, lambda name, failed: Inline(failed), aside=helper)
    view = View(session, Settings({}))
    try:
        for act in (
            lambda: None, lambda: view.page(1), lambda: view.pane.edge(True),
            lambda: session.go(session.end_icount // 2, remember=False),
            lambda: session.travel.next_access(False, False), session.back,
            lambda: session.go_to_row(17),
        ):  # fmt: skip
            act()
            for _ in range(3):
                shown(view)
            while posted:
                posted.pop(0)()
        done = threading.Event()
        helper.later(done.set)
        assert done.wait(10)
    finally:
        helper.close()
    assert set(threads) == {"aside"}


def test_what_fails_is_raised_where_it_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ValueError("broken")

    posted: list[Callable[[], None]] = []
    helper = Helper(posted.append)
    try:
        monkeypatch.setattr(aside, "PATIENCE_S", 10)
        helper.key()
        with pytest.raises(ValueError, match="broken"):
            helper.ask(broken, lambda _: None)
        monkeypatch.setattr(aside, "PATIENCE_S", 0)
        helper.key()
        told: list[int] = []
        gate = threading.Event()
        assert not helper.ask(lambda: gate.wait(10) and 7, told.append)
        assert not told
        gate.set()
        while len(posted) < 2:
            pass
        for call in posted:
            call()
        assert told == [7]
        for call in posted:
            call()
        assert told == [7], "once"
    finally:
        helper.close()


def test_neighbours_are_read_before_they_are_asked_for(trace: Trace) -> None:
    log = AccessLog(trace)
    log.blocks = 3
    held = Held()
    matches = Matches(log, None)
    pages = Pages(log, held, lambda: None)
    read: list[int] = []
    log.block = read.append  # type: ignore[assignment,method-assign]
    log.decode = lambda block, places: None  # type: ignore[assignment,method-assign]
    pages.prepare(1, matches)
    pages.prepare(1, matches)
    held.answer()
    assert sorted(read) == [0, 2]


def test_an_inspector_is_rendered_aside(view: View, held: Held) -> None:
    session = view.session
    session.start()
    session.inspected = "cpu"
    view.layout = "8"
    assert "…" in shown(view)[1:3][0]
    held.answer()
    page = shown(view)
    assert any("rip" in line for line in page)
    session.inspected = "pic"
    assert not any("rip" in line for line in shown(view)[1:]), "what another one said"
    session.inspected = "cpu"
    shown(view)
    held.answer()
    assert shown(view)[2:] == page[2:]
