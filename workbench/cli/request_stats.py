"""`workbench stats --by request-kind`: requests added up by device and kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.cli import text
from workbench.errors import EXIT_OK

if TYPE_CHECKING:
    from workbench.trace.requests import Requests, Totals


def run(path: str, top: int, as_json: bool) -> int:
    """Print the table or its JSON form."""
    from workbench.trace.reader import open_trace
    from workbench.trace.requests import Relations

    with open_trace(path) as trace:
        relations = Relations(trace)
        rows = sums(relations.requests, relations.totals())
    shown = rows[:top] if top else rows
    if as_json:
        facts = {"file": path, "by": "request-kind", "requests": sum(r["count"] for r in rows)}
        text.print_json({**facts, "labels": len(rows), "rows": shown})
        return EXIT_OK
    show(rows, shown)
    return EXIT_OK


def sums(found: Requests, totals: Totals) -> list[dict[str, Any]]:
    """A row for each device and kind, the most frequent first."""
    if not len(found):
        return []
    label = found.device * len(found.kinds) + found.kind
    rows = []
    order = np.argsort(label, kind="stable")
    starts = np.flatnonzero(np.diff(label[order])) + 1
    for mine in np.split(order, starts):
        value = label[mine[0]]
        ended = mine[found.end_icount[mine] >= 0]
        latency = found.end_icount[ended] - found.begin_icount[ended]
        row: dict[str, Any] = {
            "device": found.devices[int(value) // len(found.kinds)],
            "kind": found.kinds[int(value) % len(found.kinds)],
            "count": len(mine),
            "open": len(mine) - len(ended),
            "bytes": sum(found.length[mine].tolist()),
            "latency_median": int(np.median(latency)) if len(ended) else None,
            "latency_most": int(latency.max()) if len(ended) else None,
        }
        for name in ("accesses", "dma_bytes", "interrupts"):
            row[name] = int(getattr(totals, name)[mine].sum())
        rows.append(row)
    rows.sort(key=lambda r: (-r["count"], r["device"], r["kind"]))
    return rows


def show(rows: list[dict[str, Any]], shown: list[dict[str, Any]]) -> None:
    """Print the table; what belongs to requests is given for each one."""

    def number(value: int | None) -> str:
        return "" if value is None else f"{value:,}"

    lines = []
    for row in shown:
        each = [row[name] / row["count"] for name in ("accesses", "dma_bytes", "interrupts")]
        lines.append(
            (
                f"{row['device']} {row['kind']}",
                f"{row['count']:,}",
                f"{row['bytes']:,}",
                number(row["latency_median"]),
                number(row["latency_most"]),
                *(f"{value:,.1f}" for value in each),
            )
        )
    hidden = len(rows) - len(shown)
    more = f", {hidden:,} more rows not shown" if hidden else ""
    title = f"{sum(row['count'] for row in rows):,} requests by device and kind{more}"
    columns = (
        "request", "count", "bytes", "latency", "at most", "accesses each", "DMA bytes each",
        "irqs each",
    )  # fmt: skip
    text.print_table(title, columns, lines, right=(1, 2, 3, 4, 5, 6, 7))
