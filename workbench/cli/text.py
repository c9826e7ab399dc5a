"""Small helpers for what people read: safe strings, sizes, counts, JSON, plain tables."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import IO, TYPE_CHECKING, Any, Final

from workbench.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from workbench.trace.reader import Trace

_PATIENCE_S = 0.5
_BETWEEN = 3  # blanks from a column to the next
_NAMES = 32
_TEXT_CELLS = 24
"""Text is wrapped when the terminal is narrow, to no less than this."""
CHECKPOINT_BUDGET: Final = "1G"
"""Memory for checkpoints where nobody says otherwise."""
_UNITS = {"": 20, "K": 10, "M": 20, "G": 30, "T": 40}


def safe(text: str) -> str:
    """Make a string from a file harmless for a terminal: no control characters, one line."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def complain(sentence: str) -> None:
    """Write one sentence to stderr, safe for a terminal."""
    print(f"workbench: {safe(sentence)}", file=sys.stderr)


def meant(word: str, known: Iterable[str]) -> str:
    """Say what somebody may have meant, to be put behind what was given; or nothing."""
    from difflib import get_close_matches

    found = get_close_matches(word, sorted(known), 2)
    return f" (did you mean {' or '.join(found)}?)" if found else ""


def note_unmatched(what: str, wanted: Iterable[str], names: Iterable[str]) -> None:
    """Say on stderr which patterns of a filter fit none of the `what`s that the trace names."""
    known = sorted({name for name in names if name}, key=lambda name: (":" in name, name))
    for pattern in wanted:
        if not any(fnmatchcase(name, pattern) for name in known):
            more = f" and {len(known) - _NAMES:,} more" if len(known) > _NAMES else ""
            have = f"it has {', '.join(known[:_NAMES])}{more}" if known else "it has none"
            complain(f"no {what} in this trace fits {pattern!r}{meant(pattern, known)}: {have}")


def parse_size(text: str) -> int:
    """Read a size as QEMU's `-m` does: MiB without a suffix, else K, M, G or T; returns bytes."""
    number = text.strip().upper().removesuffix("IB").removesuffix("B")
    unit = number[-1:] if number[-1:] in "KMGT" else ""
    try:
        value = int(number.removesuffix(unit)) << _UNITS[unit]
    except ValueError:
        value = 0
    if not 1 << 20 <= value <= 1 << 40:
        raise UsageError(f"expected a memory size such as 256, 512M or 2G, not {text!r}")
    return value


def parse_count(text: str) -> int:
    """Read a count of instructions: `5000000`, `1.2G`, `10M`, `4k`."""
    number = text.strip().upper().replace(",", "").replace("_", "")
    factor = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}.get(number[-1:], 1)
    try:
        value = int(float(number[:-1]) * factor) if factor > 1 else int(number)
    except (ValueError, OverflowError):
        value = 0
    if not 1 <= value < 1 << 62:
        raise UsageError(f"expected a count of instructions such as 5000000 or 1.2G, not {text!r}")
    return value


def size_text(count: int) -> str:
    """Write a number of bytes for people."""
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{count:,} bytes" if unit == "bytes" else f"{value:,.2f} {unit}"


def memory_text(count: int) -> str:
    """Write a size of memory for people."""
    return f"{count >> 20:,} MiB" if count % (1 << 20) == 0 else f"{count:,} bytes"


def seconds_text(time_ps: int) -> str:
    """Write guest time for people."""
    return f"{time_ps / 1e12:,.6f} s"


def print_json(value: Mapping[str, Any]) -> None:
    """Write a JSON document to stdout."""
    json.dump(value, sys.stdout, indent=2)
    sys.stdout.write("\n")


def plain(stream: IO[str]) -> bool:
    """Whether this stream gets text without colours and lines."""
    return not stream.isatty() or os.environ.get("TERM") == "dumb"


def rich_console(stream: IO[str]) -> Console:
    """Make a rich console on a terminal; rich itself respects NO_COLOR."""
    from rich.console import Console

    return Console(file=stream, highlight=False, emoji=False, markup=False)


@contextlib.contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[], None]]:
    """Show on a terminal's stderr how far long work is; gives what to call after each piece."""
    if plain(sys.stderr):
        yield lambda: None
        return
    from rich.progress import Progress

    with Progress(console=rich_console(sys.stderr), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


@contextlib.contextmanager
def reading(trace: Trace, what: str) -> Iterator[None]:
    """Show on a terminal's stderr how far a trace is read, once that takes long."""
    if plain(sys.stderr):
        yield
        return
    from rich.progress import Progress

    start = time.monotonic()
    bar = Progress(console=rich_console(sys.stderr), transient=True)
    task = bar.add_task(what, total=1.0)

    def watch(part: float) -> None:
        if bar.live.is_started:
            bar.update(task, completed=part)
        elif time.monotonic() - start > _PATIENCE_S:
            bar.start()

    trace.watch = watch
    try:
        yield
    finally:
        trace.watch = None
        bar.stop()


def print_pairs(
    title: str, pairs: Sequence[tuple[str, str]], stream: IO[str] | None = None
) -> None:
    """Print names and values as a small table."""
    print_table(title, ("", ""), pairs, stream, right=())


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    stream: IO[str] | None = None,
    right: Sequence[int] = (1,),
) -> None:
    """Print a table, with rich on a terminal and as aligned text elsewhere."""
    out = sys.stdout if stream is None else stream
    cells = [[safe(cell) for cell in row] for row in rows]
    if plain(out):
        _plain_table(title, columns, cells, out, right)
        return
    from rich import box
    from rich.table import Table
    from rich.text import Text

    headed = any(columns)
    console = rich_console(out)
    least = _least_width(columns, cells, right)
    if headed and not columns[-1] and least > console.width:  # bars say nothing of their own
        columns, cells = columns[:-1], [row[:-1] for row in cells]
        least = _least_width(columns, cells, right)
    console.width = max(console.width, least)  # the terminal breaks the lines; nothing is left out
    table = Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD,
        show_header=headed, pad_edge=False,
    )  # fmt: skip
    for place, (name, width) in enumerate(zip(columns, widths([columns, *cells]), strict=True)):
        table.add_column(
            name,
            justify="right" if place in right else "left",
            style="cyan" if place == 0 else "",
            overflow="fold",
            min_width=width if place in right else min(width, _TEXT_CELLS),
        )
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table, crop=False)


def _least_width(
    columns: Sequence[str], cells: Sequence[Sequence[str]], right: Sequence[int]
) -> int:
    """Width of a table with whole numbers, and with text that is wrapped if it is long."""
    found = widths([columns, *cells])
    return sum(
        _BETWEEN + (width if place in right else min(width, _TEXT_CELLS))
        for place, width in enumerate(found)
    )


def _plain_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    out: IO[str],
    right: Sequence[int],
) -> None:
    lines = [list(columns), *rows] if any(columns) else list(rows)
    print(title, file=out)
    print_lines(lines, widths(lines), right, out)


def widths(lines: Sequence[Sequence[str]]) -> list[int]:
    """The widths of columns that all these lines fit into."""
    return [max(map(len, column)) for column in zip(*lines, strict=True)]


def print_lines(
    lines: Sequence[Sequence[str]],
    widths: Sequence[int],
    right: Sequence[int],
    out: IO[str] | None = None,
) -> None:
    """Print lines of safe cells, aligned."""
    for line in lines:
        padded = [
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("  " + "  ".join(padded).rstrip(), file=out)
