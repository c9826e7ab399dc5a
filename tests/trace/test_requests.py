"""Requests made whole, and what belongs to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.trace import fake
from workbench.cli.main import main
from workbench.core.requests import RequestEvent
from workbench.trace.container import encode_prelude
from workbench.trace.events import EventObserver
from workbench.trace.header import End, Header
from workbench.trace.reader import Trace, open_trace
from workbench.trace.replayer import Replay
from workbench.trace.requests import Relations, Requests, requests
from workbench.trace.session import Recording
from workbench.trace.tables import Event
from workbench.trace.writer import TraceWriter


class Script(EventObserver):
    """Makes events by calls, at an instruction count that goes on with each."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []
        self._append = self.events.append
        self.now = 0
        self.machine: dict[str, Any] = {}

    def access(self, device: str, offset: int, write: bool, kind: str = "pio") -> int:
        self.on_access(kind, device, offset, 1, write, 0, offset, self.now, 0x1000)
        self.now += 10
        return len(self.events) - 1

    def begin(self, device: str, number: int, kind: str = "READ DMA", **more: Any) -> None:
        self.row(device, number, "begin", kind, **more)

    def row(
        self, device: str, number: int, phase: str, kind: str = "", status: str = "",
        address: int = 0, length: int = 0, detail: str = "",
    ) -> None:  # fmt: skip
        event = RequestEvent(
            device, number, phase, kind, -1, address, length, False, -1, 0, status, detail
        )
        self.on_request(event, self.now)

    def end(self, device: str, number: int, status: str = "ok", **more: Any) -> None:
        self.row(device, number, "end", "", status, **more)

    def write(self, path: Path) -> Trace:
        writer = TraceWriter(str(path), Header(machine=self.machine))
        writer.embed({}, Header(machine=self.machine))
        writer.append(self.events, self.now)
        writer.close(End(self.now, self.now, len(self.events), "limit", 0, "", 0.0, ""))
        return open_trace(path)


def owners(trace: Trace) -> list[str]:
    relations = Relations(trace)
    return ["" if n < 0 else relations.requests.name(n) for n in relations.accesses(trace.accesses)]


def test_pairs_updates_and_what_hangs(tmp_path: Path) -> None:
    script = Script()
    script.begin("ide1", 1, "PACKET", detail="drive 0")
    script.begin("ide0", 1, length=512, address=7)
    script.now = 30
    script.row("ide1", 1, "update", "READ(10)", address=16, length=2048, detail="PIO")
    script.now = 50
    script.end("ide1", 1, "MEDIUM ERROR", detail="STATUS=0x51")
    script.end("vda", 9)  # without a begin: none
    with script.write(tmp_path / "a.wbt") as trace:
        packet, hangs = requests(trace)
        assert (packet.name, packet.kind, packet.address, packet.length) == (
            "ide1/1", "READ(10)", 16, 2048,
        )  # fmt: skip
        assert (packet.latency, packet.status) == (50, "MEDIUM ERROR")
        assert packet.detail == "PIO; STATUS=0x51"
        assert (hangs.name, hangs.end_seq, hangs.latency, hangs.status) == (
            "ide0/1",
            None,
            None,
            "",
        )
        found = Requests(trace)
        assert (found.find("ide0/1"), found.find("ide0/2"), found.find("nonsense")) == (
            1,
            None,
            None,
        )


def test_accesses_of_an_ide_channel(tmp_path: Path) -> None:
    script = Script()
    script.access("ide0.control", 0, write=False)  # before anything is set up: of none
    script.access("ide0", 6, write=True)  # Device: sets up the first
    script.access("bmide", 0, write=False)
    script.begin("ide0", 1)
    script.access("ide0", 7, write=True)  # Command
    script.access("bmide", 8, write=False)  # the other channel's
    script.access("ide0", 2, write=True)  # while busy: no set-up
    script.end("ide0", 1)
    script.access("ide0", 7, write=False)
    script.access("bmide", 2, write=True)
    script.access("ide0", 2, write=True)  # from here on of the next one
    script.access("bmide", 4, write=True)
    script.begin("ide0", 2)
    script.end("ide0", 2)
    script.access("ide0", 7, write=True)
    script.access("ide0", 0, write=False, kind="cfg")
    script.now += 2_000_000
    script.access("ide0", 7, write=False)  # long afterwards
    with script.write(tmp_path / "a.wbt") as trace:
        one, two = "ide0/1", "ide0/2"
        assert owners(trace) == ["", one, one, one, "", one, one, one, two, two, two, "", ""]


def test_accesses_in_batches_are_assigned_the_same(tmp_path: Path) -> None:
    script = Script()
    for n in range(1, 30):
        for offset in range(1, 7):
            script.access("ide0", offset, write=True)
        script.begin("ide0", n)
        script.access("ide0", 7, write=True)
        script.end("ide0", n)
        script.access("ide0", 7, write=False)
    with script.write(tmp_path / "a.wbt") as trace:
        whole = owners(trace)
        assert whole == [f"ide0/{n}" for n in range(1, 30) for _ in range(8)]
        relations = Relations(trace)
        cut: list[int] = []
        for at in range(0, trace.accesses.num_rows, 5):
            cut += relations.accesses(trace.accesses.slice(at, 5)).tolist()
        assert [relations.requests.name(n) for n in cut] == whole


