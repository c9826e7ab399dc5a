"""Exports, read back by the tools that they are for, as far as these are installed."""

from __future__ import annotations

import io
import itertools
import json
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import workbench as api
from tests.cli.conftest import ROOT
from tests.trace.conftest import Make
from workbench.errors import FormatError, InputFileError
from workbench.trace import tables
from workbench.trace.events import as_dict
from workbench.trace.export import written
from workbench.trace.export.access_packets import varints
from workbench.trace.export.jsonl import write_json_lines
from workbench.trace.export.parquet import write_parquet
from workbench.trace.export.pcapng import Frame, received_frames, write_pcapng
from workbench.trace.export.perfetto import write_perfetto
from workbench.trace.export.vcd import write_vcd
from workbench.trace.header import End, Header
from workbench.trace.varint import varint
from workbench.trace.writer import TraceWriter

ARP = bytes.fromhex(
    "ffffffffffff525400123456080600010800060400015254001234560a00020f0000000000000a000202"
)


@pytest.fixture
def network_trace(tmp_path: Path) -> Path:
    """A trace with two controllers that receive frames, and names that are not nice."""
    path = tmp_path / "net.wbt"
    header = Header(machine={"rtc_epoch_s": 1_767_225_600, "ps_per_insn": 500})
    writer = TraceWriter(path, header)
    writer.embed({}, header)
    events: list[tables.Event] = [
        (tables.INPUT, 100, 1_000_000_000, "net0", "frame", ARP),
        (tables.INPUT, 200, 2_000_000_001, "net0", "link", b"\x01"),
        (tables.IRQ_LINE, 210, "a b$end\x1b\n", True),
        (tables.IRQ_LINE, 210, "a b$end\x1b\n", False),
        (tables.IRQ_LINE, 220, "IRQ11", False),
        (tables.INPUT, 300, 3_500_000_000, "net1", "frame", ARP + b"\0" * 19),
        (tables.IRQ_LINE, 310, "IRQ11", True),
    ]
    writer.append(events, 400)
    writer.close(End(400, 4_000_000_000, len(events), "shutdown", 0, "", 0.1, ""))
    return path


