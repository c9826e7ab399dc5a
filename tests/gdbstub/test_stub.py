"""The stub without gdb: bytes in, bytes out."""

from __future__ import annotations

import random
import socket
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import InputFileError, UsageError
from workbench.gdbstub import points
from workbench.gdbstub.framing import Framing, frame
from workbench.gdbstub.server import Server, listen
from workbench.gdbstub.stub import Stub
from workbench.gdbstub.target import ReplayTarget
from workbench.trace.timeline import Timeline


@pytest.fixture(scope="module")
def stub(demo_path: Path) -> Stub:
    from workbench.trace.reader import open_trace

    with open_trace(demo_path) as trace:
        found = Stub(ReplayTarget(Timeline(trace)))
    found.framing.acks = False
    return found


def ask(stub: Stub, payload: bytes) -> bytes:
    """Send a packet, make the move that it asks for, give the last answer's payload."""
    stub.receive(frame(payload))
    if stub.running is not None:
        stub.run(lambda: False)
    answers = [e for e in Framing().feed(stub.framing.take()) if isinstance(e, bytes)]
    return answers[-1] if answers else b"nothing"


def test_what_is_supported(stub: Stub) -> None:
    answer = ask(stub, b"qSupported:multiprocess+;swbreak+;hwbreak+")
    for feature in (b"PacketSize=", b"ReverseStep+", b"ReverseContinue+", b"qXfer:features:read+"):
        assert feature in answer


def test_registers(stub: Stub) -> None:
    ask(stub, b"qSupported")
    everything = bytes.fromhex(ask(stub, b"g").decode())
    assert len(everything) == stub.layout.bytes
    pc = bytes.fromhex(ask(stub, b"p%x" % stub.layout.pc).decode())
    assert int.from_bytes(pc, "little") == stub.target.machine.cpu.get("rip")
    assert ask(stub, b"p%x" % len(stub.layout.registers)) == b"E01"


def test_every_register_can_be_written_back(stub: Stub) -> None:
    for number in range(len(stub.layout.registers)):
        held = ask(stub, b"p%x" % number)
        assert ask(stub, b"P%x=%s" % (number, held)) == b"OK", stub.layout.registers[number].name
    everything = ask(stub, b"g")
    assert ask(stub, b"G" + everything) == b"OK"
    assert ask(stub, b"g") == everything


def test_memory(stub: Stub) -> None:
    assert ask(stub, b"M2000,3:616263") == b"OK"
    assert ask(stub, b"m2000,3") == b"616263"
    assert ask(stub, b"X2000,2:\x7d\x03\x7d\x04") == b"OK"
    assert ask(stub, b"x2000,3") == b"b}\x03}\x04c"
    assert ask(stub, b"mfffffffffff00000,4") == b"E14"
    assert ask(stub, b"Qqemu.PhyMemMode:1") == b"OK"
    assert ask(stub, b"qqemu.PhyMemMode") == b"1"
    assert ask(stub, b"m2000,2") == b"2324"
    assert ask(stub, b"Qqemu.PhyMemMode:0") == b"OK"


def test_the_target_description_comes_in_pieces(stub: Stub) -> None:
    text = b""
    while True:
        answer = ask(stub, b"qXfer:features:read:target.xml:%x,200" % len(text))
        text += answer[1:].replace(b"}\x03", b"#").replace(b"}\n", b"*").replace(b"}\x04", b"$")
        if answer[:1] == b"l":
            break
    assert text.decode() == stub.layout.xml
    assert ask(stub, b"qXfer:features:read:other.xml:0,200") == b"E00"


def test_moves_and_stop_replies(stub: Stub) -> None:
    assert ask(stub, b"s").startswith(b"T05")
    assert b"replaylog:begin" in ask(stub, b"bc")
    assert b"replaylog:begin" in ask(stub, b"bs")
    assert b"replaylog:end" in ask(stub, b"c")
    assert b"replaylog:end" in ask(stub, b"?")


def test_any_packet_at_all_gets_an_answer(stub: Stub) -> None:
    letters = b"mMxXgGpPzZHTqQv?!Dk0123456789abcdef,:;=+-_#$}"
    rng = random.Random(11)
    for _ in range(3000):
        payload = bytes(rng.choice(letters) for _ in range(rng.randrange(1, 30)))
        stub.receive(frame(payload))
        stub.running = None
        stub.framing.take()
    stub.killed = stub.detached = False
    assert ask(stub, b"qC") == b"QC01"


@settings(max_examples=300)
@given(st.binary(max_size=60))
def test_any_bytes_at_all_are_survived(stub: Stub, data: bytes) -> None:
    stub.receive(data)
    stub.running = None
    stub.framing = Framing()
    stub.killed = stub.detached = False


def test_addresses() -> None:
    with pytest.raises(UsageError, match="expected :PORT"):
        listen("nonsense")
    with pytest.raises(UsageError, match="expected :PORT"):
        listen(":99999")
    with pytest.raises(UsageError, match="expected :PORT"):
        listen("")
    with pytest.raises(UsageError, match="at most 107 bytes"):
        listen(f"unix:/tmp/{'x' * 200}")
    with listen(":0") as first, pytest.raises(InputFileError, match="in use"):
        listen(f":{first.getsockname()[1]}")


def heard(client: socket.socket, what: bytes) -> bytes:
    """What a client hears until `what` came, or the end."""
    client.settimeout(10)
    answer = b""
    while what not in answer:
        piece = client.recv(4096)
        if not piece:
            break
        answer += piece
    return answer