def test_dma_and_interrupts_of_a_queue(tmp_path: Path) -> None:
    script = Script()
    script.on_dma("vda", 0, 2, False, 0)  # the index and the descriptors of the first
    script.on_dma("vda", 0, 16, False, 0)
    script.begin("vda", 1, "VIRTIO_BLK_T_IN")
    script.on_dma("vda", 0, 512, True, 0)
    script.on_dma("vda", 0, 32, False, 0)  # of the second
    script.begin("vda", 2, "VIRTIO_BLK_T_IN")
    script.on_dma("vda", 0, 1024, True, 0)
    script.access("vda", 16, write=True)
    script.now = 100
    script.end("vda", 1)
    script.on_irq_line("vda.msi36", True, 100)
    script.on_irq_line("vda.msi36", False, 100)
    script.now = 200
    script.end("vda", 2)
    script.on_irq_line("IRQ11", True, 200)
    script.on_irq_line("IRQ10", True, 300)  # nobody's
    with script.write(tmp_path / "a.wbt") as trace:
        totals = Relations(trace).totals()
        assert totals.dma_bytes.tolist() == [2 + 16 + 512, 32 + 1024]
        assert totals.interrupts.tolist() == [1, 1]
        assert totals.accesses.tolist() == [0, 1]


def test_ide_dma_is_of_the_channel_that_ends_first(tmp_path: Path) -> None:
    script = Script()
    script.begin("ide0", 1)
    script.begin("ide1", 1)
    script.on_dma("piix3_ide", 0, 512, True, 0)
    script.end("ide1", 1)
    script.on_irq_line("IRQ15", True, 0)
    script.on_dma("piix3_ide", 0, 100, True, 0)
    script.end("ide0", 1)
    with script.write(tmp_path / "a.wbt") as trace:
        totals = Relations(trace).totals()
        assert totals.dma_bytes.tolist() == [100, 512]
        assert totals.interrupts.tolist() == [0, 1]


def test_tdt_belongs_to_the_frame_that_it_starts(tmp_path: Path) -> None:
    script = Script()
    for n in (1, 2):
        script.access("net0", 0x3818, write=True, kind="mmio")
        script.begin("net0", n, "tx")
        script.end("net0", n)
        script.access("net0", 0xC0, write=False, kind="mmio")
    with script.write(tmp_path / "a.wbt") as trace:
        assert owners(trace) == ["net0/1", "net0/1", "net0/2", "net0/2"]


def test_a_trace_without_requests(make_trace: Any) -> None:
    with open_trace(make_trace()) as trace:
        assert requests(trace) == []
        assert set(owners(trace)) == {""}
        assert len(Relations(trace).totals().accesses) == 0


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = Script()
    script.begin("ide\x1b[2J", 1, "READ\x9b31m", length=512)
    script.now = 900
    script.end("ide\x1b[2J", 1, "bad\x07", detail="x\x1b]0;title\x07")
    script.begin("ide0", 1, "FLUSH CACHE")
    script.write(tmp_path / "a.wbt").close()
    path = str(tmp_path / "a.wbt")
    assert main(["requests", path]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "\x9b" not in out
    assert "(open)" in out
    assert main(["requests", path, "--kind", "flush*", "--json"]) == 0
    line = capsys.readouterr().out
    assert '"request": "ide0/1"' in line
    assert line.count("\n") == 1
    assert main(["requests", path, "--top", "1", "--json"]) == 0
    assert '"ide0/1"' in capsys.readouterr().out  # what never ended is slowest
    assert main(["requests", path, "--top", "0"]) == 2


def test_a_replay_of_version_1_compares_no_requests(tmp_path: Path) -> None:
    """A recording of the version before, of a machine that tells of requests and messages."""

    class Newer(fake.FakeMachine):
        silent = True

        def _event(self) -> None:
            super()._event()
            if not self.silent:
                now = self.clock.icount
                for observer in self.observers:
                    observer.on_request(RequestEvent("d", 1, "begin", "k"), now)
                    observer.on_irq_line("d.msi36", True, now)

    path = tmp_path / "a.wbt"
    Recording(str(path), fake.config(), fake.GUEST, build=Newer).run()
    data = bytearray(path.read_bytes())
    data[:16] = encode_prelude(1)
    path.write_bytes(bytes(data))
    Newer.silent = False
    with open_trace(path) as trace:
        assert trace.version == 1
        assert Replay(trace, build=Newer).run().identical
    data[:16] = encode_prelude(2)
    path.write_bytes(bytes(data))
    with open_trace(path) as trace:
        assert not Replay(trace, build=Newer).run().identical


def test_log_and_stats_name_requests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = Script()
    for n in (1, 2):
        script.access("ide0", 6, write=True)
        script.begin("ide0", n, length=512)
        script.access("ide0", 7, write=True)
        script.now += 80
        script.end("ide0", n)
    script.access("pit", 0, write=True)
    script.write(tmp_path / "a.wbt").close()
    path = str(tmp_path / "a.wbt")
    assert main(["log", path, "--requests", "--register", "COMMAND"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert ["ide0/1" in lines[0], "ide0/2" in lines[1]] == [True, True]
    assert main(["log", path, "--requests", "--json"]) == 0
    found = [json.loads(line)["request"] for line in capsys.readouterr().out.splitlines()]
    assert found == ["ide0/1", "ide0/1", "ide0/2", "ide0/2", None]
    assert main(["stats", path, "--by", "request-kind"]) == 0
    assert "ide0 READ DMA" in capsys.readouterr().out
    assert main(["stats", path, "--by", "request-kind", "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)["rows"]
    assert (row["count"], row["bytes"], row["latency_median"], row["accesses"]) == (2, 1024, 90, 4)
