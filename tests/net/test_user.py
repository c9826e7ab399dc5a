"""The user network: libslirp answers, translates, forwards."""

from __future__ import annotations

import random
import socket
import threading
import time

import pytest

from tests.net.frames import (
    ACK,
    GATEWAY,
    GUEST,
    SYN,
    Host,
    arp_reply,
    arp_request,
    is_arp_reply,
    ping,
    tcp,
    udp,
)
from tests.net.test_sockets import free_port
from workbench.core.checksum import internet_sum
from workbench.errors import UsageError, WorkbenchError
from workbench.hw.e1000.offload import Context
from workbench.hw.e1000.segments import Segments
from workbench.net import slirp
from workbench.net.port import Large
from workbench.net.user import Forward, UserBackend

try:
    slirp.load()
except WorkbenchError as missing:
    pytest.skip(str(missing), allow_module_level=True)


def start(*forwards: Forward) -> tuple[UserBackend, Host, bytes]:
    """A network that knows the guest, its host, the gateway's address."""
    backend, host = UserBackend(forwards), Host()
    backend.start(host.receive)
    backend.send(arp_request())
    reply = host.wait(is_arp_reply)
    assert reply[28:32] == GATEWAY
    return backend, host, reply[6:12]


def test_arp_and_ping():
    backend, host, gateway = start()
    backend.send(ping(gateway, b"hello"))
    answer = host.wait(lambda f: f[23:24] == b"\1")
    assert answer[26:34] == GATEWAY + GUEST
    assert answer[34] == 0
    assert b"hello" in answer
    backend.close()
    backend.close()
    assert backend.failure is None


def test_the_hosts_loopback_is_the_gateway():
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))
    server.settimeout(10)
    backend, host, gateway = start()
    backend.send(udp(gateway, 5000, server.getsockname()[1], b"question"))
    data, peer = server.recvfrom(100)
    assert data == b"question"
    server.sendto(b"answer", peer)
    assert host.wait(lambda f: f[23:24] == b"\x11").endswith(b"answer")
    backend.close()
    server.close()


def test_segments_of_a_guest_are_one_frame_to_libslirp_and_arrive_whole() -> None:
    """It answers with one acknowledgement of them all."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        backend, host, gateway = start()
        port = server.getsockname()[1]
        backend.send(tcp(gateway, 4000, port, 1000, 0, SYN))
        answer = host.wait(lambda f: f[23:24] == b"\6")
        theirs = int.from_bytes(answer[38:42], "big") + 1
        backend.send(tcp(gateway, 4000, port, 1001, theirs, ACK))
        peer, _ = server.accept()
        peer.settimeout(10)
        data = random.Random(1).randbytes(60_000)
        context = Context(14, 24, 33, 34, 50, 0, 1460, 54, len(data), tcp=True, ip=True)
        whole = tcp(gateway, 4000, port, 1001, theirs, ACK, data)
        header = bytearray(whole[:54])
        header[16:18] = header[24:26] = b"\0\0"
        header[50:52] = (internet_sum(header[26:34]) + 6).to_bytes(2, "big")
        segments = Segments(bytes(header), data, 1460, context, 3, b"", 0, 0, True)
        assert segments.whole() == whole
        backend.send_large(Large(42, segments.cut, segments.whole))
        assert host.wait(lambda f: f[23:24] == b"\6")[42:46] == (1001 + 60_000).to_bytes(4, "big")
        assert not host.frames
        got = b""
        while len(got) < len(data):
            got += peer.recv(1 << 16)
        assert got == data
        peer.close()
        backend.close()


def test_segments_of_ipv6_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """libslirp answers a packet of IPv6 longer than 1500 bytes with Packet Too Big."""
    backend = UserBackend()
    sent: list[bytes] = []
    monkeypatch.setattr(backend, "send", sent.append)
    head = bytes(12) + b"\x86\xdd"
    backend.send_large(Large(2, lambda: [head + b"a", head + b"b"], lambda: head + b"ab"))
    assert sent == [head + b"a", head + b"b"]
    backend.close()


def test_forwards():
    port, tcp_port = free_port(socket.SOCK_DGRAM), free_port()
    backend, host, gateway = start(
        Forward(port, 7, udp=True), Forward.parse(f"tcp::{tcp_port}-:80")
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"knock", ("127.0.0.1", port))
        frame = host.wait(lambda f: f[23:24] == b"\x11" and f.endswith(b"knock"))
        assert frame[36:38] == b"\0\7"
    with socket.socket() as client:
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", tcp_port))
        syn = host.wait(lambda f: f[23:24] == b"\6")
        assert syn[36:38] == b"\0\x50"
        assert syn[47] == 2
    backend.send(arp_reply(gateway))
    backend.close()


def test_a_port_in_use():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(WorkbenchError, match=f"Cannot forward port {port} of 127.0.0.1"):
            UserBackend((Forward(port, 80),))


def test_many_one_after_the_other():
    threads = threading.active_count()
    for _ in range(20):
        backend, _, _ = start()
        backend.close()
    time.sleep(0.01)
    assert threading.active_count() == threads


@pytest.mark.parametrize(
    ("text", "forward"),
    [
        ("tcp::8080-:80", Forward(8080, 80)),
        ("tcp:127.0.0.2:1-10.0.2.16:2", Forward(1, 2, False, "127.0.0.2", "10.0.2.16")),
        ("udp::53-:53", Forward(53, 53, True)),
        (":22-:22", Forward(22, 22)),
        ("::22-:22", Forward(22, 22)),
    ],
)
def test_forward_notation(text: str, forward: Forward) -> None:
    assert Forward.parse(text) == forward


@pytest.mark.parametrize("text", ["", "tcp", "tcp::80", "tcp::0-:1", "tcp:1.2:1-:1", "x::1-:1"])
def test_forward_notation_wrong(text: str) -> None:
    with pytest.raises(UsageError, match="expected "):
        Forward.parse(text)
