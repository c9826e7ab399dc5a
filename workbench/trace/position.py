"""Positions in a recording as people write them, for every command that takes one.

1234567  1.2G  3M  5k     an instruction count
50%                       of the recording
start, end
access:51234              the moment of an access, by its number in the log (from 0)
request:ide0/17           the moment at which a request began
bookmark:NAME             a place that was given a name
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from workbench.errors import UsageError
from workbench.trace import tables

if TYPE_CHECKING:
    from workbench.trace.reader import Trace

__all__ = ["FORMS", "parse"]

FORMS: Final = "COUNT, 50%, start, end, access:N, request:DEVICE/N or bookmark:NAME"
_FACTORS: Final[dict[str, int]] = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_COUNT: Final = re.compile(r"(\d{1,18})(?:\.(\d{1,12}))?([kmgt]?)", re.IGNORECASE)
_PERCENT: Final = re.compile(r"(\d{1,3})(?:\.(\d{1,12}))?%")


def parse(text: str, trace: Trace, bookmarks: Mapping[str, int] | None = None) -> int:
    """The instruction count of a position; raises `UsageError` for what is none.

    A count behind the end of the recording is the end.
    """
    words = text.strip()
    kind, colon, rest = words.partition(":")
    if not colon and " " in words:
        kind, _, rest = words.partition(" ")
    match kind.lower(), rest.strip():
        case "start", "":
            return 0
        case "end", "":
            return trace.icount
        case "access", number if number:
            return _access(trace, number)
        case "request", name if name:
            return _request(trace, name)
        case "bookmark", name if name:
            return _bookmark(name, bookmarks or {})
    return min(_number(words, trace), trace.icount)


def _number(words: str, trace: Trace) -> int:
    plain = words.replace(",", "").replace("_", "")
    if plain.lower().startswith("0x"):
        try:
            return int(plain, 16)
        except ValueError:
            raise _wrong(words) from None
    percent = _PERCENT.fullmatch(plain)
    if percent is not None:
        part = percent[2] or ""
        share, whole = int(percent[1] + part), 100 * int(10 ** len(part))
        if share > whole:
            raise UsageError(f"expected 0% to 100%, not {words!r}")
        return trace.icount * share // whole
    count = _COUNT.fullmatch(plain)
    if count is None or (count[2] and not count[3]):
        raise _wrong(words)
    part = count[2] or ""
    return int(count[1] + part) * _FACTORS.get(count[3].lower(), 1) // int(10 ** len(part))


def _wrong(words: str) -> UsageError:
    return UsageError(f"expected a position ({FORMS}), not {words!r:.80}")


def _access(trace: Trace, text: str) -> int:
    number = text.replace(",", "").replace("_", "")
    left = int(number) if number.isdecimal() and len(number) < 19 else -1
    if left >= 0:
        for batch in trace.batches("accesses", ("icount",)):
            if left < batch.num_rows:
                return int(batch["icount"][left].as_py())
            left -= batch.num_rows
    raise UsageError(
        f"expected an access from 0 to {trace.rows('accesses') - 1:,}, not {text!r:.80}"
    )


def _request(trace: Trace, name: str) -> int:
    device, slash, number = name.rpartition("/")
    if not slash or not number.isdecimal() or len(number) > 19:
        raise UsageError(f"expected a request such as ide0/17, not {name!r:.80}")
    wanted = int(number)
    if "requests" not in tables.BY_NAME:
        raise UsageError(f"the trace has no request {name!r:.80}")
    for batch in trace.batches("requests", ("icount", "device", "id", "phase")):
        columns = (batch[n].to_pylist() for n in ("icount", "device", "id", "phase"))
        for icount, where, found, phase in zip(*columns, strict=True):
            if (where, found, phase) == (device, wanted, "begin"):
                return int(icount)
    raise UsageError(f"the trace has no request {name!r:.80}")


def _bookmark(name: str, bookmarks: Mapping[str, int]) -> int:
    if name not in bookmarks:
        known = ", ".join(sorted(bookmarks)) or "there are none"
        raise UsageError(f"expected a bookmark ({known}), not {name!r:.80}")
    return bookmarks[name]