def test_parquet(make_trace: Make, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    with api.open(make_trace()) as trace:
        rows = write_parquet(trace, tmp_path / "out")
        for spec in tables.TABLES:
            table = pq.read_table(tmp_path / "out" / f"{spec.name}.parquet")
            assert table.column_names == spec.column_names()
            assert table.to_pylist() == trace.table(spec.name).to_pylist()
            assert rows[spec.name] == table.num_rows
    assert sorted(p.suffix for p in (tmp_path / "out").iterdir()) == [".parquet"] * len(
        tables.TABLES
    )


def test_parquet_is_read_by_others(make_trace: Make, tmp_path: Path) -> None:
    duckdb, polars, pandas = (pytest.importorskip(n) for n in ("duckdb", "polars", "pandas"))
    with api.open(make_trace()) as trace:
        write_parquet(trace, tmp_path)
        writes = sum(trace.accesses["write"].to_pylist())
        count = trace.accesses.num_rows
    path = str(tmp_path / "accesses.parquet")
    sql = f"select count(*), sum(\"write\"::int) from '{path}'"
    assert duckdb.connect().execute(sql).fetchone() == (count, writes)
    frame = polars.read_parquet(path)
    assert (frame.height, frame["write"].sum()) == (count, writes)
    rows = pandas.read_parquet(path)
    assert (len(rows), rows["write"].sum()) == (count, writes)


def test_json_lines(make_trace: Make, tmp_path: Path) -> None:
    with api.open(make_trace()) as trace, written(tmp_path / "t.jsonl") as file:
        assert write_json_lines(trace, file) == trace.events
        inputs = trace.inputs.to_pylist()
    head, *lines = (tmp_path / "t.jsonl").read_text().splitlines()
    assert json.loads(head)["table"] == "header"
    events = [json.loads(line) for line in lines]
    assert [event["seq"] for event in events] == list(range(len(events)))
    found = [event for event in events if event["table"] == "inputs"]
    assert [bytes.fromhex(event["data"]) for event in found] == [row["data"] for row in inputs]


@pytest.mark.parametrize("name", ["v1-demo", "v2-ata", "v2-drivers"])
def test_json_lines_are_those_of_a_plain_loop(name: str, tmp_path: Path) -> None:
    with api.open(ROOT / "traces" / f"{name}.wbt") as trace, written(tmp_path / "t") as file:
        write_json_lines(trace, file)
        events = [event for group in trace.event_groups() for event in group]
    lines = [json.dumps({"seq": n, **as_dict(e)}, separators=(",", ":")) for n, e in
             enumerate(events)]  # fmt: skip
    assert (tmp_path / "t").read_text().splitlines()[1:] == lines


def test_numbers_by_columns_are_those_one_by_one() -> None:
    numbers = np.array([0, 1, 127, 128, 1 << 14, (1 << 63) - 1, 1 << 63, (1 << 64) - 1], np.uint64)
    found, lengths = varints(numbers)
    assert found.to_pylist() == [varint(number) for number in numbers.tolist()]
    assert lengths.tolist() == [len(varint(number)) for number in numbers.tolist()]


def test_an_event_that_is_twice_there(tmp_path: Path) -> None:
    path = tmp_path / "t.wbt"
    header = Header(machine={})
    writer = TraceWriter(path, header)
    writer.embed({}, header)
    writer.append([(tables.CONSOLE, 1, "com1", b"x")], 1)
    writer.events = 0
    writer.append([(tables.CONSOLE, 2, "com1", b"y")], 2)
    writer.abandon()
    for write in (write_json_lines, write_perfetto):
        with api.open(path) as trace, pytest.raises(FormatError, match="an event is out of place"):
            write(trace, io.BytesIO())


def test_vcd(network_trace: Path, tmp_path: Path) -> None:
    with api.open(network_trace) as trace, written(tmp_path / "t.vcd") as file:
        assert write_vcd(trace, file) == 4
    assert (tmp_path / "t.vcd").read_text() == (
        f"$comment Workbench {api.__version__} $end\n"
        "$timescale 1 ps $end\n$scope module irq $end\n"
        "$var wire 1 ! IRQ11 $end\n"
        '$var wire 1 " a_b_end__ $end\n'
        "$upscope $end\n$enddefinitions $end\n"
        '#0\n$dumpvars\n1!\n0"\n$end\n'
        '#105000\n1"\n#105001\n0"\n#110000\n0!\n#155000\n1!\n#200000\n'
    )


def blocks(data: bytes) -> list[tuple[int, bytes]]:
    found, at = [], 0
    while at < len(data):
        kind, length = struct.unpack_from("<II", data, at)
        assert length % 4 == 0
        assert struct.unpack_from("<I", data, at + length - 4) == (length,)
        found.append((kind, data[at + 8 : at + length - 4]))
        at += length
    return found


def test_pcapng(network_trace: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.pcapng"
    with api.open(network_trace) as trace, written(path) as file:
        frames = list(received_frames(trace))
        assert frames[0] == Frame(100, 1_000_000_000, "net0", ARP)
        sent = [Frame(250, 3_000_000_000, "net0", ARP, sent=True)]
        assert write_pcapng(trace, file, sent) == 3
    assert [kind for kind, _ in blocks(path.read_bytes())] == [0x0A0D0D0A, 1, 1, 6, 6, 6]
    tshark = shutil.which("tshark")
    if tshark is None:
        pytest.skip("there is no tshark here")
    fields = (
        "frame.time_epoch", "frame.interface_name", "frame.len", "frame.packet_flags_direction",
        "arp.dst.proto_ipv4", "frame.comment",
    )  # fmt: skip
    options = [word for field in fields for word in ("-e", field)]
    done = subprocess.run(
        [tshark, "-r", str(path), "-T", "fields", *options],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[1:3] + row[4:] for row in rows] == [
        ["net0", "42", "10.0.2.2", "frame 0, received by net0 at instruction 100"],
        ["net0", "42", "10.0.2.2", "frame 1, sent by net0 at instruction 250"],
        ["net1", "61", "10.0.2.2", "frame 2, received by net1 at instruction 300"],
    ]
    assert [int(row[3], 0) for row in rows] == [1, 2, 1]
    assert rows[0][0].startswith("1767225600.001")


def test_perfetto(make_trace: Make, tmp_path: Path) -> None:
    with api.open(make_trace()) as trace, written(tmp_path / "t.pftrace") as file:
        packets = write_perfetto(trace, file)
        accesses, levels = trace.accesses.num_rows, trace.irq_lines.to_pylist()
        interrupts = trace.interrupts.num_rows
        rows = [row for row in trace.accesses.to_pylist() if row["device"] == "com1"]
    pb2: Any = pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2")
    found = pb2.Trace()
    found.ParseFromString((tmp_path / "t.pftrace").read_bytes())
    assert len(found.packet) == packets
    tracks: dict[int, str] = {}
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    events: dict[str, list[Any]] = {}
    for packet in found.packet:
        if packet.HasField("track_descriptor"):
            descriptor = packet.track_descriptor
            assert descriptor.uuid not in tracks
            tracks[descriptor.uuid] = descriptor.name
        for name in packet.interned_data.event_names:
            names[name.iid] = name.name
        for name in packet.interned_data.debug_annotation_names:
            arguments[name.iid] = name.name
        if packet.HasField("track_event"):
            events.setdefault(tracks[packet.track_event.track_uuid], []).append(packet)
    assert sum(len(e) for name, e in events.items() if name.endswith("io)")) == accesses
    assert len(events["interrupts"]) + len(events["exceptions"]) == interrupts
    track_event = pb2.TrackEvent
    begun = [p for name in events if name.startswith("line ") for p in events[name]
             if p.track_event.type == track_event.TYPE_SLICE_BEGIN]  # fmt: skip
    wave = [row["level"] for row in levels if row["name"] == "irq14"]
    rises = sum(b and not a for a, b in itertools.pairwise([False, *wave])) + (not wave[0])
    assert len([p for p in begun if p in events["line irq14"]]) == rises
    ended = sum(len(events[name]) for name in events if name.startswith("line ")) - len(begun)
    assert ended == len(begun)
    counted = [p.track_event.counter_value for p in events["accesses per million instructions"]]
    assert sum(counted) == accesses
    first = events["com1 (pio)"][0]
    assert first.timestamp == rows[0]["icount"]
    assert names[first.track_event.name_iid] in ("0x5 ->", "0x0 <-")
    for packet, row in zip(events["com1 (pio)"], rows, strict=True):
        assert packet.timestamp == row["icount"]
        arrow = "<-" if row["write"] else "->"
        assert names[packet.track_event.name_iid] == f"{row['offset']:#x} {arrow}"
        given = {arguments[a.name_iid]: a.string_value or a.uint_value
                 for a in packet.track_event.debug_annotations}  # fmt: skip
        wanted = {"value": row["value"], "pc": hex(row["pc"]), "count": row["count"]}
        assert given == wanted


def test_perfetto_counts_the_same_again(tmp_path: Path) -> None:
    path = tmp_path / "t.wbt"
    header = Header(machine={})
    writer = TraceWriter(path, header)
    writer.embed({}, header)
    access = (0, "pio", "com1", 0, 1, True, 65, 0x3F8, 1)
    for first in (1, 2, 3, 7):
        at = first * 1_000_000
        writer.append([(tables.ACCESS, at + n, *access) for n in range(2 if first < 7 else 3)], at)
    writer.abandon()
    out = io.BytesIO()
    with api.open(path) as trace:
        write_perfetto(trace, out)
    pb2: Any = pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2")
    found = pb2.Trace()
    found.ParseFromString(out.getvalue())
    track = next(p.track_descriptor.uuid for p in found.packet
                 if p.track_descriptor.name == "accesses per million instructions")  # fmt: skip
    counted = [(p.timestamp // 1_000_000, p.track_event.counter_value) for p in found.packet
               if p.track_event.track_uuid == track]  # fmt: skip
    assert counted == [(0, 0), (1, 2), (4, 0), (7, 3), (8, 0)]


def test_a_file_is_there_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    with pytest.raises(TypeError), written(path) as file:
        file.write("no bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(InputFileError, match="cannot be written: no such file"):
        written(tmp_path / "no" / "such").__enter__()


def test_hostile_headers_and_numbers(tmp_path: Path) -> None:
    path = tmp_path / "t.wbt"
    machine = {"rtc_epoch_s": -5, "ps_per_insn": "many", "serial_ports": 7, "nics": [3]}
    header = Header(machine=machine, cmdline="\ud800\x1b[2J", workbench_version="\ud800" * 70_000)
    writer = TraceWriter(path, header)
    writer.embed({}, header)
    low, high = -(1 << 63), (1 << 63) - 1
    events: list[tables.Event] = [
        (tables.INPUT, low, low, "n" * 256, "frame", b""),
        (tables.INPUT, high, high, "", "frame", b"x" * 100_000),
        (tables.IRQ_LINE, low, "\x1b]0;x\x07", True),
        (tables.IRQ_LINE, high, "\x1b]0;x\x07", False),
        (tables.CONSOLE, high, "com1", b"\x1b[2J\xff" * 9),
        (tables.DMA, low, "", (1 << 64) - 1, (1 << 64) - 1, True),
    ]
    writer.append(events, 0)
    writer.abandon()
    with api.open(path) as trace:
        for write in (write_json_lines, write_vcd, write_perfetto, write_pcapng):
            with written(tmp_path / write.__name__) as file:
                assert write(trace, file) > 0
        assert not write_parquet(trace, tmp_path / "p")["accesses"]
    assert b"\x1b" not in (tmp_path / "write_vcd").read_bytes()
    assert len(blocks((tmp_path / "write_pcapng").read_bytes())) == 5
