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


def test_the_requests_of_virtio_and_e1000_drivers() -> None:
    from workbench.trace.requests import Relations

    with api.open(FOLDER / "v2-drivers.wbt") as trace:
        relations = Relations(trace)
        totals = relations.totals()
        found = [
            (r.name, r.kind, r.queue, r.address, r.length, r.head, r.segments, r.status)
            for r in relations.requests
        ]
    tx, rx = 0x10_7000, 0x10_8000
    disk = [
        ("drive0/1", "VIRTIO_BLK_T_IN", 0, 1, 512, 0, 3, "ok"),
        ("drive0/2", "VIRTIO_BLK_T_OUT", 0, 3, 1024, 3, 3, "ok"),
        ("drive0/3", "VIRTIO_BLK_T_IN", 0, 64, 512, 6, 3, "VIRTIO_BLK_S_IOERR"),
        ("drive0/4", "VIRTIO_BLK_T_GET_ID", 0, 0, 20, 9, 3, "ok"),
    ]
    e1000 = [
        ("net0/1", "tx", 0, tx, 42, 0, 1, "ok"),
        ("net0/2", "rx", 0, rx, 64, 0, 1, "ok"),
        ("net0/3", "tx", 0, tx + 16, 42, 1, 2, "ok"),
        ("net0/4", "rx", 0, rx + 16, 64, 1, 1, "ok"),
    ]
    nic = [
        ("net1/1", "tx", 1, 0, 42, 5, 1, "ok"),
        ("net1/2", "tx", 1, 0, 42, 6, 2, "ok"),
        ("net1/3", "rx", 0, 0, 64, 10, 1, "ok"),
        ("net1/4", "rx", 0, 0, 64, 11, 1, "ok"),
    ]
    assert found == disk + e1000 + nic
    assert totals.accesses[:4].tolist() == [3, 3, 3, 3]  # notify; status, acknowledge
    assert totals.interrupts[:4].tolist() == [1, 1, 1, 1]
    assert (totals.accesses[4:] > 0).sum() >= 5
    assert totals.dma_bytes.min() > 42
