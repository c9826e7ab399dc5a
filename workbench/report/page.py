"""The page: tables, pictures, style and scripts in one file that asks no network for anything.

Names come from a trace that somebody else may have made. Text is escaped, data for the script is
JSON in which no tag can end, and a policy in the page forbids all that is loaded from elsewhere.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any, Final

from workbench.errors import InputFileError
from workbench.report.summary import Summary
from workbench.trace.stats import Count

_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline';"
    " img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'"
)
MAX_ROWS: Final = 1000
Cell = str | int


def library() -> str:
    """Give Bokeh's script; raises `InputFileError` when Bokeh is not installed."""
    try:
        bokeh = importlib.import_module("bokeh")
    except ImportError:
        raise InputFileError(
            "a report needs Bokeh (pip install 'guest-driver-workbench[report]')"
        ) from None
    path = Path(str(bokeh.__file__)).parent / "server" / "static" / "js" / "bokeh.min.js"
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise InputFileError(f"{path}: expected Bokeh's script, it cannot be read") from None


def embedded_json(value: Any) -> str:
    """Write JSON that stays inside of a script element, whatever is in it."""
    text = json.dumps(value, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def render(summary: Summary) -> str:
    """Make the page."""
    script = library()
    from bokeh.embed import json_item

    from workbench.report.figures import DARK_HEAT, LIGHT_HEAT, pictures

    shown = pictures(summary)
    from bokeh.models import Column

    items = json_item(Column(*(plot for _, plot in shown), sizing_mode="stretch_width"))
    data = {"item": items, "heat": {"light": LIGHT_HEAT, "dark": DARK_HEAT}}
    own = resources.files("workbench.report")
    style = own.joinpath("page.css").read_text(encoding="utf-8")
    code = own.joinpath("page.js").read_text(encoding="utf-8")
    name = escape(Path(summary.name).name)
    facts = "".join(
        f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>" for key, value in summary.facts
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{name} - Workbench</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body>
<header><h1>{name}</h1><button id="theme" type="button">Dark</button></header>
<dl class="facts">{facts}</dl>
<main>
<p class="hint">All pictures show the same stretch of time: drag in one to zoom, turn the wheel with
Shift, or move the frame in the overview. A click on a legend fades what it names.</p>
<div id="pictures"></div>
{_tables(summary)}
</main>
<script>
{script}
</script>
<script type="application/json" id="data">{embedded_json(data)}</script>
<script>
{code}</script>
</body>
</html>
"""


def _tables(summary: Summary) -> str:
    counts = ("reads", "writes", "total")
    parts = [
        table("Devices by phase", ("phase", "device", *counts), _rows(summary.by_phase)),
        table("Registers", ("device", "register", *counts), _rows(summary.registers)),
    ]
    if summary.functions is not None:
        parts.append(table("Functions", ("function", *counts), _rows(summary.functions)))
    if summary.kinds:
        columns = ("device", "request", "count", "bytes", "mean latency", "longest")
        parts.append(table("Requests by kind", columns, summary.kinds))
    return "\n".join(parts)


def _rows(counts: Sequence[Count]) -> list[tuple[Cell, ...]]:
    return [(*c.label, c.reads, c.writes, c.total) for c in counts]


def table(title: str, columns: Sequence[str], rows: Sequence[tuple[Cell, ...]]) -> str:
    """Make a table whose columns can be sorted; numbers stand right."""
    shown = rows[:MAX_ROWS]
    more = f" (the first {len(shown):,} of {len(rows):,})" if len(shown) < len(rows) else ""
    head = "".join(
        f'<th scope="col"><button type="button">{escape(c)}</button></th>' for c in columns
    )
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in shown)
    return (
        f"<section><h2>{escape(title)}{more}</h2>"
        f'<input type="search" placeholder="Filter" aria-label="Filter {escape(title)}">'
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div></section>"
    )


def _cell(value: Cell) -> str:
    if isinstance(value, int):
        return f'<td class="n" data-v="{value}">{value:,}</td>'
    shown = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in value)
    return f"<td>{escape(shown)}</td>"
