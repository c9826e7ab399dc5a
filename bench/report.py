"""Results as JSON, and as Markdown tables for docs/performance.md."""

import platform
from collections.abc import Sequence
from pathlib import Path

from bench.rounds import Result
from bench.work import Work

_MIB = 1 << 20


def to_json(results: Sequence[Result], host: dict[str, str]) -> dict[str, object]:
    """Return everything that was measured, ready for `json.dump`."""
    return {
        "host": host,
        "results": [
            {
                "work": result.work.name,
                "units": result.work.units,
                "unit": result.work.unit,
                "ram_bytes": result.work.ram_mib * _MIB,
                "input_bytes": result.work.input_bytes,
                "tool": result.tool,
                "median_s": result.median_s,
                "seconds": result.seconds,
                "cpu_seconds": result.cpu_seconds,
                "peak_bytes": result.peak_bytes,
                "trace_bytes": result.trace_bytes,
                "failure": result.failure,
            }
            for result in results
        ],
    }


def to_markdown(results: Sequence[Result], host: dict[str, str]) -> str:
    """Return one table for each work, with a line that says on what it was measured."""
    lines = [", ".join(f"{key} {value}" for key, value in host.items()) + "."]
    works = {result.work.name: result.work for result in results}
    for work in works.values():
        lines += ["", *_table(work, [result for result in results if result.work is work])]
    return "\n".join(lines) + "\n"


def _table(work: Work, results: Sequence[Result]) -> list[str]:
    medians = {result.tool: result.median_s for result in results}
    lines = [
        f"**{work.name}**: {work.what}" + (f"; {work.units:,} {work.unit}" * (work.units > 1)),
        "",
        "| tool | median | range | rate | of plain QEMU | of its QEMU counterpart "
        "| peak memory | above guest RAM | trace |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        if result.median_s is None:
            lines.append(f"| {result.tool} | {result.failure or 'not run'} | | | | | | | |")
            continue
        counterpart = f"qemu rr={result.tool.split()[1]}" if " " in result.tool else ""
        cells = [
            result.tool,
            f"{result.median_s:.2f} s",
            f"{min(result.seconds):.2f}-{max(result.seconds):.2f}",
            _rate(work, result.median_s),
            _ratio(result.median_s, medians.get("qemu")),
            _ratio(result.median_s, medians.get(counterpart)),
            _mib(max(result.peak_bytes)),
            _mib(max(0, max(result.peak_bytes) - work.ram_mib * _MIB)),
            _mib(max(result.trace_bytes)) if result.trace_bytes else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _rate(work: Work, seconds: float) -> str:
    if work.units == 1:
        return ""
    rate = work.units / seconds
    for size, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if rate >= size:
            return f"{rate / size:.3g} {prefix} {work.unit}/s"
    return f"{rate:.3g} {work.unit}/s"


def _ratio(seconds: float, base: float | None) -> str:
    return "" if base is None else f"{seconds / base:.2f}"


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / _MIB:.1f} MiB"


def host_facts(qemu_version: str) -> dict[str, str]:
    """Return what the figures depend on."""
    model = "unknown processor"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {"Processor": model, "Python": platform.python_version(), "QEMU": qemu_version}
