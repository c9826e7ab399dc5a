"""The filter language, and what it matches."""

import pytest

from workbench.trace.reader import Trace
from workbench.tui.language import FilterError, completions, parse
from workbench.tui.log import AccessLog
from workbench.tui.matches import Matches


def rows(trace: Trace, text: str) -> list[int]:
    matches = Matches(AccessLog(trace), parse(text, trace.icount))
    found, row = [], matches.after(-1)
    while row is not None:
        found.append(row)
        row = matches.after(row)
    assert len(found) == matches.known
    back, row = [], matches.before(matches.log.rows)
    while row is not None:
        back.append(row)
        row = matches.before(row)
    assert back[::-1] == found
    return found


def test_terms_against_the_table(trace: Trace) -> None:
    table = trace.accesses.to_pylist()
    half = trace.icount // 2

    def wanted(test):
        return [n for n, row in enumerate(table) if test(row)]

    assert rows(trace, "device=com* and write") == wanted(
        lambda r: r["device"].startswith("com") and r["write"]
    )
    assert rows(trace, "value&0x20 count>50%") == wanted(
        lambda r: r["value"] & 0x20 and r["icount"] > half
    )
    assert rows(trace, "value&0xf0=0x60 or size=4") == wanted(
        lambda r: r["value"] & 0xF0 == 0x60 or r["size"] == 4
    )
    assert rows(trace, "not (pio or cfg)") == wanted(lambda r: r["kind"] == "mmio")
    assert rows(trace, "row<3") == [0, 1, 2]


def test_registers_are_decoded(trace: Trace) -> None:
    log = AccessLog(trace)
    found = rows(trace, "register=LSR and fields=*THRE=1*")
    assert found
    assert all(log.access(row).register == "LSR" for row in found)
    assert rows(trace, "lsr") == rows(trace, "LSR")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("device=", "expected a value for device, not the end (at character 8)"),
        ("value>abc", "expected a number for value, not 'abc' (at character 7)"),
        ("(write", "expected ')', not the end (at character 7)"),
        ("colour=red", "expected one of device, register"),
        ("write )", "expected a term, not ')' (at character 7)"),
        ("device<3", "expected device= or device!=, not device< (at character 1)"),
        ("(" * 60, "expected fewer levels of parentheses"),
    ],
)
def test_errors_name_the_place(text: str, error: str) -> None:
    with pytest.raises(FilterError) as caught:
        parse(text, 100)
    assert str(caught.value).startswith(error)


def test_completion() -> None:
    names = {"device": ["ide0", "ide1", "com1"]}
    assert [w for w, _, _ in completions("wri", names)] == ["write"]
    assert completions("write and device=ide", names)[0] == ("ide0", -3, "device")
    assert ("register=", -3, "name of the register") in completions("reg", names)
