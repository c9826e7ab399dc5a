"""What an inspector gives: a page of tables of strings, and how it is shown.

A page is plain data: it can be kept and compared with a later one, printed, or written as JSON.
Its strings may come from guest memory; they are made harmless for a terminal here.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from workbench.inspect.subject import Row, Subject, to_json

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["MARK", "ROWS", "Page", "Table", "pairs", "plain", "render", "table"]

ROWS: Final = 64
"""How many rows of a long table are shown unless more are asked for."""
MARK: Final = "*"
"""Stands before a row that has changed."""
_CHANGED = "bold yellow"
_WORD: Final = 16


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells; the first `keys` cells of a row say which row it is."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    keys: int = 1
    note: str = ""
    subjects: tuple[Subject | None, ...] = ()
    """What the rows stand for; none of them for anything if it is empty."""

    def subject(self, row: int) -> Subject | None:
        """What a row stands for."""
        return self.subjects[row] if row < len(self.subjects) else None


@dataclass(frozen=True, slots=True)
class Page:
    """What an inspector has to say about one thing at one moment."""

    name: str
    title: str
    tables: tuple[Table, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "name": self.name,
            "title": self.title,
            "tables": [
                {
                    "title": t.title,
                    "columns": list(t.columns),
                    "rows": [list(row) for row in t.rows],
                    **({"note": t.note} if t.note else {}),
                    **({"subjects": [to_json(s) for s in t.subjects]} if t.subjects else {}),
                }
                for t in self.tables
            ],
        }


def pairs(title: str, items: Iterable[tuple[str, str] | Row]) -> Table:
    """A table of names and values."""
    return _made(title, (), list(items), 1, "")


def table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str] | Row],
    limit: int = ROWS,
    keys: int = 1,
    note: str = "",
) -> Table:
    """A table of at most `limit` rows, which says when there are more."""
    taken = list(itertools.islice(rows, limit + 1))
    if len(taken) > limit:
        note = f"{note}; " * bool(note) + f"only the first {limit} are shown"
        del taken[limit:]
    return _made(title, tuple(columns), taken, keys, note)


def _made(
    title: str, columns: tuple[str, ...], rows: Sequence[Sequence[str] | Row], keys: int, note: str
) -> Table:
    made = [row if isinstance(row, Row) else Row(row) for row in rows]
    about = tuple(row.subject for row in made)
    cells = tuple(tuple(row.cells) for row in made)
    return Table(title, columns, cells, keys, note, about if any(about) else ())


def _safe(text: str) -> str:
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _before(page: Page | None, like: Table) -> dict[tuple[str, ...], tuple[str, ...]] | None:
    """The rows of the same table on an earlier page, by key; None if there was no such table."""
    for old in page.tables if page is not None else ():
        if old.title == like.title and old.columns == like.columns:
            return {row[: old.keys]: row for row in old.rows}
    return None


def render(page: Page, previous: Page | None = None) -> RenderableType:
    """Make a page visible; what is not as on the `previous` page is marked.

    The style of each cell has the numbers of its table and row as its `meta["row"]`.
    """
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [Text(_safe(page.title), style="bold")]
    for number, shown in enumerate(page.tables):
        parts += [Text(), Text(_safe(shown.title), style="cyan")]
        parts.append(_table(number, shown, _before(previous, shown)))
        if shown.note:
            parts.append(Text(f"  {_safe(shown.note)}", style="italic"))
    return Group(*parts)


def _table(
    number: int, shown: Table, before: dict[tuple[str, ...], tuple[str, ...]] | None
) -> RenderableType:
    from rich import box
    from rich.style import Style
    from rich.table import Table as RichTable
    from rich.text import Text

    out = RichTable(
        box=box.SIMPLE_HEAD, pad_edge=False, show_header=bool(shown.columns), show_edge=False,
        collapse_padding=True, padding=(0, 1, 0, 0),
    )  # fmt: skip
    width = max((len(row) for row in shown.rows), default=len(shown.columns) or 1)
    out.add_column("", width=1)
    for n in range(width):
        named = shown.columns[n] if n < len(shown.columns) else ""
        column = [named, *(row[n] for row in shown.rows if n < len(row))]
        # On a narrow screen sentences are folded, but not within words and numbers.
        least = max((len(word) for cell in column for word in cell.split()), default=1)
        out.add_column(Text(named), overflow="fold", min_width=min(least, _WORD))
    for place, row in enumerate(shown.rows):
        old = None if before is None else before.get(row[: shown.keys], ())
        cells = [
            Text(_safe(cell), style=_CHANGED if old is not None and _differs(old, n, cell) else "")
            for n, cell in enumerate(row)
        ]
        marked = old is not None and old != row
        where = Style(meta={"row": (number, place)})
        out.add_row(Text(MARK if marked else " ", style=_CHANGED), *cells, style=where)
    return out


def _differs(old: tuple[str, ...], n: int, cell: str) -> bool:
    return n >= len(old) or old[n] != cell


def plain(page: Page, previous: Page | None = None, width: int = 100) -> str:
    """A page as text without control sequences, `width` columns wide."""
    from rich.console import Console

    out = io.StringIO()
    console = Console(
        file=out, width=width, color_system=None, force_terminal=False, legacy_windows=False
    )
    console.print(render(page, previous))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"
