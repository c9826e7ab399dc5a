"""The pictures of a report, as Bokeh models; all over time share one range.

Colours of text, lines and backgrounds are set by the page's script, which knows the theme; models
that it has to find have a name or a tag.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from bokeh.models import (
    BasicTicker,
    BoxAnnotation,
    ColorBar,
    ColumnDataSource,
    FactorRange,
    HoverTool,
    Label,
    Legend,
    LegendItem,
    LogColorMapper,
    NumeralTickFormatter,
    Range1d,
    RangeTool,
    WheelZoomTool,
)
from bokeh.palettes import Category20_20, interp_palette
from bokeh.plotting import figure

from workbench.report.summary import MAX_DEVICES, MAX_REGISTERS, Request, Summary
from workbench.trace.stats import Count

MILLION: Final = 1e6
LAYERS: Final = 9
FUNCTIONS: Final = 25
_NAME_CHARS: Final = 40
_LEFT: Final = 190
_ROW: Final = 18
LIGHT_HEAT: Final = list(
    interp_palette(("#dbeafe", "#93c5fd", "#3b82f6", "#1d4ed8", "#1e1b6b"), 128)
)
DARK_HEAT: Final = list(
    interp_palette(("#1e3a5f", "#1f6f8b", "#2fa08f", "#d8c84a", "#f97316"), 128)
)
_COLORS: Final = [Category20_20[n] for n in (0, 2, 4, 6, 8, 10, 12, 16, 18, 1, 3, 5, 7, 9, 11, 13)]


def short(text: str) -> str:
    """Cut a name so that it fits beside a picture; control characters become dots."""
    clean = "".join(c if c.isprintable() else "." for c in text)
    return clean if len(clean) <= _NAME_CHARS else clean[: _NAME_CHARS - 1] + "…"


def unique(names: Sequence[str]) -> list[str]:
    """Names that differ, for an axis, from names that may not once they are cut."""
    seen: dict[str, int] = {}
    found = []
    for name in map(short, names):
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return found


def _time_figure(title: str, height: int, x_range: Range1d, **more: Any) -> Any:
    plot = figure(
        title=title, height=height, x_range=x_range, tools="xpan,xbox_zoom,reset,save",
        active_drag="xbox_zoom", sizing_mode="stretch_width", toolbar_location="right",
        min_border_left=_LEFT, **more,
    )  # fmt: skip
    plot.add_tools(WheelZoomTool(dimensions="width", modifiers="shift"))
    plot.toolbar.logo = None
    plot.xaxis.formatter = NumeralTickFormatter(format="0,0.[000]")
    plot.xaxis.axis_label = "million instructions"
    plot.yaxis.fixed_location = None
    return plot


def time_range(summary: Summary) -> Range1d:
    """Make the range that all pictures over time share, in millions of instructions.

    It begins where the accesses do; the overview has the whole run.
    """
    end = summary.icount / MILLION
    over = np.sum([c.over_time for c in summary.devices] or [[0]], axis=0)
    first = int(np.flatnonzero(over)[0]) if over.any() else 0
    start = max(0.0, first * summary.bucket_icount / MILLION - 0.01 * end)
    return Range1d(start, end, bounds=(-0.02 * end, 1.02 * end), name="time")


def timeline(summary: Summary, x_range: Range1d) -> list[Any]:
    """Make the stacked accesses of the busiest devices, and below it the overview that zooms."""
    width = summary.bucket_icount / MILLION
    buckets = len(summary.devices[0].over_time) if summary.devices else 1
    layers = [(c.label[0], np.array(c.over_time)) for c in summary.devices[:LAYERS]]
    rest = summary.devices[LAYERS:]
    if rest:
        layers.append(("all others", np.sum([c.over_time for c in rest], axis=0)))
    edges = np.arange(buckets + 1) * width
    plot = _time_figure("Accesses over time, by device", 280, x_range)
    base = np.zeros(buckets)
    items = []
    for n, (name, over) in enumerate(layers):
        top = base + over
        data = {"x": edges.repeat(2)[1:-1], "low": base.repeat(2), "high": top.repeat(2)}
        area = plot.varea(
            "x", "low", "high", source=ColumnDataSource(data),
            fill_color=_COLORS[n], fill_alpha=0.9, muted_alpha=0.1,
        )  # fmt: skip
        items.append(LegendItem(label={"value": short(name)}, renderers=[area]))
        base = top
    plot.y_range.start = 0
    plot.yaxis.axis_label = f"accesses in {width:,.3g} million"
    plot.yaxis.formatter = NumeralTickFormatter(format="0,0")
    plot.add_layout(Legend(items=items, click_policy="mute", spacing=0, padding=4), "right")
    _mark_phases(plot, summary)
    overview = figure(
        height=90, x_range=(0, summary.icount / MILLION), tools="", toolbar_location=None,
        sizing_mode="stretch_width", min_border_left=_LEFT, name="overview",
        title="The whole run: drag the ends of the frame, or the frame",
    )  # fmt: skip
    overview.varea(edges.repeat(2)[1:-1], 0, np.sqrt(base).repeat(2), fill_alpha=0.7)
    overview.yaxis.visible = False
    overview.ygrid.visible = False
    overview.xaxis.formatter = NumeralTickFormatter(format="0,0.[000]")
    tool = RangeTool(x_range=x_range, start_gesture="pan")
    tool.overlay.fill_alpha = 0.15
    overview.add_tools(tool)
    return [plot, overview]


def _mark_phases(plot: Any, summary: Summary) -> None:
    starts = [phase.icount / MILLION for phase in summary.phases]
    ends = [*starts[1:], summary.icount / MILLION]
    for n, (phase, start, end) in enumerate(zip(summary.phases, starts, ends, strict=True)):
        if n % 2:
            plot.add_layout(BoxAnnotation(left=start, right=end, fill_alpha=0.06, level="underlay"))
        plot.add_layout(
            Label(
                x=start,
                y=145 - 14 * (n % 2),
                x_units="data",
                y_units="screen",
                text=phase.name,
                text_font_size="11px",
                text_font_style="italic",
                x_offset=4,
                tags=["text"],
            )
        )


def heat(title: str, counts: Sequence[Count], most: int, summary: Summary, x_range: Range1d) -> Any:
    """Make a map of counts over time: a row for each label, the busiest on top, logarithmic."""
    rows = list(counts[:most])
    names = unique([" ".join(c.label) for c in rows])
    cells = np.array([c.over_time for c in reversed(rows)] or [[0]], np.float32)
    hidden = len(counts) - len(rows)
    more = f" (the {len(rows)} busiest of {len(counts)})" if hidden else ""
    names = names or ["nothing"]
    plot = _time_figure(
        title + more, 110 + _ROW * len(names), x_range, y_range=FactorRange(*reversed(names))
    )
    high = max(2.0, float(cells.max()))
    mapper = LogColorMapper(
        palette=LIGHT_HEAT, low=1, high=high, nan_color="rgba(0,0,0,0)", tags=["heat"]
    )
    width = summary.bucket_icount * cells.shape[1] / MILLION
    source = ColumnDataSource({"image": [np.where(cells > 0, cells, np.nan)]})
    image = plot.image(
        "image", source=source, x=0, y=0, dw=width, dh=len(names), color_mapper=mapper
    )
    plot.add_tools(
        HoverTool(renderers=[image], tooltips=[("accesses", "@image{0,0}"), ("at", "$x{0,0.000}")])
    )
    ticks = BasicTicker(desired_num_ticks=4)
    plot.add_layout(ColorBar(color_mapper=mapper, width=10, ticker=ticks), "right")
    plot.ygrid.visible = False
    return plot


def lanes(requests: Sequence[Request], icount: int) -> list[tuple[str, int]]:
    """Place each request in the first lane of its device that is free when it begins."""
    free: dict[str, list[int]] = {}
    found = []
    for r in requests:
        ends = free.setdefault(r.device, [])
        end = icount if r.end is None else r.end
        lane = next((n for n, until in enumerate(ends) if until <= r.begin), len(ends))
        lane = min(lane, 15)
        ends[lane : lane + 1] = [max(end, r.begin + 1)]
        found.append((r.device, lane))
    return found


def waterfall(summary: Summary, x_range: Range1d) -> Any:
    """Make the requests as bars, in lanes of their devices."""
    requests = summary.requests
    places = lanes(requests, summary.icount)
    names = sorted(set(places), reverse=True)
    rows = {name: n for n, name in enumerate(names)}
    labels = unique([f"{device}" + (f" #{lane}" if lane else "") for device, lane in names])
    seen = summary.requests_seen
    more = f" (the {len(requests):,} longest of {seen:,})" if seen > len(requests) else ""
    plot = _time_figure(
        f"Requests{more}",
        130 + max(24 * len(names), 19 * len({r.kind for r in requests})),
        x_range,
        y_range=FactorRange(*labels),
    )
    kinds = list(dict.fromkeys(r.kind for r in requests))
    items = []
    for n, kind in enumerate(kinds[:12]):
        last = n == 11 and len(kinds) > 12
        chosen = [
            (r, rows[place])
            for r, place in zip(requests, places, strict=True)
            if r.kind == kind or (last and kinds.index(r.kind) > 11)
        ]
        color = _COLORS[n]
        ends = [summary.icount if r.end is None else r.end for r, _ in chosen]
        data = {
            "left": np.array([r.begin / MILLION for r, _ in chosen]),
            "right": np.array([end / MILLION for end in ends]),
            "bottom": np.array([row + 0.15 for _, row in chosen]),
            "top": np.array([row + 0.85 for _, row in chosen]),
            "name": [f"{r.device}/{r.id}" for r, _ in chosen],
            "kind": [r.kind for r, _ in chosen],
            "took": np.array([e - r.begin for (r, _), e in zip(chosen, ends, strict=True)]),
            "bytes": np.array([r.length for r, _ in chosen], np.float64),
            "address": [f"{r.address:,}" for r, _ in chosen],
            "status": [r.status for r, _ in chosen],
        }
        bars = plot.quad(
            "left", "right", "top", "bottom", source=ColumnDataSource(data), fill_color=color,
            line_color=color, fill_alpha=0.75, muted_alpha=0.1,
        )  # fmt: skip
        tips = [
            ("request", "@name"), ("kind", "@kind"), ("address", "@address"),
            ("bytes", "@bytes{0,0}"), ("took", "@took{0,0} instructions"), ("status", "@status"),
        ]  # fmt: skip
        plot.add_tools(HoverTool(renderers=[bars], tooltips=tips, visible=False))
        label = "all others" if last else short(kind)
        items.append(LegendItem(label={"value": label}, renderers=[bars]))
    plot.add_layout(Legend(items=items, click_policy="mute", spacing=0, padding=4), "right")
    plot.ygrid.visible = False
    return plot


def functions(counts: Sequence[Count]) -> Any:
    """Make the functions with the most accesses as bars, reads and writes."""
    rows = list(counts[:FUNCTIONS])
    names = unique([c.label[0] for c in rows]) or ["nothing"]
    plot = figure(
        title="Functions with the most accesses", height=100 + _ROW * len(names),
        y_range=FactorRange(*reversed(names)), tools="save", sizing_mode="stretch_width",
        min_border_left=_LEFT,
    )  # fmt: skip
    plot.toolbar.logo = None
    data = {
        "name": names if rows else [],
        "reads": [c.reads for c in rows],
        "writes": [c.writes for c in rows],
    }
    bars = plot.hbar_stack(
        ["reads", "writes"], y="name", height=0.8, color=[_COLORS[0], _COLORS[1]],
        source=ColumnDataSource(data),
    )  # fmt: skip
    tips = [("function", "@name"), ("reads", "@reads{0,0}"), ("writes", "@writes{0,0}")]
    plot.add_tools(HoverTool(renderers=bars, tooltips=tips))
    items = [
        LegendItem(label={"value": name}, renderers=[bar])
        for name, bar in zip(("reads", "writes"), bars, strict=True)
    ]
    plot.add_layout(Legend(items=items, spacing=0, padding=4), "right")
    plot.xaxis.formatter = NumeralTickFormatter(format="0,0")
    plot.x_range.start = 0
    plot.ygrid.visible = False
    return plot


def pictures(summary: Summary) -> list[tuple[str, Any]]:
    """Make all pictures, each with the name of its place in the page."""
    x_range = time_range(summary)
    top, overview = timeline(summary, x_range)
    registers = heat("Registers over time", summary.registers, MAX_REGISTERS, summary, x_range)
    devices = heat("Devices over time", summary.devices, MAX_DEVICES, summary, x_range)
    found = [("timeline", top), ("overview", overview)]
    if summary.requests:
        found.append(("requests", waterfall(summary, x_range)))
    found += [("devices", devices), ("registers", registers)]
    if summary.functions is not None:
        found.append(("functions", functions(summary.functions)))
    return found
