"""`workbench diff`: what two runs did differently, access by access."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from workbench.cli import fleet as fleet_options
from workbench.cli import symbols as symbol_options
from workbench.cli import text
from workbench.errors import EXIT_OK, UsageError, WorkbenchError

if TYPE_CHECKING:
    from workbench.trace.bisect import Step
    from workbench.trace.compare import Accesses, Diff, FirstDifference, Row
    from workbench.trace.reader import Trace

EXAMPLES = """\
examples:
  workbench diff good.wbt bad.wbt
  workbench diff good.wbt bad.wbt --context 10 | less
  workbench diff good.wbt bad.wbt --instruction --summary
  workbench diff good.wbt bad.wbt --json | jq .registers
  workbench diff good.wbt traces/ --against-many

Lines that only A has are marked '<', those that only B has '>', the same register with another
value '|'. Times, addresses of guest memory and printed digits are not compared unless --exact is
given; instruction counts never are. Of two recordings with the same machine, images and inputs,
which have to be the same run, the first event that differs is named as well. --instruction replays
both and finds the first instruction after which registers, devices or memory differ.

The exit status is 0 when the runs are equal, 1 when they differ, 2 when a trace cannot be read.
"""
EXIT_DIFFERENT = 1
EXIT_TROUBLE = 2


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "diff",
        help="compare the register accesses of two traces",
        description=__doc__,
        epilog=EXAMPLES,
    )
    parser.add_argument("first", metavar="A", help="a trace (.wbt)")
    parser.add_argument("second", metavar="B", help="another one")
    parser.add_argument(
        "--context", metavar="N", type=int, default=3, help="equal accesses shown around (3)"
    )
    parser.add_argument(
        "--instruction",
        action="store_true",
        help="find the first instruction after which the states differ, by replaying both",
    )
    parser.add_argument("--exact", action="store_true", help="compare times and addresses too")
    parser.add_argument(
        "--requests", action="store_true", help="show the request that an access belongs to"
    )
    symbol_options.add_symbols(parser)
    parser.add_argument(
        "--against-many", action="store_true", help="compare A with each trace in the folder B"
    )
    fleet_options.add_fleet(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="only the exit status")
    parser.add_argument("--summary", action="store_true", help="only the counts by register")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compare two traces."""
    if args.context < 0:
        raise UsageError(f"expected --context of 0 or more, not {args.context}")
    try:
        if args.against_many:
            from workbench.cli import diff_many

            return diff_many.run(args, EXIT_DIFFERENT, EXIT_TROUBLE)
        return _compare(args)
    except WorkbenchError as error:
        error.exit_status = EXIT_TROUBLE
        raise


def _compare(args: argparse.Namespace) -> int:
    from workbench.trace.compare import Diff, different_inputs, first_difference
    from workbench.trace.reader import open_trace

    with open_trace(args.first) as first, open_trace(args.second) as second:
        diff = Diff(first, second, exact=args.exact)
        for side, trace in ((diff.a, first), (diff.b, second)):
            side.symbols = symbol_options.load(args, trace)
            if args.requests:
                side.name_requests(trace)
        inputs = different_inputs(first, second)
        event = None if inputs else first_difference(first, second)
        step = _step(first, second) if args.instruction else None
    if args.json:
        found = _as_json(args, diff, inputs, event)
        if args.instruction:
            found["first_different_instruction"] = None if step is None else _step_json(step)
        text.print_json(found)
    elif not args.quiet:
        _show(args, diff, inputs, event)
        if args.instruction:
            _show_step(step)
    return EXIT_OK if diff.equal and event is None and step is None else EXIT_DIFFERENT


def _step(first: Trace, second: Trace) -> Step | None:
    from rich.console import Console
    from rich.progress import Progress

    from workbench.cli import engine
    from workbench.trace import bisect

    engine.prepare()
    quiet = not sys.stderr.isatty()
    with Progress(console=Console(stderr=True), transient=True, disable=quiet) as bar:
        task = bar.add_task("Comparing states", total=1.0)
        return bisect.find(first, second, lambda share: bar.update(task, completed=share))


def _show_step(step: Step | None) -> None:
    if step is None:
        print("the states of both are the same at each instruction that both have")
        return
    print(f"the first instruction after which the states differ begins at {step.icount:,}")
    for name, pc, code in (("A", step.pc_a, step.code_a), ("B", step.pc_b, step.code_b)):
        print(f"  {name}: {pc:#x}  {_disassembly(code, pc, step.bits)}")
    rows = [(text.safe(c.name), text.safe(c.a), text.safe(c.b)) for c in step.changes]
    text.print_table("differences after it", ("what", "A", "B"), rows)


