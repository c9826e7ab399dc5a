"""`workbench requests`: what the guest asked its devices to do, and how long that took."""

from __future__ import annotations

import argparse
import json
import sys
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from workbench.cli import text
from workbench.errors import EXIT_OK, UsageError

if TYPE_CHECKING:
    from workbench.trace.requests import Requests, Totals

EXAMPLES = """\
examples:
  workbench requests boot.wbt
  workbench requests boot.wbt --device ide0 --kind 'READ*' --top 10
  workbench requests boot.wbt --from 1.2G --to 1.3G --json | jq .latency

Latency is in guest instructions, from the write or notification that began the request to its end.
A name such as ide0/17 is a position: workbench inspect boot.wbt ide0 --at request:ide0/17
"""
_OPEN = "(open)"


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "requests",
        help="show the requests to devices, with their latency",
        description="Shows what the guest asked its devices to do: ATA and packet commands, virtio"
        " buffers, frames; with the accesses, bytes of DMA and interrupts that belong to each.",
        epilog=EXAMPLES,
    )
    add = parser.add_argument
    add("trace", metavar="TRACE", help="a trace (.wbt)")
    add("--device", metavar="D", action="append", help="only of this device (may be repeated)")
    add("--kind", metavar="K", action="append", help="only this kind, as READ* (may be repeated)")
    add("--from", dest="first", metavar="POS", help="that begin at this position or later")
    add("--to", dest="last", metavar="POS", help="that begin at this position or before")
    add("--top", metavar="N", type=int, help="only the N slowest, slowest first")
    add("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show the requests."""
    from workbench.trace import position
    from workbench.trace.reader import open_trace
    from workbench.trace.requests import Relations

    if args.top is not None and args.top < 1:
        raise UsageError(f"expected --top 1 or more, not {args.top}")
    with open_trace(args.trace) as trace:
        first = 0 if args.first is None else position.parse(args.first, trace)
        last = 1 << 62 if args.last is None else position.parse(args.last, trace)
        relations = Relations(trace)
        found = relations.requests
        chosen = choose(found, args.device or [], args.kind or [], first, last)
        if args.top is not None:
            chosen = slowest(found, chosen, args.top)
        totals = relations.totals()
        if args.json:
            for index in chosen:
                sys.stdout.write(json.dumps(as_json(found, totals, index)) + "\n")
        else:
            show(found, totals, chosen)
        if not chosen:
            text.note_unmatched("device with requests", args.device or (), found.devices)
            text.note_unmatched("request", (k.upper() for k in args.kind or ()), found.kinds)
    return EXIT_OK


def choose(
    found: Requests, devices: list[str], kinds: list[str], first: int, last: int
) -> list[int]:
    """The places of those that are wanted, in order."""
    import numpy as np

    wanted = (found.begin_icount >= first) & (found.begin_icount <= last)
    for codes, names, patterns in (
        (found.device, found.devices, devices),
        (found.kind, found.kinds, [kind.upper() for kind in kinds]),
    ):
        if patterns:
            fits = [
                any(fnmatchcase(n.upper() if names is found.kinds else n, p) for p in patterns)
                for n in names
            ]
            wanted &= np.array(fits, bool)[codes]
    return [int(index) for index in np.flatnonzero(wanted)]


def slowest(found: Requests, chosen: list[int], count: int) -> list[int]:
    """Those that took longest; one without an end took longer than any."""

    def latency(index: int) -> int:
        end = int(found.end_icount[index])
        return end - int(found.begin_icount[index]) if end >= 0 else 1 << 62

    return sorted(chosen, key=latency, reverse=True)[:count]


def as_json(found: Requests, totals: Totals, index: int) -> dict[str, Any]:
    """Make the JSON form of one."""
    request = found[index]
    return {
        "request": request.name, "device": request.device, "id": request.id, "kind": request.kind,
        "begin_icount": request.begin_icount, "end_icount": request.end_icount,
        "latency": request.latency, "begin_seq": request.begin_seq, "end_seq": request.end_seq,
        "queue": request.queue, "address": request.address, "length": request.length,
        "write": request.write, "head": request.head, "segments": request.segments,
        "status": request.status, "detail": request.detail,
        "accesses": int(totals.accesses[index]), "dma_bytes": int(totals.dma_bytes[index]),
        "interrupts": int(totals.interrupts[index]),
    }  # fmt: skip


def show(found: Requests, totals: Totals, chosen: list[int]) -> None:
    """Print the table."""
    rows = []
    for index in chosen:
        request = found[index]
        latency = request.latency
        rows.append(
            (
                request.name,
                request.kind,
                f"{request.begin_icount:,}",
                _OPEN if latency is None else f"{latency:,}",
                f"{request.address:#x}" if request.address > 1 << 32 else f"{request.address:,}",
                f"{request.length:,}",
                f"{totals.accesses[index]:,}",
                f"{totals.dma_bytes[index]:,}",
                f"{totals.interrupts[index]:,}",
                request.status,
                request.detail,
            )
        )
    hidden = len(found) - len(chosen)
    more = f", {hidden:,} not shown" if hidden else ""
    columns = (
        "request", "kind", "at", "latency", "address", "bytes", "accesses", "DMA bytes", "irqs",
        "status", "detail",
    )  # fmt: skip
    title = f"{len(chosen):,} requests{more}"
    text.print_table(title, columns, rows, right=(2, 3, 4, 5, 6, 7, 8))
