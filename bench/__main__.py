"""``python -m bench``: measure QEMU and Workbench on the same guests, side by side in one run."""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import guests
from bench import gdb, report, throughput, userland
from bench.gdb_client import Gone
from bench.measure import run
from bench.rounds import Result, measure
from bench.tools import TOOLS, Tool, installed
from bench.work import NAMES, prepare

_NAMES = [*NAMES, *userland.NAMES, *throughput.NAMES, *gdb.NAMES]


def main() -> int:
    """Run what the command line asks for; the exit status is 1 if something failed."""
    options = _parse()
    tools = [tool for tool in TOOLS if installed(tool) and _chosen(tool, options.tools)]
    if not tools:
        print("bench: none of the tools is installed", file=sys.stderr)
        return 1
    chosen = options.only or _NAMES
    rounds = 1 if options.quick else options.runs
    results: list[Result] = []
    rates: list[throughput.Rate] = []
    latencies: gdb.Latencies | None = None
    times: list[userland.Timed] = []
    with tempfile.TemporaryDirectory(prefix="workbench-bench-") as name:
        directory = Path(name)
        if any(tool.name.startswith("workbench") for tool in tools):
            _warm_up(directory)
        for work_name in chosen:
            try:
                if work_name in userland.NAMES:
                    names = {tool.name.split()[0] for tool in tools}
                    times = userland.measure(rounds, _say, sorted(names))
                    continue
                if work_name in throughput.NAMES:
                    rates += throughput.measure(work_name, rounds, _say, options.quick)
                    continue
                if work_name in gdb.NAMES:
                    latencies = gdb.measure(
                        rounds, _say, options.quick, any(tool.name == "qemu" for tool in tools)
                    )
                    continue
                work = prepare(work_name, directory, quick=options.quick)
            except (guests.GuestError, Gone, OSError, subprocess.SubprocessError) as error:
                print(f"bench: {work_name}: {error}", file=sys.stderr)
                return 1
            results += measure(work, tools, rounds, _say)
        host = report.host_facts(_qemu_version())
        markdown = report.to_markdown(results, host)
        if times:
            markdown += "\n" + userland.to_markdown(times)
        if rates:
            markdown += "\n" + throughput.to_markdown(rates)
        if latencies is not None:
            markdown += "\n" + gdb.to_markdown(latencies)
    options.output.mkdir(parents=True, exist_ok=True)
    measured = {**report.to_json(results, host), "throughput": throughput.to_json(rates)}
    if times:
        measured["work"] = userland.to_json(times)
    if latencies is not None:
        measured["gdb"] = gdb.to_json(latencies)
    (options.output / "bench.json").write_text(json.dumps(measured, indent=2) + "\n")
    (options.output / "bench.md").write_text(markdown)
    print(f"\n{markdown}\nWritten to {options.output}/bench.json and bench.md.")
    return 1 if any(result.failure for result in results) else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument(
        "--only",
        action="extend",
        type=_names,
        metavar="NAME",
        help=f"measure this only: {', '.join(_NAMES)}; several by comma",
    )
    parser.add_argument(
        "--tools", default="", help="measure only tools with one of these in their name, by comma"
    )
    parser.add_argument("--quick", action="store_true", help="one round, short micro guests")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("bench/results"), help="directory for the results"
    )
    return parser.parse_args()


def _names(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in _NAMES:
            known = ", ".join(_NAMES)
            raise argparse.ArgumentTypeError(f"expected {known}, not {name!r}")
    return names


def _chosen(tool: Tool, wanted: str) -> bool:
    return not wanted or any(part in tool.name for part in wanted.split(","))


def _warm_up(directory: Path) -> None:
    """Let Workbench compile and cache its engine, which it does once after installation."""
    _say("warm-up: Workbench compiles its engine if it has not yet")
    work = prepare("loop", directory, quick=True)
    for tool in TOOLS:
        if tool.name.startswith("workbench"):
            command = tool.command(work, directory, directory / "console")
            run(command, log=directory / "log", timeout_s=600)


def _qemu_version() -> str:
    try:
        done = subprocess.run(
            ["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "not installed"
    return done.stdout.splitlines()[0].removeprefix("QEMU emulator version ")


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