def _disassembly(code: bytes, pc: int, bits: int) -> str:
    import capstone

    mode = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}[bits]
    found = next(capstone.Cs(capstone.CS_ARCH_X86, mode).disasm(code, pc), None)
    return (
        f"{found.mnemonic} {found.op_str}".strip()
        if found
        else f"(no instruction: {code.hex(' ')})"
    )


def _step_json(step: Step) -> dict[str, Any]:
    sides = (("a", step.pc_a, step.code_a), ("b", step.pc_b, step.code_b))
    return {
        "icount": step.icount,
        **{
            name: {"pc": pc, "code": code.hex(), "disassembly": _disassembly(code, pc, step.bits)}
            for name, pc, code in sides
        },
        "changes": [{"what": c.name, "a": c.a, "b": c.b} for c in step.changes],
    }


def _show(
    args: argparse.Namespace, diff: Diff, inputs: list[str], event: FirstDifference | None
) -> None:
    if diff.equal and event is None:
        print(f"equal: {diff.same:,} accesses")
        return
    if not args.summary:
        for line in _lines(diff, args.context):
            print(line)
    if not diff.equal:
        rows = [
            (f"{c.device or '(nobody)'} {c.register}", c.kind, "write" if c.write else "read",
             *(f"{n:,}" if n else "" for n in (c.only_a, c.only_b, c.changed)))
            for c in diff.by_register()
        ]  # fmt: skip
        columns = ("register", "kind", "direction", "only A", "only B", "changed")
        text.print_table("differences by register", columns, rows, right=(3, 4, 5))
    print(f"{diff.same:,} accesses match, of {diff.a.rows:,} in A and {diff.b.rows:,} in B")
    if inputs:
        print(text.safe(f"the runs were given different things: {', '.join(inputs)}"))
    elif event is not None:
        print(f"the same inputs; the first event that differs is event {event.seq:,}")
        for name, found in (("A", event.a), ("B", event.b)):
            print(text.safe(f"  {name}: {_event_text(found)}"))


def _event_text(event: Any) -> str:
    from workbench.trace.events import pc_of
    from workbench.trace.explain import describe

    if event is None:
        return "nothing more"
    pc = pc_of(event)
    where = f", PC {pc:#x}" if pc is not None else ""
    return f"instruction {event[1]:,}{where}: {describe(event)}"


def _lines(diff: Diff, context: int) -> Iterator[str]:
    for hunk in diff.hunks(context):
        cells = [(_cell(diff.a, row.a), row.mark, _cell(diff.b, row.b)) for row in hunk]
        width = max(len(left) for left, _, _ in cells)
        yield f"@@ {_range(hunk, 'a')} {_range(hunk, 'b')} @@"
        for left, mark, right in cells:
            shown = " " if mark == "=" else mark
            yield f"{left.ljust(width)} {shown} {right}".rstrip()


def _range(hunk: list[Row], side: str) -> str:
    rows = [row for row in (getattr(line, side) for line in hunk) if row is not None]
    return f"{side.upper()} {rows[0]:,}-{rows[-1]:,}" if rows else f"{side.upper()} none"


def _cell(side: Accesses, row: int | None) -> str:
    if row is None:
        return ""
    write = side.number("write", row)
    count = side.number("count", row)
    times = f" x{count}" if count != 1 else ""
    value = side.number("value", row)
    digits = 2 * side.number("size", row)
    found = side.meaning(row)
    register = f"{side.name('device', row)} {found.name}"
    meaning = f" {found.meaning}" if found.meaning else ""
    who = "".join(f"  {part}" for part in (side.function(row), side.request(row)) if part)
    return text.safe(
        f"{side.number('icount', row):>13,} {register}"
        f" {'<-' if write else '->'} {value:#0{digits + 2}x}{times}{meaning}{who}"
    )


def _as_json(
    args: argparse.Namespace, diff: Diff, inputs: list[str], event: FirstDifference | None
) -> dict[str, Any]:
    from workbench.trace.events import as_dict

    hunks = []
    if not args.summary:
        for hunk in diff.hunks(args.context):
            lines = [
                {
                    "mark": row.mark,
                    "a": None if row.a is None else diff.a.as_dict(row.a),
                    "b": None if row.b is None else diff.b.as_dict(row.b),
                }
                for row in hunk
            ]
            hunks.append(lines)
    first = None
    if event is not None:
        first = {
            "seq": event.seq,
            "a": None if event.a is None else as_dict(event.a),
            "b": None if event.b is None else as_dict(event.b),
        }
    return {
        "a": args.first,
        "b": args.second,
        "equal": diff.equal and event is None,
        "accesses_a": diff.a.rows,
        "accesses_b": diff.b.rows,
        "matching": diff.same,
        "different_inputs": inputs,
        "first_different_event": first,
        "registers": [c._asdict() for c in diff.by_register()],
        "hunks": hunks,
    }
