"""The model without a screen: log, moves, layouts, comparison."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tui.conftest import DEMO
from workbench.errors import FormatError
from workbench.trace.decode import Decoder
from workbench.trace.reader import Trace, open_trace
from workbench.tui import commands, layout
from workbench.tui import log as logs
from workbench.tui.keys import KEYS
from workbench.tui.layout import LAYOUTS, Rect, Settings, arrange
from workbench.tui.log import AccessLog
from workbench.tui.panes.console import readable
from workbench.tui.screen import compose
from workbench.tui.session import Session
from workbench.tui.view import NAMES, View
from workbench.tui.worker import Inline, Job


def test_the_log_says_what_the_decoder_says(trace: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "BLOCK", 64)
    log = AccessLog(trace)
    log.index(lambda: False)
    decode = Decoder(trace.header.machine).decode
    expected = [
        decode(r["kind"], r["device"], r["offset"], r["size"], r["value"], r["write"])
        for r in trace.accesses.to_pylist()
    ]
    for row in (*range(log.rows - 1, -1, -7), *range(0, log.rows, 11)):
        found = log.access(row)
        assert (found.register, found.fields) == (expected[row].name, expected[row].meaning)
    counts = trace.accesses["icount"].to_pylist()
    for icount in (0, counts[0], counts[9] + 1, counts[-1], counts[-1] + 1):
        assert log.row_at(icount) == sum(1 for c in counts if c < icount)


def test_moving(session: Session) -> None:
    session.travel.next_access(True, False)
    first = session.icount
    assert first == session.log.icount(0)
    assert session.moment is not None
    assert session.moment.icount == first
    session.travel.next_access(True, False)
    second = session.icount
    assert second > first
    session.travel.next_access(False, False)
    assert session.icount == first
    session.travel.step(1)
    assert session.moment.icount == first + 1
    session.travel.step(-1)
    assert session.icount == first
    session.go_to_row(20)
    session.back()
    assert session.icount == first
    session.forward()
    assert session.icount == session.log.icount(20)
    session.set_filter("device=com1 and write")
    session.travel.next_access(True, True)
    assert session.log.access(session.row).device == "com1"
    session.travel.next_event("interrupts", True)
    assert session.icount in session.events.interrupts


def test_blocks_and_functions_there_and_back(session: Session) -> None:
    session.go_to_row(5)
    places = [session.icount]
    for _ in range(4):
        session.travel.block(True)
        places.append(session.icount)
    assert places == sorted(set(places))
    for place in places[-2::-1]:
        session.travel.block(False)
        if place == places[0]:
            assert session.icount <= place
        else:
            assert session.icount == place
    session.travel.function(True)
    later = session.icount
    session.travel.function(False)
    assert session.icount < later


def test_who_wrote_it(session: Session) -> None:
    session.go_to_row(30)
    assert session.moment is not None
    stack = session.moment.registers["rsp"]
    session.travel.find_writer(stack, 4)
    assert re.search(r"was written by putc\+0x\w+, instruction [\d,]+", session.message)
    assert session.icount < session.log.icount(30)


def test_who_wrote_a_register(session: Session, view: View) -> None:
    last: dict[tuple[str, str], int] = {}
    pairs = []
    for row in range(session.log.rows):
        access = session.log.access(row)
        place = access.device, access.register
        if place in last:
            pairs.append((row, last[place]))
        if access.write:
            last[place] = row
    view.focus = "log"
    (writer,) = (key for key in KEYS if key.shown == "w")
    for row, written in pairs[:: max(len(pairs) // 9, 1)]:
        session.go_to_row(row)
        writer.run(view)
        assert session.row == written
        assert "was written by" in session.message
    access = session.log.access(pairs[-1][0])
    session.go(session.end_icount)
    commands.run(view, f"writer {access.device} {access.register}")
    assert session.row == last[access.device, access.register]
    commands.run(view, f"writer {access.device} nonsense")
    assert session.message.startswith("nobody has written to")


def test_a_dump_of_this_position(view: View, tmp_path: Path) -> None:
    session, path = view.session, tmp_path / "a core"
    session.go(20_000)
    commands.run(view, f"dump '{path}'")
    assert "of memory at instruction 20,000" in session.message
    assert path.read_bytes()[:4] == b"\x7fELF"
    commands.run(view, f"dump '{path}'")
    assert session.message == f"{path} exists: expected a new file"
    session.go(20_001)
    assert session.moment is not None
    assert session.moment.icount == 20_001


def test_breakpoints(session: Session) -> None:
    session.go_to_row(10)
    assert session.moment is not None
    pc = session.moment.pc
    session.toggle_breakpoint(pc)
    session.go(0)
    session.travel.run(True)
    assert session.moment.pc == pc
    assert session.message == "breakpoint"


def test_the_guest_prints_nothing_into_the_terminal() -> None:
    assert readable(b"a\x1b[2Jb\x1b]0;title\x07c\r\nold\rnew\nx\x07\x9b\b!\n") == [
        "abc",
        "new",
        "x\\x07!",
        "",
    ]


@pytest.mark.parametrize("size", [(80, 24), (160, 48), (43, 9), (300, 100)])
@pytest.mark.parametrize("key", [k for k in LAYOUTS if k != "7"])
def test_every_layout_fits_every_size(view: View, size: tuple[int, int], key: str) -> None:
    view.choose_layout(key)
    view.session.go_to_row(40)
    lines = compose(view, *size)
    assert len(lines) == size[1]
    assert {sum(len(text) for _, text in line) for line in lines} == {size[0]}
    for rect in view.rects.values():
        assert 0 <= rect.x < rect.x + rect.width <= size[0]


def test_keys_are_listed_once_and_run(view: View) -> None:
    keys = [one for key in KEYS for one in key.keys]
    assert len(set(keys)) == len(keys)
    view.overlay = "help"
    text = "\n".join("".join(t for _, t in line) for line in compose(view, 160, 100))
    for key in KEYS:
        assert key.help in text
    view.overlay = ""
    for key in KEYS:
        key.run(view)
        view.asking = view.overlay = ""
        compose(view, 80, 24)


@pytest.mark.parametrize("command", commands.COMMANDS, ids=lambda c: c.name)
def test_commands_say_what_they_expect(view: View, command: commands.Command) -> None:
    commands.run(view, f"{command.name} a b c d")
    if command.name not in ("filter", "when", "help", "quit", "first"):
        assert view.session.error, command.name
        assert "expected" in view.session.message
    assert any(word == command.name for word, _, _ in commands.completions(view, command.name))


def test_layouts_are_saved_and_checked(view: View, tmp_path: Path) -> None:
    path = tmp_path / "conf" / "tui.json"
    tree = layout.resize(view.tree, "log", 1.25, "rows")
    assert arrange(tree, Rect(0, 0, 80, 40))["log"].height > 18
    layout.save(path, Settings({"1": tree}, "2", "light"))
    assert layout.load(path, NAMES) == Settings({"1": tree}, "2", "light")
    for wrong in ("{", "[]", json.dumps({"version": 1, "layouts": {"1": ["rows", 0, "log"]},
                                         "layout": "1", "theme": "auto"})):  # fmt: skip
        path.write_text(wrong)
        with pytest.raises(FormatError):
            layout.load(path, NAMES)


def test_single_rows_are_decoded_as_the_whole(trace: Trace) -> None:
    log = AccessLog(trace)
    log.index(lambda: False)
    log.decode(log.block(0))
    whole = [log.seen(row) for row in range(log.rows)]
    ordered = ("pic0", "pic1", "rtc")  # what their registers mean follows from earlier writes
    for row, access in enumerate(whole):
        assert access is not None
        if access.device in ordered or row % 20 == 0:
            log._blocks.clear()
            assert log.access(row) == access
            assert not log.fresh(0)
            assert log.fresh(0, np.array([row]))
            assert {log.seen(other) for other in range(log.rows)} <= {None, *whole}
            assert sum(log.seen(other) is not None for other in range(row + 1, log.rows)) == 0


def test_comparing_moves_both(session: Session) -> None:
    with open_trace(DEMO) as other:
        second = Session(other, lambda name, failed: Inline(failed))
        second.start()
        view = View(session, Settings({}), None, second)
        assert view.comparison is not None
        view.comparison.start()
        assert session.message == "the runs match"
        session.go_to_row(33)
        session.travel.step(1)
        view.comparison.follow()
        assert second.icount == session.icount
        lines = compose(view, 120, 30)
        assert all(sum(len(t) for _, t in line) == 120 for line in lines)
        view.comparison.first_instruction()
        assert session.message == "the runs do not differ"


def test_the_page_lists_every_key() -> None:
    page = (DEMO.parents[1] / "docs" / "tui.md").read_text()
    for key in KEYS:
        assert f"| `{key.shown}` | {key.help} |" in page


class Later(Inline):
    """A worker that has not begun yet."""

    def submit(self, name: str, work: Any, done: Callable[[Any], None]) -> Job:
        self.job = Job(name, work, done)
        return self.job

    def run(self) -> None:
        job, self.job = self.job, None
        assert job is not None
        job.done(job.work(job))


def test_comparing_can_be_stopped_and_begun_again(session: Session) -> None:
    with open_trace(DEMO) as other:
        second = Session(other, lambda name, failed: Inline(failed))
        view = View(session, Settings({}), None, second)
        comparison = view.comparison
        assert comparison is not None
        comparison.jobs = jobs = Later(session.fail)
        comparison.start()
        assert "comparing" in comparison.state
        assert jobs.job is not None
        view.cancel()
        jobs.run()
        assert not comparison.ready
        assert session.message == "the traces are not compared; d does it"
        assert comparison.state == "not compared; d does it"
        view.compare(lambda c: c.next_difference(True))
        jobs.run()
        assert comparison.ready
        assert session.message == "the runs match"


def test_a_long_sentence_is_read_as_a_whole(view: View) -> None:
    """Above the status line, until the next key."""
    text = "expected " + ", ".join(f"word{n}" for n in range(30)) + ", not 'this'"
    for width in (40, 80, 120):
        view.session.fail(text)
        lines = ["".join(part for _, part in line) for line in compose(view, width, 24)]
        assert all(len(line) == width for line in lines)
        assert text in " ".join(line.strip() for line in lines)
        view.session.hush()
        assert "word29" not in "".join(
            part for line in compose(view, width, 24) for _, part in line
        )


def test_the_tour_is_readable_where_80_columns_are_enough(view: View) -> None:
    view.tour = 0
    while view.tour is not None:
        shown = ["".join(part for _, part in line) for line in compose(view, 80, 24)]
        place = next(n for n, line in enumerate(shown) if "─ tour" in line)
        assert not any("…" in line for line in shown[place + 1 : -1])
        assert len(shown) == 24
        view.next_tour(1)
