"""`workbench info`: what is in a trace, and what made it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from workbench.cli import text
from workbench.errors import EXIT_OK

if TYPE_CHECKING:
    from workbench.trace.reader import Trace

EXAMPLES = """\
examples:
  workbench info boot.wbt
  workbench info boot.wbt --json | jq .tables
"""


_MOST_DEVICES = 25


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "info", help="show what is in a trace", description=__doc__, epilog=EXAMPLES
    )
    parser.add_argument("trace", metavar="TRACE", help="a trace (.wbt)")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show a trace."""
    from workbench.trace.reader import open_trace

    with open_trace(args.trace) as trace:
        facts = describe(trace)
    if args.json:
        text.print_json(facts)
    else:
        show(facts)
    return EXIT_OK


def describe(trace: Trace) -> dict[str, Any]:
    """Collect the facts about a trace, as they go into `--json`."""
    from workbench.cli.summary import accesses_by_device, exits_by_kind
    from workbench.trace.container import CHECKPOINT
    from workbench.trace.tables import TABLES

    sizes = trace.sizes()
    return {
        "file": trace.path,
        "size_bytes": trace.file_bytes,
        "state": trace.state,
        "problem": trace.problem,
        "instructions": trace.icount,
        "events": trace.events,
        "header": trace.header.to_json(),
        "end": None if trace.end is None else trace.end.to_json(),
        "tables": {
            spec.name: {"rows": trace.rows(spec.name), "size_bytes": sizes[spec.name]}
            for spec in TABLES
        },
        "images_bytes": sizes["images"],
        "checkpoints": {
            "count": len(trace.chunks(CHECKPOINT)),
            "size_bytes": sizes["checkpoints"],
        },
        "structure_bytes": sizes["structure"],
        "accesses_by_device": [
            {"device": name, "reads": reads, "writes": writes}
            for name, reads, writes in accesses_by_device(trace)
        ],
        "exits_by_kind": dict(exits_by_kind(trace)),
    }


def show(facts: dict[str, Any]) -> None:
    """Print the facts for people."""
    from workbench.cli.summary import shown_devices

    header, end = facts["header"], facts["end"]
    machine = header["machine"]
    pairs = [
        ("file", facts["file"]),
        ("state", _state(facts)),
        ("size", f"{text.size_text(facts['size_bytes'])}, of it kernel and initrd"
         f" {text.size_text(facts['images_bytes'])}"),
        ("recorded", f"{header['created']} by workbench {header['workbench_version']},"
         f" format version {header['format_version']}"),
        *[(image["role"], _image(image)) for image in header["images"]],
        ("command line", header["cmdline"]),
        *[(f"machine {name}", str(value)) for name, value in machine.items()],
        ("instructions", f"{facts['instructions']:,}"),
        ("events", f"{facts['events']:,}"),
    ]  # fmt: skip
    if end is not None:
        pairs += [
            ("guest time", text.seconds_text(end["time_ps"])),
            ("recorded in", f"{end['wall_s']:.2f} s"),
            ("ended", f"{end['stop']}: {end['reason']}" if end["reason"] else end["stop"]),
            ("digest", end["digest"]),
            *[(disk["name"], _disk(disk)) for disk in end["disks"]],
        ]
    kept = facts["checkpoints"]
    if kept["count"]:
        pairs.append(("checkpoints", f"{kept['count']:,}, {text.size_text(kept['size_bytes'])}"))
    text.print_pairs("trace", pairs)
    rows = [
        (name, f"{table['rows']:,}", f"{table['size_bytes']:,}", _each(table))
        for name, table in facts["tables"].items()
    ]
    rows.append(("structure", "", f"{facts['structure_bytes']:,}", ""))
    text.print_table("tables", ("table", "rows", "bytes", "bytes/row"), rows, right=(1, 2, 3))
    counts = (
        (item["device"], item["reads"], item["writes"]) for item in facts["accesses_by_device"]
    )
    devices = [(name, f"{r:,}", f"{w:,}") for name, r, w in shown_devices(counts, _MOST_DEVICES)]
    if devices:
        text.print_table("accesses", ("device", "reads", "writes"), devices, right=(1, 2))


def _state(facts: dict[str, Any]) -> str:
    more = f": {facts['problem']}" if facts["problem"] else ""
    return f"{facts['state']}{more}"


def _image(image: dict[str, Any]) -> str:
    where = "in the trace" if image["embedded"] else "kept outside"
    return (
        f"{image['path']}, {text.size_text(image['size_bytes'])}, {where},"
        f" SHA-256 {image['sha256']}"
    )


def _disk(disk: dict[str, Any]) -> str:
    sha256 = f", SHA-256 {disk['sha256']}" if disk["sha256"] else ""
    size = text.size_text(disk["size_bytes"])
    return f"{disk['path']}, {disk['format']}, {size}{sha256}"


def _each(table: dict[str, Any]) -> str:
    return f"{table['size_bytes'] / table['rows']:.2f}" if table["rows"] else ""
