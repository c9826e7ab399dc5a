"""Call chains for flame graphs: folded stacks, and the sampled profile of speedscope.

Formats: https://github.com/brendangregg/FlameGraph (a line is `outer;inner N`) and
https://www.speedscope.app/file-format-schema.json. A sample is an access; the device is its
innermost frame.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import IO

from workbench.trace.columns import values
from workbench.trace.reader import Trace
from workbench.trace.stacks import Stacks, names
from workbench.trace.symbols import SymbolTable

__all__ = ["write_folded", "write_speedscope"]

_SCHEMA = "https://www.speedscope.app/file-format-schema.json"


def _samples(trace: Trace, stacks: Stacks, table: SymbolTable) -> Iterator[tuple[int, str, int]]:
    """Number of the chain, device and repetitions of each access that has a chain."""
    at, of_access = 0, stacks.of_access
    for batch in trace.batches("accesses", ("device", "count")):
        devices, counts = (values(batch[name]) for name in ("device", "count"))
        for device, count in zip(devices, counts, strict=True):
            if at >= len(of_access):
                return
            if of_access[at] >= 0:
                yield of_access[at], device or "(nobody)", count
            at += 1


def _lines(stacks: Stacks, table: SymbolTable) -> list[list[str]]:
    return [names(chain, table, offsets=False)[::-1] for chain in stacks.chains]


def write_folded(trace: Trace, stacks: Stacks, table: SymbolTable, file: IO[bytes]) -> int:
    """Write a line for each chain of functions; returns how many."""
    chains = _lines(stacks, table)
    folded: Counter[str] = Counter()
    for which, device, count in _samples(trace, stacks, table):
        frames = [*chains[which], device]
        folded[";".join(_plain(frame) for frame in frames)] += count
    for line, count in sorted(folded.items()):
        file.write(f"{line} {count}\n".encode())
    return len(folded)


def _plain(frame: str) -> str:
    """A frame without what separates them."""
    return "".join("_" if c == ";" or not c.isprintable() else c for c in frame)


def write_speedscope(trace: Trace, stacks: Stacks, table: SymbolTable, file: IO[bytes]) -> int:
    """Write a sampled profile, in the order of the log; neighbours that are the same are one
    sample. Returns the number of samples.
    """
    numbers: dict[str, int] = {}

    def number(frame: str) -> int:
        return numbers.setdefault(frame, len(numbers))

    chains = [[number(frame) for frame in frames] for frames in _lines(stacks, table)]
    samples: list[list[int]] = []
    weights: list[int] = []
    previous = None
    for which, device, count in _samples(trace, stacks, table):
        if (which, device) == previous:
            weights[-1] += count
            continue
        previous = which, device
        samples.append([*chains[which], number(device)])
        weights.append(count)
    profile = {
        "type": "sampled", "name": "device accesses", "unit": "none", "startValue": 0,
        "endValue": sum(weights), "samples": samples, "weights": weights,
    }  # fmt: skip
    document = {
        "$schema": _SCHEMA,
        "shared": {"frames": [{"name": name} for name in numbers]},
        "profiles": [profile],
        "name": "device accesses",
        "exporter": "workbench",
    }
    file.write(json.dumps(document, separators=(",", ":")).encode() + b"\n")
    return len(samples)
