"""Requests, frames and status bits in the exports."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.trace import fake
from tests.trace.test_requests import Script
from workbench.core.requests import RequestEvent
from workbench.trace.export.frames import received_frames, sent_frames
from workbench.trace.export.pcapng import write_pcapng
from workbench.trace.export.perfetto import write_perfetto
from workbench.trace.export.vcd import write_vcd
from workbench.trace.reader import open_trace
from workbench.trace.session import Recording

FRAME = bytes.fromhex("ffffffffffff525400123456") + b"\x88\xb5" + bytes(50)


class Inp:
    kind, target, time_ps = "frame", "net0", 5_000_000

    def __init__(self, data: bytes, icount: int) -> None:
        self.data, self.icount = data, icount


def receive(script: Script, number: int, data: bytes, taken: bool = True, detail: str = "") -> None:
    script.on_input(Inp(data, script.now))
    if taken:
        length = len(data) if not detail else len(data) // 2
        script.row("net0", number, "begin", "rx", length=length, detail=detail)
        script.end("net0", number)


def test_a_received_frame_knows_its_request(tmp_path: Path) -> None:
    script = Script()
    receive(script, 1, FRAME)
    receive(script, 0, FRAME + bytes(7), taken=False)  # filtered out
    receive(script, 2, FRAME + bytes(100))
    receive(script, 3, FRAME, detail="buffer 1 of 2")
    with script.write(tmp_path / "a.wbt") as trace:
        found = [frame.request for frame in received_frames(trace)]
    assert found == ["net0/1", "", "net0/2", "net0/3"]


class Sender(fake.FakeMachine):
    """Sends a frame at each event."""

    sent = 0

    def _event(self) -> None:
        super()._event()
        self.sent += 1
        now, number = self.clock.icount, self.sent
        taken = RequestEvent("net0", number, "begin", "tx", 1, 0, 64, True, number % 4, 1)
        self._emit("on_request", taken, now)
        self._emit("on_frame", "net0", FRAME, now)
        self._emit("on_request", RequestEvent("net0", number, "end", status="ok"), now)


def test_sent_frames_come_from_a_replay(tmp_path: Path) -> None:
    path = tmp_path / "a.wbt"
    config = fake.config(insns=1000, nics=[{"name": "net0", "model": "e1000"}])
    Recording(str(path), config, fake.GUEST, build=Sender).run()
    with open_trace(path) as trace:
        sent = sent_frames(trace, build=Sender)
        assert len(sent) == trace.requests.num_rows // 2 > 5
        assert (sent[0].request, sent[0].queue, sent[0].head) == ("net0/1", 1, 1)
        with (tmp_path / "t.pcapng").open("wb") as file:
            assert write_pcapng(trace, file, sent) == len(sent)
    tshark = shutil.which("tshark")
    if tshark is None:
        pytest.skip("there is no tshark here")
    shown = subprocess.run(
        [tshark, "-r", str(tmp_path / "t.pcapng"), "-T", "fields", "-e", "frame.comment",
         "-e", "frame.interface_name"],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert len(shown) == len(sent)
    icount = f"{sent[1].icount:,}"
    assert shown[1] == (
        f"frame 1, sent by net0 at instruction {icount}, request net0/2, descriptor 2 of queue 1"
        "\tnet0"
    )


def test_waves_of_a_command(tmp_path: Path) -> None:
    script = Script()
    script.begin("ide0", 1)
    script.on_access("pio", "ide0.control", 0, 1, False, 0x58, 0x3F6, 50, 0)  # DRQ
    script.now = 90
    script.end("ide0", 1)
    with script.write(tmp_path / "a.wbt") as trace:
        out = io.BytesIO()
        assert write_vcd(trace, out) == 6
    text = out.getvalue().decode()
    names = {n: c for c, n in (line.split()[3:5] for line in text.splitlines() if "$var" in line)}
    assert set(names) == {"ide0.BSY", "ide0.DRQ", "ide0.request"}
    changes = text.partition("$end\n#0")[2]
    assert changes.index(f"1{names['ide0.BSY']}") < changes.index(f"1{names['ide0.DRQ']}")


def test_interrupt_causes_are_shown_as_they_are_read(tmp_path: Path) -> None:
    script = Script()
    script.on_access("mmio", "net0", 0xC0, 4, False, 0x83, 0, 10, 0)
    path = tmp_path / "a.wbt"
    script.now = 20
    script.machine = {"nics": [{"name": "net0", "model": "e1000"}]}
    with script.write(path) as trace:
        out = io.BytesIO()
        write_vcd(trace, out)
    assert b"$var wire 32 ! net0.ICR $end" in out.getvalue()
    assert b"b10000011 !" in out.getvalue()


def tracks(data: bytes) -> dict[str, list[tuple[int, int, str]]]:
    """Time, type and name of the events of each track."""
    pb2: Any = pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2")
    found = pb2.Trace()
    found.ParseFromString(data)
    of: dict[int, str] = {}
    names: dict[int, str] = {}
    events: dict[str, list[tuple[int, int, str]]] = {}
    for packet in found.packet:
        if packet.HasField("track_descriptor"):
            of[packet.track_descriptor.uuid] = packet.track_descriptor.name
        for name in packet.interned_data.event_names:
            names[name.iid] = name.name
        if packet.HasField("track_event"):
            event = packet.track_event
            name = names.get(event.name_iid, "")
            events.setdefault(of[event.track_uuid], []).append((packet.timestamp, event.type, name))
    return events


def test_perfetto_has_requests_and_modes(tmp_path: Path) -> None:
    script = Script()
    kernel, user = 0xFFFF_FFFF_8100_0000, 0x40_0000
    script.begin("vda", 1, "VIRTIO_BLK_T_IN")
    script.begin("vda", 2, "VIRTIO_BLK_T_OUT")
    script.on_exit("cpuid", 10, kernel, 0)
    script.on_exit("cpuid", 20, user, 0)
    script.on_interrupt(0x24, 30, user)
    script.now = 30
    script.end("vda", 1)
    script.on_access("mmio", "lapic", 0xB0, 4, True, 0, 0, 40, kernel)
    script.on_exit("hlt", 50, kernel, 0)
    script.now = 60
    script.begin("vda", 3, "VIRTIO_BLK_T_FLUSH")
    with script.write(tmp_path / "a.wbt") as trace:
        out = io.BytesIO()
        write_perfetto(trace, out)
    found = tracks(out.getvalue())
    begin, end = 1, 2
    assert [e[1:] for e in found["CPU mode"]] == [
        (begin, "kernel"), (end, ""), (begin, "user"), (begin, "interrupt 0x24"), (end, ""),
        (end, ""), (begin, "idle"), (end, ""),
    ]  # fmt: skip
    assert [e[2] for e in found["requests of vda"]] == [
        "VIRTIO_BLK_T_IN", "", "VIRTIO_BLK_T_FLUSH", "",
    ]  # fmt: skip
    assert [e[2] for e in found["requests of vda (2)"]] == ["VIRTIO_BLK_T_OUT", ""]
