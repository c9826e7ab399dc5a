"""`workbench log`: every access of a trace, decoded to register, fields and function."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from workbench.cli import symbols as symbol_options
from workbench.cli import text
from workbench.errors import EXIT_OK, UsageError

if TYPE_CHECKING:
    from workbench.cli.stacks import StackOf
    from workbench.trace.chosen import Filter, Row
    from workbench.trace.decode import Register
    from workbench.trace.reader import Trace
    from workbench.trace.symbols import SymbolTable

EXAMPLES = """\
examples:
  workbench log boot.wbt --device com1 --register LCR
  workbench log boot.wbt --device 'ide*' --from 1.2G --symbols
  workbench log boot.wbt --write --tail 20
  workbench log boot.wbt --follow --tail 20 --device 'ide*' # while it is recorded
  workbench log boot.wbt --at 1414742623                    # as the screen's `y` copies it
  workbench log boot.wbt --device 'ide*' --device bmide --requests
  workbench log boot.wbt --device ide0 --from request:ide0/17 --stacks --limit 20
  workbench log boot.wbt --write --limit 20 --json | jq .register

A line is: instruction count, function or PC, device, register, direction, value, fields. Names of
devices and registers may have * and ?; the case of a register's letters does not matter.
"""
_FLUSH_LINES = 4096
_POLL_S = 0.1
_LINES_AT = 20
_NOBODY = "(nobody)"


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "log", help="show every access, decoded", description=__doc__, epilog=EXAMPLES
    )
    add = parser.add_argument
    add("trace", metavar="TRACE", help="a trace (.wbt)")
    add("--device", metavar="D", action="append", help="only this device (may be repeated)")
    add("--register", metavar="R", action="append", help="only this register (may be repeated)")
    add("--from", dest="first", metavar="POSITION",
        help="from here on: 1.2G, 50%%, access:N, request:ide0/17 ...")  # fmt: skip
    add("--to", dest="last", metavar="POSITION", help="up to here")
    add("--at", metavar="POSITION",
        help=f"as --from, but {_LINES_AT} lines if no --limit is given")  # fmt: skip
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--write", action="store_true", help="only writes")
    way.add_argument("--read", action="store_true", help="only reads")
    some = parser.add_mutually_exclusive_group()
    some.add_argument("--limit", metavar="N", type=int, help="at most so many lines")
    some.add_argument("--tail", metavar="N", type=int, help="only the last so many lines")
    add("-f", "--follow", action="store_true",
        help="go on while the trace is recorded, until the recording ends")  # fmt: skip
    add("--requests", action="store_true", help="also the request that an access belongs to")
    add(
        "--stacks",
        action="store_true",
        help="also who called: the guest's call chain, innermost first (the trace is replayed)",
    )
    symbol_options.add_symbols(parser)
    add("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show the log."""
    from workbench.cli.replay import cut_notice
    from workbench.trace.chosen import Filter, accesses

    if args.limit is not None and args.limit < 0:
        raise UsageError(f"expected a limit of 0 or more lines, not {args.limit}")
    if args.tail is not None and args.tail < 1:
        raise UsageError(f"expected --tail with 1 or more lines, not {args.tail}")
    if args.at is not None:
        if args.first is not None or args.tail is not None:
            raise UsageError("expected --at without --from and --tail")
        args.first = args.at
        args.limit = _LINES_AT if args.limit is None else args.limit
    if args.follow and (args.requests or args.stacks):
        raise UsageError("expected --follow without --requests and --stacks, which look ahead")
    with _opened(args.trace, args.follow) as trace:
        chosen = Filter(
            devices=tuple(args.device or ()),
            registers=tuple(name.upper() for name in args.register or ()),
            first=place(args.first, trace, 0),
            last=place(args.last, trace, 1 << 62),
            write=True if args.write else False if args.read else None,
        )
        table = symbol_options.load(args, trace, always=args.stacks)
        make = json_lines if args.json else _styled_lines
        request = _request_of(trace) if args.requests else None
        stack = _stack_of(trace, chosen, table) if args.stacks else None
        pending: list[str] = []
        cut = False

        def put() -> None:
            if pending:
                sys.stdout.write("\n".join(pending) + "\n")
                pending.clear()

        def more() -> bool:
            nonlocal cut
            put()
            sys.stdout.flush()
            grown: bool = args.follow and trace.wait(_POLL_S)
            cut = args.follow and not grown and not trace.closed
            return grown

        shown = 0
        all_lines = make(accesses(trace, chosen, args.tail, more), table, request, stack)
        for line in islice(all_lines, args.limit):
            shown += 1
            pending.append(line)
            if len(pending) >= _FLUSH_LINES:
                put()
        put()
        if not shown and args.limit != 0:
            text.note_unmatched("device", chosen.devices, _devices(trace))
            if chosen.registers:
                text.note_unmatched("register", chosen.registers, _registers(trace, chosen))
        if cut:
            text.complain(cut_notice(trace))
    return EXIT_OK


def _opened(path: str, follow: bool) -> Trace:
    """Open a trace, with `follow` also one whose recording is about to start."""
    from workbench.errors import FormatError
    from workbench.trace.reader import open_trace
    from workbench.trace.storage import open_source

    while follow:
        source = open_source(path)
        goes_on = source.held()  # asked before what it has written
        source.close()
        try:
            return open_trace(path)
        except FormatError:
            if not goes_on:
                raise
            time.sleep(_POLL_S)
    return open_trace(path)


