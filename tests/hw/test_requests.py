"""What devices tell of their requests (core/requests.py): begin, update, end, reset, restore."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from tests.hw.e1000_rig import EOP, IFCS, RS, NicRig
from tests.hw.ide_rig import IdeRig
from tests.hw.virtio.disks import MemoryDisk, header
from tests.hw.virtio.driver import Rig
from workbench.core.requests import Requests, RequestState
from workbench.core.state import StateError, decode, encode
from workbench.hw.ata.packets import describe_packet
from workbench.hw.virtio import blk, net
from workbench.hw.virtio.blk import VirtioBlk
from workbench.hw.virtio.net import VirtioNet
from workbench.hw.virtio.rng import VirtioRng
from workbench.hw.virtio.spec import F_VERSION_1
from workbench.net.port import Large

Row = tuple[Any, ...]
NAMES = (
    "device", "id", "phase", "kind", "queue", "address", "length", "write", "head", "segments",
    "status", "detail",
)  # fmt: skip


class Log:
    """Hears of requests; `take` gives what came since, as dicts."""

    def __init__(self, *handles: Requests) -> None:
        self.rows: list[Row] = []
        for handle in handles:
            handle.report = self._hear

    def _hear(self, row: Row) -> None:
        self.rows.append(row)

    def take(self) -> list[dict[str, Any]]:
        rows, self.rows = self.rows, []
        return [dict(zip(NAMES, row, strict=True)) for row in rows]


def short(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(r["device"], r["id"], r["phase"], r["kind"] or r["status"]) for r in rows]


# -- the handle


def test_numbers_count_on_after_an_abort() -> None:
    requests = Requests("d")
    log = Log(requests)
    first, second = requests.begin("a"), requests.begin("b")
    requests.abort()
    requests.end(first)  # is not open any more
    requests.update(second, "c")
    assert requests.begin("d") == 3
    assert short(log.take()) == [
        ("d", 1, "begin", "a"),
        ("d", 2, "begin", "b"),
        ("d", 1, "end", "reset"),
        ("d", 2, "end", "reset"),
        ("d", 3, "begin", "d"),
    ]
    assert (requests.state.last, requests.state.open) == (3, [3])


@pytest.mark.parametrize("bad", [(1, [2]), (5, [3, 3]), (-1, []), (5, [0]), (1 << 63, [])])
def test_a_state_that_lies_is_refused(bad: tuple[int, list[int]]) -> None:
    data = encode(RequestState(), "r")
    data["fields"] = {"last": bad[0], "open": bad[1]}
    with pytest.raises(StateError):
        decode(RequestState, data, "r")


# -- ATA


@pytest.fixture
def ide() -> tuple[IdeRig, Log]:
    rig = IdeRig()
    return rig, Log(*rig.ide.request_handles)


def test_a_pio_read(ide: tuple[IdeRig, Log]) -> None:
    rig, log = ide
    rig.command(0x24, lba=0x345, count=2, ext=True)
    begin = log.take()
    assert begin == [
        {
            "device": "ide0", "id": 1, "phase": "begin", "kind": "READ SECTOR(S) EXT",
            "queue": -1, "address": 0x345, "length": 1024, "write": False, "head": -1,
            "segments": 0, "status": "", "detail": "drive 0 PIO",
        }
    ]  # fmt: skip
    for _ in range(2):
        assert log.take() == []
        rig.wait()
        rig.pio_in()
    [end] = log.take()
    assert (end["id"], end["phase"], end["status"]) == (1, "end", "ok")
    assert end["detail"] == "STATUS=0x50 ERROR=0x00"


def test_a_dma_write_ends_when_it_is_on_the_disk(ide: tuple[IdeRig, Log]) -> None:
    rig, log = ide
    rig.command(0xEF, count=0x45, features=3)
    rig.wait()
    log.take()
    rig.table((0x4000, 4096))
    rig.command(0x35, lba=100, count=8, ext=True)
    rig.start(to_memory=False)
    rig.wait()
    begin, end = log.take()
    assert (begin["kind"], begin["address"], begin["length"]) == ("WRITE DMA EXT", 100, 4096)
    assert begin["write"]
    assert begin["detail"] == "drive 0 UDMA5"
    assert end["status"] == "ok"


def test_errors_have_the_names_of_their_bits(ide: tuple[IdeRig, Log]) -> None:
    rig, log = ide
    rig.command(0x25, lba=1 << 20, count=1, ext=True)
    rig.command(0xF1)
    rows = log.take()
    assert [r["kind"] or r["status"] for r in rows] == [
        "READ DMA EXT", "IDNF", "SECURITY SET PASSWORD", "ABRT",
    ]  # fmt: skip
    assert rows[3]["detail"] == "STATUS=0x51 ERROR=0x04"


def test_reset_and_another_command_end_what_is_under_way(ide: tuple[IdeRig, Log]) -> None:
    rig, log = ide
    rig.command(0xEC)
    rig.wait()
    rig.command(0xEC)  # while the first offers its data
    rig.control(4)
    rig.control(0)
    rig.wait()
    assert short(log.take()) == [
        ("ide0", 1, "begin", "IDENTIFY DEVICE"),
        ("ide0", 1, "end", "aborted"),
        ("ide0", 2, "begin", "IDENTIFY DEVICE"),
        ("ide0", 2, "end", "reset"),
    ]
    rig.command(0xEC)
    rig.ide.reset()
    assert short(log.take())[1] == ("ide0", 3, "end", "reset")
    rig.power_up()
    rig.command(0x90)
    rig.wait()
    assert short(log.take()) == [
        ("ide0", 4, "begin", "EXECUTE DEVICE DIAGNOSTIC"),
        ("ide0", 4, "end", "ok"),
    ]


def test_a_packet_is_named_when_it_has_come(ide: tuple[IdeRig, Log]) -> None:
    rig, log = ide
    assert len(rig.packet_in(0x28, 0, 0, 0, 0, 3, 0, 0, 5)) == 5 * 2048
    begin, update, end = log.take()
    assert (begin["kind"], begin["device"]) == ("PACKET", "ide1")
    assert (update["kind"], update["address"], update["length"]) == ("READ(10)", 3, 10240)
    assert (update["phase"], update["id"]) == ("update", begin["id"])
    assert end["status"] == "ok"
    rig.packet(0x28, 0, 0, 0, 9, 9, 0, 0, 1)
    assert log.take()[-1]["status"] == "ILLEGAL REQUEST"


def test_every_packet_the_drive_knows_has_a_name() -> None:
    from workbench.hw.ata.atapi import AtapiDrive

    for code in AtapiDrive("cd")._commands:
        name, _, _ = describe_packet(bytes((code, *range(1, 12))))
        assert not name.startswith("packet")
    assert describe_packet(bytes((0xFE, *bytes(11))))[0] == "packet FEh"


def test_a_restored_channel_ends_the_same_request() -> None:
    rig, again = IdeRig(), IdeRig()
    rig.command(0xC8, lba=7, count=1)
    again.ide.restore(rig.ide.save())
    log = Log(*again.ide.request_handles)
    again.ide.channels[0].drives[0].soft_reset(True)
    again.command(0xEC, channel=1)
    assert short(log.take())[0] == ("ide0", 1, "end", "reset")


# -- virtio


def test_virtio_block_requests() -> None:
    rig = Rig(lambda clock: VirtioBlk("vda", MemoryDisk(), clock)).start(F_VERSION_1)
    log = Log(*rig.function.request_handles)
    rig.request([header(blk.T_OUT, 3), bytes(1024)], [1])
    begin, end = log.take()
    assert begin == {
        "device": "vda", "id": 1, "phase": "begin", "kind": "VIRTIO_BLK_T_OUT", "queue": 0,
        "address": 3, "length": 1024, "write": True, "head": begin["head"], "segments": 3,
        "status": "", "detail": "",
    }  # fmt: skip
    assert (end["id"], end["status"], end["detail"]) == (1, "ok", "written 1")
    rig.request([header(blk.T_IN, 1 << 40)], [512, 1])
    assert log.take()[1]["status"] == "VIRTIO_BLK_S_IOERR"
    rig.request([header(99, 0)], [1])
    begin, end = log.take()
    assert (begin["kind"], end["status"]) == ("VIRTIO_BLK_T 99", "VIRTIO_BLK_S_UNSUPP")


def test_virtio_requests_under_way_end_with_the_reset() -> None:
    rig = Rig(lambda clock: VirtioBlk("vda", MemoryDisk(), clock)).start(F_VERSION_1)
    log = Log(*rig.function.request_handles)
    rig.rings[0].add([header(blk.T_IN, 0)], [512, 1])
    rig.rings[0].add([header(blk.T_FLUSH, 0)], [1])
    rig.kick()
    rig.function.virtio.set_status(0)
    assert short(log.take()) == [
        ("vda", 1, "begin", "VIRTIO_BLK_T_IN"),
        ("vda", 2, "begin", "VIRTIO_BLK_T_FLUSH"),
        ("vda", 1, "end", "reset"),
        ("vda", 2, "end", "reset"),
    ]


class Cable:
    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, frame: bytes) -> None:
        self.sent.append(frame)

    def send_large(self, large: Large) -> None:
        for frame in large.cut():
            self.send(frame)

    def connect(self, receiver: Any) -> None:
        self.receiver = receiver


def test_virtio_net_requests() -> None:
    cable = Cable()
    features = F_VERSION_1 | net.F_CTRL_VQ | net.F_CTRL_RX | net.F_MRG_RXBUF
    rig = Rig(lambda clock: VirtioNet("net0", "52:54:00:12:34:56", cable)).start(features)
    log = Log(*rig.function.request_handles)
    rig.request([bytes(12) + bytes(60)], [], n=1)
    assert len(cable.sent) == 1
    begin, end = log.take()
    assert (begin["kind"], begin["queue"], begin["length"], begin["write"]) == ("tx", 1, 60, True)
    assert (end["status"], end["detail"]) == ("ok", "written 0")
    rig.request([bytes(12)], [], n=1)
    assert log.take()[1]["status"] == "dropped"
    rig.request([b"\0\0\1"], [1], n=2)
    begin, end = log.take()
    assert (begin["kind"], begin["detail"], end["status"]) == (
        "VIRTIO_NET_CTRL_RX", "command 0", "ok",
    )  # fmt: skip
    for _ in range(3):
        rig.rings[0].add([], [64])
    rig.kick(0)
    assert log.take() == []  # a buffer is no request before there is a frame for it
    cable.receiver("frame", [bytes(100)])
    rows = log.take()
    assert [(r["phase"], r["length"], r["detail"]) for r in rows] == [
        ("begin", 52, "buffer 1 of 2"),
        ("end", 0, "written 64"),
        ("begin", 48, "buffer 2 of 2"),
        ("end", 0, "written 48"),
    ]


def test_a_driver_that_breaks_the_ring_breaks_the_request() -> None:
    rig = Rig(lambda clock: VirtioBlk("vda", MemoryDisk(), clock)).start(F_VERSION_1)
    log = Log(*rig.function.request_handles)
    rig.rings[0].add([header(blk.T_IN, 0)], [512, 1])
    rig.rings[0].add([b"short"], [1])
    rig.kick()
    assert short(log.take())[-1] == ("vda", 1, "end", "broken")


def test_entropy() -> None:
    rig = Rig(lambda clock: VirtioRng("rng", 1)).start(F_VERSION_1)
    log = Log(*rig.function.request_handles)
    rig.request([], [40])
    begin, end = log.take()
    assert (begin["kind"], begin["length"], end["detail"]) == ("rng", 40, "written 40")


# -- e1000


def test_a_frame_of_two_descriptors() -> None:
    rig = NicRig()
    log = Log(rig.nic.requests)
    rig.start_tx()
    rig.put(EOP | IFCS | RS, 0, bytes(60))
    rig.put(IFCS | RS, 0, bytes(30))
    rig.put(EOP | IFCS | RS, 0, bytes(40))
    rig.go()
    first, update, end, second = log.take()[:4]
    assert (first["kind"], first["head"], first["length"]) == ("tx", 0, 0)
    assert (update["length"], update["segments"], update["write"]) == (60, 1, True)
    assert (end["phase"], end["status"]) == ("end", "ok")
    assert (second["head"], second["address"] - first["address"]) == (1, 16)


def test_a_received_frame_names_its_descriptor() -> None:
    rig = NicRig()
    log = Log(rig.nic.requests)
    rig.start_rx()
    rig.arrive(b"\xff" * 6 + bytes(94))
    begin, end = log.take()
    assert (begin["kind"], begin["head"], begin["length"], begin["segments"]) == ("rx", 0, 100, 1)
    assert not begin["write"]
    assert (end["id"], end["status"]) == (1, "ok")
    rig.set("CTRL", 1 << 26)  # RST: the count goes on
    assert rig.nic.state.requests.last == 1


def test_a_packet_that_was_begun_ends_with_the_reset() -> None:
    rig = NicRig()
    log = Log(rig.nic.requests)
    rig.start_tx()
    rig.put(IFCS | RS, 0, bytes(30))
    rig.go()
    state = rig.nic.save()
    again = NicRig()
    again.nic.restore(state)
    later = Log(again.nic.requests)
    for nic, its in ((rig, log), (again, later)):
        nic.set("CTRL", 1 << 26)
        assert short(its.take())[-1] == ("net0", 1, "end", "reset")


def test_the_rows_of_a_segmented_packet() -> None:
    rig = NicRig()
    log = Log(rig.nic.requests)
    rig.start_tx()
    size = 54 + 2 * 1000
    context = struct.unpack("<Q", struct.pack("<BBHBBH", 14, 24, 33, 34, 50, 0))[0]
    rig.put(1 << 29 | 3 << 24 | 1 << 26 | RS | 2000, 1000 << 16 | 54 << 8, address=context)
    rig.put(1 << 29 | 1 << 20 | 1 << 26 | EOP | IFCS | RS, 3 << 8, bytes(size))
    rig.go()
    begin, update, end = log.take()
    assert begin["head"] == 1
    assert update["detail"] == "TSO MSS=1000 HDRLEN=54"
    assert update["length"] == size
    assert (end["status"], end["detail"]) == ("ok", "2 frames")
