"""The traces in `traces/`: each format version opens with what it held, and replays identically."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest

import workbench as api
from workbench.core.build import source_key
from workbench.trace.container import FORMAT_VERSION
from workbench.trace.export.jsonl import write_json_lines
from workbench.trace.replayer import Replay
from workbench.trace.tables import DIGEST, TABLES

FOLDER = Path(__file__).parents[2] / "traces"
GOLDEN = sorted(FOLDER.glob("*.wbt"))


def facts(path: Path) -> dict[str, Any]:
    """What stands in the JSON file next to a golden trace."""
    with api.open(path) as trace:
        lines = io.BytesIO()
        write_json_lines(trace, lines)
        events = lines.getvalue().partition(b"\n")[2]
        assert trace.end is not None
        return {
            "format_version": trace.header.format_version,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "events_sha256": hashlib.sha256(events).hexdigest(),
            "rows": {
                spec.name: trace.rows(spec.name) for spec in TABLES if spec.since <= trace.version
            },
            "icount": trace.end.icount,
            "time_ps": trace.end.time_ps,
            "digest": trace.end.digest,
        }


def test_the_present_version_has_one() -> None:
    versions = {facts(path)["format_version"] for path in GOLDEN}
    assert versions == set(range(1, FORMAT_VERSION + 1))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_it_opens_with_what_it_held(path: Path) -> None:
    assert facts(path) == json.loads(path.with_suffix(".json").read_text())
    with api.open(path) as trace:
        assert trace.closed
        assert trace.image("kernel") is not None
        assert trace.console_bytes("com1").endswith(b"\n")


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_it_replays_with_identical_events(path: Path) -> None:
    with api.open(path) as trace:
        assert trace.end is not None
        result = Replay(trace).run()
        found = result.divergence
        if trace.header.host.get("engine") != source_key() and found is not None:
            # A later version may keep more state, which the digest at the end covers.
            assert found.event[0] == DIGEST, found
            assert (found.index, found.icount) == (trace.events - 1, trace.end.icount)
            return
        assert result.identical, found or result.message
        assert (result.events, result.digest) == (trace.events, trace.end.digest)


def test_the_requests_of_a_driver() -> None:
    from workbench.trace.requests import Relations

    with api.open(FOLDER / "v2-ata.wbt") as trace:
        relations = Relations(trace)
        totals = relations.totals()
        found = [(r.name, r.kind, r.address, r.latency, r.status) for r in relations.requests]
    assert found == [
        ("ide0/1", "IDENTIFY DEVICE", 0, 66, "ok"),
        ("ide0/2", "READ SECTOR(S)", 0xFF_FFFF, 0, "IDNF"),
        ("ide0/3", "STANDBY", 0, 56, "ok"),
    ]
    assert totals.interrupts.tolist() == [1, 1, 1]
    assert totals.accesses.sum() == 63  # all but the last two, to com1 and the debug exit