def _devices(trace: Trace) -> Iterator[str]:
    from workbench.trace.columns import coded

    for batch in trace.batches("accesses", ("device",)):
        yield from coded(batch["device"])[1]


def _registers(trace: Trace, chosen: Filter) -> Iterator[str]:
    """Names of all registers of the chosen devices that were accessed, and of their parts."""
    from workbench.trace import stats
    from workbench.trace.decode import register_names

    for count in stats.count(trace, ("register",), buckets=1, jobs=None).counts:
        if chosen.device(count.label[0]):
            names = register_names(count.label[-1].upper())
            yield from (name for name in names if not name.startswith(("+", "0X")))


def place(given: str | None, trace: Trace, default: int) -> int:
    """The instruction count of a position."""
    from workbench.trace import position
    from workbench.trace.bookmarks import Bookmarks

    if given is None:
        return default
    return position.parse(given, trace, Bookmarks(trace.path).places)


RequestOf = Callable[[int], str]
Found = Iterable[tuple["Row", "Register"]]


def _request_of(trace: Trace) -> RequestOf:
    """Give the name of the request of an access, by its `seq`; asked in order."""
    import numpy as np

    from workbench.trace.columns import Ints, integers
    from workbench.trace.requests import Relations

    relations = Relations(trace)
    found = relations.requests

    wanted = ("seq", "icount", "kind", "device", "offset", "write")
    batches = trace.batches("accesses", wanted)
    seqs: Ints = np.empty(0, np.int64)
    owners = seqs

    def of(seq: int) -> str:
        nonlocal seqs, owners
        while not len(seqs) or seqs[-1] < seq:
            batch = next(batches, None)
            if batch is None:
                return ""
            seqs, owners = integers(batch["seq"]), relations.accesses(batch)
        owner = int(owners[min(int(np.searchsorted(seqs, seq)), len(seqs) - 1)])
        return text.safe(found.name(owner)) if owner >= 0 else ""

    return of


def _stack_of(trace: Trace, chosen: Filter, table: SymbolTable | None) -> StackOf:
    from workbench.cli import stacks

    found = stacks.load(trace, chosen.devices, chosen.first, chosen.last)
    return stacks.by_seq(trace, found, table)


def _pc_text(table: SymbolTable | None) -> Callable[[int], str]:
    known: dict[int, str] = {}

    def of(pc: int) -> str:
        found = known.get(pc)
        if found is None:
            if len(known) > 1 << 16:
                known.clear()
            found = known[pc] = text.safe(f"{pc:#x}" if table is None else table.text(pc))
        return found

    return of


def lines(
    found: Found,
    table: SymbolTable | None,
    request: RequestOf | None = None,
    stack: StackOf | None = None,
    paint: Callable[[str], str] = str,
) -> Iterator[str]:
    """Give a line of text for each access; `paint` makes the template of a style's name."""
    pc_text = _pc_text(table)
    width = 36 if table is not None else 18
    dim, name_of, read, write_of = (paint(s) for s in ("dim", "cyan", "green", "yellow"))
    for row, register in found:
        seq, icount, pc, kind, device, _, size, write, value, _, count = row
        device = text.safe(device) if device else _NOBODY
        if kind == "cfg":
            device += " cfg"
        arrow = write_of % "<-" if write else read % "->"
        times = f" x{count}" if count != 1 else ""
        meaning = f" {register.meaning}" if register.meaning else ""
        callers = " < ".join(stack(seq)) if stack is not None else ""
        below = f"\n{'':>16}{dim % f'< {callers}'}" if callers else ""
        yield (
            f"{dim % format(icount, '>14,')}  {pc_text(pc):<{width}}  {device:<14}"
            f"{'' if request is None else f' {request(seq):<10}'}"
            f" {name_of % register.name} {arrow} {value:#0{2 * size + 2}x}{times}{meaning}{below}"
        )


def _styled_lines(
    found: Found,
    table: SymbolTable | None,
    request: RequestOf | None,
    stack: StackOf | None,
) -> Iterator[str]:
    if text.plain(sys.stdout):
        return lines(found, table, request, stack, lambda _: "%s")
    from rich.console import COLOR_SYSTEMS
    from rich.style import Style

    console = text.rich_console(sys.stdout)
    system = console.color_system
    if system is None or console.no_color:
        return lines(found, table, request, stack, lambda _: "%s")
    colors = COLOR_SYSTEMS[system]
    return lines(
        found,
        table,
        request,
        stack,
        lambda style: Style.parse(style).render("%s", color_system=colors),
    )


def json_lines(
    found: Found,
    table: SymbolTable | None,
    request: RequestOf | None = None,
    stack: StackOf | None = None,
) -> Iterator[str]:
    """Give a JSON object for each access."""
    import json

    encode = json.JSONEncoder(separators=(",", ":")).encode
    pc_text = _pc_text(table)
    for row, register in found:
        seq, icount, pc, kind, device, offset, size, write, value, addr, count = row
        item = {
            "seq": seq, "icount": icount, "pc": pc, "kind": kind, "device": device,
            "offset": offset, "size": size, "write": write, "value": value, "addr": addr,
            "count": count, "register": register.name, "fields": register.meaning,
        }  # fmt: skip
        if table is not None:
            item["function"] = pc_text(pc)
        if request is not None:
            item["request"] = request(seq) or None
        if stack is not None:
            item["callers"] = stack(seq)
        yield encode(item)