def test_one_that_comes_when_the_other_has_just_gone_is_heard(stub: Stub) -> None:
    """It has left questions behind, which nobody has read yet."""
    stub.killed = False
    with Server(stub, listen(":0")) as server:
        host, port = server.address.split(":")
        place = (host, int(port))
        first = socket.create_connection(place)
        server.work(1)
        first.sendall(frame(b"qC") * 100)
        first.close()
        with socket.create_connection(place) as second:
            for _ in range(4):
                server.work(0.2)
            second.sendall(frame(b"qC"))
            server.work(1)
            assert b"QC01" in heard(second, b"#")


def test_a_write_that_fails_opens_no_diversion(stub: Stub) -> None:
    timeline = stub.target.timeline
    assert timeline is not None
    timeline.drop_diversion()
    assert ask(stub, b"Mfffffffffff00000,1:00") == b"E14"
    assert timeline.diverted is None


def test_a_client_that_vanishes_and_one_too_many(stub: Stub) -> None:
    stub.killed = False
    with Server(stub, listen(":0")) as server:
        thread = Thread(target=server.serve, daemon=True)
        thread.start()
        host, port = server.address.split(":")
        place = (host, int(port))
        with socket.create_connection(place) as first:
            first.sendall(frame(b"qC"))
            assert b"QC01" in heard(first, b"QC01")
            for _ in range(12):
                with socket.create_connection(place) as second:
                    second.sendall(frame(b"qSupported"))
                    assert b"another debugger is connected" in heard(second, b"#")
                    assert heard(second, b"never")[-1:] != b"+"
            first.sendall(frame(b"qC"))
            assert b"QC01" in heard(first, b"QC01")
            first.sendall(frame(b"c")[:-1])
        for _ in range(100):
            with socket.create_connection(place) as third:
                third.sendall(frame(b"qC"))
                answer = heard(third, b"#")
                if b"QC01" in answer:
                    third.sendall(frame(b"k"))
                    break
        thread.join(10)
        assert not thread.is_alive()


def test_a_socket_that_somebody_listens_at(tmp_path: Path) -> None:
    path = tmp_path / "gdb"
    with listen(f"unix:{path}"), pytest.raises(InputFileError, match="in use"):
        listen(f"unix:{path}")
    listen(f"unix:{path}").close()  # what a killed server left is taken over


def test_a_request_without_end(stub: Stub) -> None:
    stub.receive(b"$" + b"a" * (1 << 20))
    stub.receive(b"#00" + frame(b"qC"))
    assert b"QC01" in stub.framing.take()


def test_ctrl_c_stops_the_guest(stub: Stub) -> None:
    ask(stub, b"bc")

    def press() -> bool:
        stub.receive(b"\x03")
        return False

    stub.receive(frame(b"c"))
    stub.framing.take()
    stub.run(press)
    assert b"T02thread:01;" in stub.framing.take()
    assert b"replaylog:end" in ask(stub, b"c")


def test_an_unknown_packet_is_answered_with_nothing(stub: Stub) -> None:
    for payload in (b"vMustReplyEmpty", b"qNonsense", b"jThreadsInfo", b"i"):
        stub.receive(frame(payload))
        assert stub.framing.take().endswith(b"$#00")


def test_what_lldb_asks(stub: Stub) -> None:
    assert bytes.fromhex(ask(stub, b"qHostInfo")[7:].partition(b";")[0].decode()) == (
        b"x86_64-unknown-linux"
    )
    assert ask(stub, b"qProcessInfo").startswith(b"pid:1;")
    assert ask(stub, b"qMemoryRegionInfo:1000") == b"start:0;size:800000000000;permissions:rwx;"
    hole = ask(stub, b"qMemoryRegionInfo:900000000000")
    assert hole == b"start:800000000000;size:ffff000000000000;"
    assert b"permissions" in ask(stub, b"qMemoryRegionInfo:ffffffff81000000")
    assert ask(stub, b"qMemoryRegionInfo:zz") == b"E01"


def test_tens_of_thousands_of_breakpoints(demo_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.trace.reader import open_trace

    with open_trace(demo_path) as trace:
        timeline = Timeline(trace)
        stub = Stub(ReplayTarget(timeline))
        stub.framing.acks = False
        timeline.seek(20_000)
        pcs = []
        for _ in range(40):
            timeline.step()
            pcs.append(timeline.machine.cpu.get("rip"))
        timeline.seek(20_000)
        addresses = {0xFFFF_FFFF_8100_0000 + 16 * n for n in range(20_000)} | {pcs[-1], 0}
        for address in addresses:
            assert ask(stub, b"Z1,%x,1" % address) == b"OK"
        assert ask(stub, b"vCont;c").startswith(b"T05")
        first = pcs.index(pcs[-1])
        assert (timeline.icount, timeline.machine.cpu.get("rip")) == (20_001 + first, pcs[-1])
        monkeypatch.setattr(points, "MAX_BREAKPOINTS", len(addresses))
        assert ask(stub, b"Z0,10,1") == b"E28"
        assert ask(stub, b"z1,%x,1" % pcs[-1]) == b"OK"
        assert ask(stub, b"Z0,10,1") == b"OK"
        stub.points.clear()
        assert ask(stub, b"bc") == b"T05replaylog:begin;thread:01;"
