"""Puts the panes together: from the view and a size to lines of styled text."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, Final

from workbench.tui import tour
from workbench.tui.layout import Rect, arrange
from workbench.tui.lines import Line, clip, fit, restyle, safe, width_of

if TYPE_CHECKING:
    from workbench.tui.view import View

LEAST_WIDTH: Final = 40
LEAST_HEIGHT: Final = 8


def compose(view: View, width: int, height: int) -> list[Line]:
    """Draw everything: panes, then the status line."""
    if width < LEAST_WIDTH or height < LEAST_HEIGHT:
        text = f"expected a terminal of {LEAST_WIDTH}x{LEAST_HEIGHT}, not {width}x{height}"
        told: list[Line] = [[("class:error", line)] for line in wrap(text, max(width, 1))]
        return [*told, *([[]] * height)][:height]
    touring = tour.lines(view.tour, width) if view.tour is not None and height >= 16 else []
    room = height - 1 - len(touring)
    area = Rect(0, 0, width, room)
    if view.overlay:
        from workbench.tui.help import overlay

        view.rects = {}
        body = [fit(line, width) for line in overlay(view, width, height - 1)]
        body += [[("", " " * width)]] * (height - 1 - len(body))
        return [*body[: height - 1], status(view, width)]
    view.rects = {view.focus: area} if view.zoomed else arrange(view.tree, area)
    view.rects = {name: rect for name, rect in view.rects.items() if name in view.panes}
    if view.focus not in view.rects:
        view.focus = next(iter(view.rects))
    drawn = {name: _pane(view, name, rect, width) for name, rect in view.rects.items()}
    out: list[Line] = []
    for y in range(room):
        line: Line = []
        across = sorted(
            (rect.x, name, rect)
            for name, rect in view.rects.items()
            if rect.y <= y < rect.y + rect.height
        )
        for _, name, rect in across:
            line += drawn[name][y - rect.y]
        out.append(line)
    return [*_told(view, [*out, *touring], width), status(view, width)]


def _pane(view: View, name: str, rect: Rect, whole: int) -> list[Line]:
    """Title and content of a pane; a line on the right where another pane is beside it."""
    pane = view.panes[name]
    focused = name == view.focus
    beside = rect.x + rect.width < whole
    width = rect.width - beside
    edge: Line = [("class:border", "│")] if beside else []
    title = f" {safe(pane.heading())} "
    stale = view.session.stale if pane.of_machine else ""
    warned = f" {stale} " if stale else ""
    style = "class:title.focus" if focused else "class:title"
    rule = "class:border.focus" if focused else "class:border"
    shown = clip(title, max(width - 1 - len(warned), 0))
    head: Line = [(rule, "─"), (style, shown), ("class:stale.title", clip(warned, width - 1))]
    head.append((rule, "─" * (width - width_of(head))))
    begins = any((r.x, r.y) == (rect.x + rect.width, rect.y) for r in view.rects.values())
    corner: Line = [("class:border", "┬" if begins else "┤")] if beside else []
    lines = [[*head, *corner]]
    for line in pane.draw(width, rect.height - 1, focused)[: rect.height - 1]:
        lines.append([*(restyle(fit(line, width), "class:stale") if stale else fit(line, width)),
                      *edge])  # fmt: skip
    blank: Line = [("", " " * width), *edge]
    return lines + [blank] * (rect.height - len(lines))


def _told(view: View, above: list[Line], width: int) -> list[Line]:
    """A sentence that the status line has no room for stands above it, over the panes."""
    style, text, is_sentence = _said(view)
    if not is_sentence or width_of([("", text)]) + len(_right(view)) <= width:
        return above
    lines = [fit([(style, f" {line}")], width, style) for line in wrap(text, max(width - 2, 1))]
    return [*above[: max(len(above) - len(lines), 0)], *lines[: len(above)]]


def _right(view: View) -> str:
    return f" {view.session.icount:,}  ? help "


def _said(view: View) -> tuple[str, str, bool]:
    """What runs, or the last sentence, with its style; is it a sentence?"""
    session = view.session
    job = session.search.searching.job or session.machine_jobs.job
    live = session.live
    if view.typing:
        return "class:status.busy", " ● the keys go to the guest; Ctrl-] ends that", False
    if live is not None and live.running:
        until = "" if live.awaited is None else f" until the next {live.awaited.what}"
        doing = f"recording{until} … Esc pauses, e types"
        if job is not None and job.cancelled:
            doing = "pausing …"
        return "class:status.busy", f" ● {doing}", False
    if job is not None:
        share = "" if job.progress is None else f" {100 * job.progress:.0f} %"
        return "class:status.busy", f" {safe(job.name)}{share} … Esc stops", False
    if session.message:
        style = "class:error" if session.error else "class:status"
        return style, f" {session.message}", True
    return "class:status", f" {safe(session.trace.path)}", False


def status(view: View, width: int) -> Line:
    """What runs, or the last sentence; the position; where help is."""
    style, left, is_sentence = _said(view)
    right = _right(view)
    if width_of([("", left)]) + len(right) > width:
        left = "" if is_sentence else clip(left, max(width - len(right), 0))
    room = max(width - width_of([("", left)]), 0)
    return [(style, left), ("class:status", f"{right:>{room}}"[:room])]
