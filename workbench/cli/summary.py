"""The closing summaries: what was recorded, what was replayed. They go to stderr."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.cli import text
from workbench.trace.header import other_maker
from workbench.trace.reader import Trace, open_trace

if TYPE_CHECKING:
    from workbench.trace.replayer import Replay, ReplayResult
    from workbench.trace.session import Outcome

_MOST_DEVICES = 12
_SLOT = re.compile("[0-9a-f]{2}:[0-9a-f]{2}\\.[0-7]")
"""How the host bridge names a place in configuration space where there is no function."""


def accesses_by_device(trace: Trace) -> list[tuple[str, int, int]]:
    """Count reads and writes of each device (a string access counts once), most first."""
    counts: dict[str, list[int]] = {}
    for batch in trace.batches("accesses", ("device", "write")):
        groups = batch.group_by(["device", "write"]).aggregate([([], "count_all")]).to_pylist()
        for row in groups:
            counts.setdefault(row["device"], [0, 0])[row["write"]] += row["count_all"]
    found = [(name, reads, writes) for name, (reads, writes) in counts.items()]
    return sorted(found, key=lambda item: (-item[1] - item[2], item[0]))


def shown_devices(counts: Iterable[tuple[str, int, int]], most: int) -> list[tuple[str, int, int]]:
    """Shorten the counts by device for people: empty PCI slots together, then the rest together."""
    shown: list[tuple[str, int, int]] = []
    empty, others = [0, 0, 0], [0, 0, 0]
    for name, reads, writes in counts:
        if not _SLOT.fullmatch(name) and len(shown) < most:
            shown.append((name or "(nobody)", reads, writes))
            continue
        group = empty if _SLOT.fullmatch(name) else others
        for place, count in enumerate((1, reads, writes)):
            group[place] += count
    for text_of, (members, reads, writes) in (
        ("other devices", others),
        ("empty PCI slots", empty),
    ):
        if members:
            shown.append((f"{members} {text_of}", reads, writes))
    return shown


def exits_by_kind(trace: Trace) -> list[tuple[str, int]]:
    """Count the other exits, most first."""
    counts: dict[str, int] = {}
    for batch in trace.batches("exits", ("kind",)):
        for row in batch.group_by("kind").aggregate([([], "count_all")]).to_pylist():
            counts[row["kind"]] = counts.get(row["kind"], 0) + row["count_all"]
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def mips(icount: int, wall_s: float) -> str:
    """Give millions of instructions a second of real time."""
    return f"{icount / max(wall_s, 1e-9) / 1e6:,.0f}"


def print_recording(path: str, outcome: Outcome) -> None:
    """Print what was recorded: a table on a terminal, else one line."""
    size = Path(path).stat().st_size
    name = path
    why = outcome.reason or outcome.stop
    if text.plain(sys.stderr):
        line = (
            f"workbench: recorded {outcome.icount:,} instructions in {outcome.wall_s:.2f} s"
            f" ({mips(outcome.icount, outcome.wall_s)} MIPS), {outcome.events:,} events,"
            f" {text.size_text(size)}: {name} ({why})"
        )
        print(text.safe(line), file=sys.stderr)
        return
    with open_trace(path) as trace:
        images = trace.sizes()["images"]
        pairs = [
            ("ended", why),
            ("instructions", f"{outcome.icount:,}"),
            ("guest time", text.seconds_text(outcome.time_ps)),
            ("real time", f"{outcome.wall_s:.2f} s"),
            ("MIPS", mips(outcome.icount, outcome.wall_s)),
            *_counts(trace),
            ("trace", f"{text.size_text(size - images)} + kernel and initrd"
             f" {text.size_text(images)}"),
            ("file", name),
        ]  # fmt: skip
    text.print_pairs("recorded", pairs, sys.stderr)


def _counts(trace: Trace) -> list[tuple[str, str]]:
    devices = accesses_by_device(trace)
    pairs = [("register accesses", f"{trace.rows('accesses'):,}")]
    shown = shown_devices(devices, _MOST_DEVICES)
    pairs += [(f"  {name}", f"{reads + writes:,}") for name, reads, writes in shown]
    pairs.append(("other exits", f"{trace.rows('exits'):,}"))
    pairs += [(f"  {name}", f"{count:,}") for name, count in exits_by_kind(trace)[:6]]
    pairs.append(("interrupts", f"{trace.rows('interrupts'):,}"))
    return pairs


def verdict(result: ReplayResult) -> str:
    """Say in a few words how a replay went."""
    if not result.identical:
        return "diverged" if result.stop != "interrupted" else "interrupted"
    if not result.verified:
        return "replayed, not verified"
    return "identical up to where the trace was cut" if result.cut else "identical"


def print_replay(path: str, result: ReplayResult) -> None:
    """Print how a replay went: a table on a terminal, else one line."""
    if text.plain(sys.stderr):
        line = (
            f"workbench: {path}: {verdict(result)}: {result.icount:,} instructions,"
            f" {result.events:,} events in {result.wall_s:.2f} s"
            f" ({mips(result.icount, result.wall_s)} MIPS)"
        )
        print(text.safe(line), file=sys.stderr)
        return
    pairs = [
        ("result", verdict(result)),
        ("instructions", f"{result.icount:,}"),
        ("guest time", text.seconds_text(result.time_ps)),
        ("real time", f"{result.wall_s:.2f} s"),
        ("MIPS", mips(result.icount, result.wall_s)),
        ("events compared", f"{result.events:,}"),
        *([("digest", result.digest)] if result.digest else []),
        ("file", path),
    ]
    text.print_pairs("replayed", pairs, sys.stderr)


def failure_text(replay: Replay, result: ReplayResult) -> str:
    """Say why a replay is not identical; empty when it is."""
    made_by = "" if result.identical else other_maker(replay.trace.header)
    other = f"; {made_by}" if made_by else ""
    if result.divergence is None:
        return result.message + other if result.message else ""
    from workbench.trace.explain import describe_divergence

    before = replay.events_before(result.divergence.index)
    return describe_divergence(result.divergence, replay.machine, before) + other


def replay_json(path: str, result: ReplayResult, message: str) -> dict[str, Any]:
    """Give the result of a replay for `--json`."""
    from workbench.trace.events import as_dict

    found = result.divergence
    divergence = None
    if found is not None:
        divergence = {
            "index": found.index,
            "icount": found.icount,
            "pc": found.pc,
            "recorded": None if found.recorded is None else as_dict(found.recorded),
            "replayed": None if found.replayed is None else as_dict(found.replayed),
        }
    return {
        "trace": path,
        "result": verdict(result),
        "identical": result.identical,
        "verified": result.verified,
        "cut": result.cut,
        "instructions": result.icount,
        "guest_time_ps": result.time_ps,
        "wall_s": round(result.wall_s, 6),
        "events": result.events,
        "stop": result.stop,
        "reason": result.reason,
        "digest": result.digest,
        "message": message,
        "divergence": divergence,
    }
