"""The code pane: where operands in memory are."""

from __future__ import annotations

from workbench.tui.disassembly import disassemble, effective
from workbench.tui.lines import plain
from workbench.tui.session import Session
from workbench.tui.view import View


def test_operands_that_no_register_moves() -> None:
    code = bytes.fromhex("8b05100000008b038b042500100000658b042500100000c3")
    found = disassemble(code, 0x1000, 64, 9)
    assert [i.is_static for i in found] == [True, False, True, False, False]


def test_they_are_resolved_on_every_line(view: View, session: Session) -> None:
    """Not only on the current one, where the value is shown, too."""
    moment = session.moment
    assert moment is not None
    code = view.panes["code"]
    lines = [plain(line) for line in code.draw(100, 60, focused=True)]
    shown = disassemble(moment.bytes_at(moment.pc, 60 * 15), moment.pc, moment.bits, 60)
    static = [i for i in shown if i.is_static]
    for i in static:
        (line,) = (line for line in lines if f"{i.address:016x}" in line)
        place = effective(i, moment)
        assert place is not None
        assert "  ; " in line
