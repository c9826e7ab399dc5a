"""What a report shows, taken from a trace: numbers and names only, nothing of how they look."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from workbench.trace.phases import Phase, phases
from workbench.trace.requests import Requests
from workbench.trace.stats import Count, Stats, count

if TYPE_CHECKING:
    from workbench.trace.reader import Trace
    from workbench.trace.symbols import SymbolTable

BUCKETS: Final = 1200
MAX_DEVICES: Final = 30
MAX_REGISTERS: Final = 50
MAX_REQUESTS: Final = 8000


@dataclass(frozen=True, slots=True)
class Request:
    """One request to a device, from begin to end; `end` is None for one that had none."""

    device: str
    id: int
    kind: str
    begin: int
    end: int | None
    address: int
    length: int
    write: bool
    status: str


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything that a report shows."""

    name: str
    facts: list[tuple[str, str]]
    icount: int
    bucket_icount: int
    phases: list[Phase]
    devices: list[Count]
    registers: list[Count]
    functions: list[Count] | None
    by_phase: list[Count]
    requests: list[Request] = field(default_factory=list)
    """The longest of them, in order of their beginning."""
    requests_seen: int = 0
    kinds: list[tuple[str, str, int, int, int, int]] = field(default_factory=list)
    """Device, kind, requests, bytes, mean and longest latency in instructions."""


def summarize(trace: Trace, symbols: SymbolTable | None = None) -> Summary:
    """Read a trace, a few times from end to end."""
    devices = count(trace, ("device",), buckets=BUCKETS)
    registers = count(trace, ("register",), buckets=BUCKETS)
    functions = count(trace, ("function",), symbols, 1).counts if symbols is not None else None
    all_requests, seen, kinds = _requests(trace)
    return Summary(
        name=trace.path,
        facts=_facts(trace, devices),
        icount=max(1, trace.icount),
        bucket_icount=devices.bucket_icount,
        phases=phases(trace),
        devices=devices.counts,
        registers=registers.counts,
        functions=functions,
        by_phase=count(trace, ("phase", "device"), buckets=1).counts,
        requests=all_requests,
        requests_seen=seen,
        kinds=kinds,
    )


def _facts(trace: Trace, devices: Stats) -> list[tuple[str, str]]:
    header = trace.header
    facts = [
        ("instructions", f"{trace.icount:,}"),
        ("accesses", f"{devices.total:,}"),
        ("events", f"{trace.events:,}"),
        ("interrupts", f"{trace.rows('interrupts'):,}"),
        ("DMA transfers", f"{trace.rows('dma'):,}"),
        ("recorded", f"{header.created} by Workbench {header.workbench_version}"),
        ("command line", header.cmdline),
        ("end", "the trace was cut" if trace.end is None else trace.end.reason or trace.end.stop),
    ]
    return [(name, str(value)) for name, value in facts if value]


def _requests(
    trace: Trace,
) -> tuple[list[Request], int, list[tuple[str, str, int, int, int, int]]]:
    """Pair beginnings with ends; a trace of version 1 has none."""
    done = [
        Request(
            r.device, r.id, r.kind, r.begin_icount, r.end_icount, r.address, r.length, r.write,
            r.status or ("not completed" if r.end_icount is None else ""),
        )
        for r in Requests(trace)
    ]  # fmt: skip
    sums: Counter[tuple[str, str]] = Counter()
    bytes_of: Counter[tuple[str, str]] = Counter()
    latency: Counter[tuple[str, str]] = Counter()
    longest: dict[tuple[str, str], int] = {}
    for r in done:
        key = (r.device, r.kind)
        took = 0 if r.end is None else r.end - r.begin
        sums[key] += 1
        bytes_of[key] += r.length
        latency[key] += took
        longest[key] = max(longest.get(key, 0), took)
    kinds = [
        (*key, n, bytes_of[key], latency[key] // n, longest[key]) for key, n in sums.most_common()
    ]
    shown = sorted(done, key=lambda r: -((r.end or trace.icount) - r.begin))[:MAX_REQUESTS]
    return sorted(shown, key=lambda r: (r.begin, r.device, r.id)), len(done), kinds
