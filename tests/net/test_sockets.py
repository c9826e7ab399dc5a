"""Stream and datagram sockets: two of ours, peers that lie or leave, and a real QEMU."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.net.frames import MAC, Host, arp_request, is_arp_reply, ping
from workbench.errors import UsageError, WorkbenchError
from workbench.net.sockets import Address, DgramBackend, StreamBackend

QEMU = shutil.which("qemu-system-x86_64")
PASST = shutil.which("passt")


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.005)


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_addresses():
    assert Address.parse("127.0.0.1:80") == Address("127.0.0.1", 80)
    assert Address.parse(":80") == Address("127.0.0.1", 80)
    assert Address.parse("unix:/tmp/x") == Address(path="/tmp/x")
    assert str(Address.parse("unix:a:1")) == "unix:a:1"
    for text in ("", "80", "host:", "host:x", "host:70000", "unix:"):
        with pytest.raises(UsageError, match=r"expected HOST:PORT or unix:PATH"):
            Address.parse(text)


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_two_workbenches(tmp_path: Path, unix: bool) -> None:
    address = Address(path=str(tmp_path / "wire")) if unix else Address("127.0.0.1", 0)
    server = StreamBackend(address, listen=True)
    client = StreamBackend(server.address, listen=False)
    left, right = Host(), Host()
    server.start(left.receive)
    client.start(right.receive)
    until(lambda: client.connected and server.connected)
    frames = [bytes([n]) * (60 + n * 37) for n in range(200)]
    for frame in frames:
        client.send(frame)
    assert [left.wait() for _ in frames] == frames
    server.send(b"back" * 20)
    assert right.wait() == b"back" * 20
    client.close()
    until(lambda: not server.connected)
    again = StreamBackend(server.address, listen=False)
    again.start(right.receive)
    until(lambda: again.connected and server.connected)
    again.send(b"again" * 20)
    assert left.wait() == b"again" * 20
    again.close()
    server.close()
    server.close()
    assert not unix or not Path(address.path).exists()


def test_a_client_waits_for_its_server():
    port = free_port()
    client = StreamBackend(Address("127.0.0.1", port), listen=False)
    client.start(Host().receive)
    client.send(b"lost" * 20)
    until(lambda: client.lost == 1)
    server = StreamBackend(Address("127.0.0.1", port), listen=True)
    got = Host()
    server.start(got.receive)
    until(lambda: client.connected and server.connected)
    client.send(b"found" * 20)
    assert got.wait() == b"found" * 20
    client.close()
    server.close()


def test_a_peer_that_lies_is_dropped_and_frames_come_in_pieces():
    server = StreamBackend(Address("127.0.0.1", 0), listen=True)
    got = Host()
    server.start(got.receive)
    where = (server.address.host, server.address.port)
    with socket.create_connection(where) as peer:
        peer.sendall(struct.pack(">I", 0xFFFF_FFFF) + b"x" * 100)
        assert peer.recv(1) == b""
    with socket.create_connection(where) as peer:
        for byte in struct.pack(">I", 3) + b"abc" + struct.pack(">I", 0) + struct.pack(">I", 2):
            peer.sendall(bytes([byte]))
        peer.sendall(b"de")
        assert [got.wait(), got.wait()] == [b"abc", b"de"]
    server.close()
    assert server.failure is None


def test_datagrams(tmp_path: Path) -> None:
    ports = [free_port(socket.SOCK_DGRAM) for _ in range(2)]
    here, there = (Address("127.0.0.1", port) for port in ports)
    for a, b in ((here, there), (Address(path=f"{tmp_path}/a"), Address(path=f"{tmp_path}/b"))):
        left, right = DgramBackend(a, b), DgramBackend(b, a)
        hosts = Host(), Host()
        left.start(hosts[0].receive)
        right.start(hosts[1].receive)
        left.send(b"one" * 30)
        assert hosts[1].wait() == b"one" * 30
        right.send(b"two" * 30)
        assert hosts[0].wait() == b"two" * 30
        left.close()
        right.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["stream", "dgram"])
def test_a_socket_file_that_somebody_listens_on_stays(kind: str, tmp_path: Path) -> None:
    """One left behind by a run that was killed is replaced."""
    path = Address(path=str(tmp_path / "wire"))

    def made() -> StreamBackend | DgramBackend:
        if kind == "stream":
            return StreamBackend(path, listen=True)
        return DgramBackend(path, Address(path=str(tmp_path / "peer")))

    first = made()
    with pytest.raises(WorkbenchError, match=r"Cannot bind unix:.*wire: address already in use"):
        made()
    assert (tmp_path / "wire").is_socket()
    first._listener.close() if isinstance(first, StreamBackend) else first._socket.close()
    second = made()
    second.close()
    assert not (tmp_path / "wire").exists()


def test_a_host_that_is_not_there() -> None:
    for backend in (
        lambda a: StreamBackend(a, listen=False),
        lambda a: DgramBackend(None, a),
    ):
        with pytest.raises(WorkbenchError, match=r"Cannot find no-host\.invalid:9: "):
            backend(Address("no-host.invalid", 9))


def test_an_address_in_use():
    server = StreamBackend(Address("127.0.0.1", 0), listen=True)
    with pytest.raises(WorkbenchError, match=r"Cannot bind 127\.0\.0\.1:"):
        StreamBackend(server.address, listen=True)
    server.close()


# -- a real QEMU: its user network behind its socket back end, no guest --------------------------


@contextmanager
def qemu(netdev: str) -> Iterator[None]:
    assert QEMU is not None
    command = [
        QEMU, "-M", "none", "-nodefaults", "-display", "none", "-monitor", "none",
        "-netdev", "user,id=u", "-netdev", "hubport,id=h0,hubid=0,netdev=u",
        "-netdev", f"{netdev},id=s", "-netdev", "hubport,id=h1,hubid=0,netdev=s",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


def talk(backend: StreamBackend | DgramBackend) -> None:
    """ARP and ping through QEMU; ARP is repeated until QEMU is up."""
    host = Host()
    backend.start(host.receive)
    for _ in range(100):
        backend.send(arp_request())
        try:
            reply = host.wait(is_arp_reply, 0.1)
            break
        except TimeoutError:
            continue
    gateway = reply[6:12]
    assert reply[:6] == MAC
    backend.send(ping(gateway, b"through QEMU"))
    assert b"through QEMU" in host.wait(lambda f: f[23:24] == b"\1")
    backend.close()


@pytest.mark.skipif(PASST is None, reason="needs passt")
def test_passt() -> None:
    """The other NAT without privileges speaks the same framing (docs/decisions/0010)."""
    path = Path(tempfile.mkdtemp(prefix="wb-passt-"))  # passt is nobody when started by root
    path.chmod(0o777)
    wire = path / "wire"
    command = [
        PASST, "-f", "-q", "-1", "-s", wire, "-a", "10.0.2.15", "-n", "255.255.255.0",
        "-g", "10.0.2.2", "-t", "none", "-u", "none",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 5
        while not wire.exists():
            if process.poll() is not None or time.monotonic() > end:
                pytest.skip("passt does not run here")
            time.sleep(0.01)
        backend, host = StreamBackend(Address(path=str(wire)), listen=False), Host()
        backend.start(host.receive)
        until(lambda: backend.connected)
        backend.send(arp_request())
        assert host.wait(is_arp_reply)[:6] == MAC
        backend.close()
    finally:
        process.kill()
        process.wait(10)
        shutil.rmtree(path, ignore_errors=True)


@pytest.mark.qemu
@pytest.mark.skipif(QEMU is None, reason="needs qemu-system-x86_64")
@pytest.mark.parametrize("kind", ["stream", "stream-listen", "unix", "socket", "dgram", "udp"])
def test_a_real_qemu(kind: str, tmp_path: Path) -> None:
    port, other = free_port(), free_port(socket.SOCK_DGRAM)
    local = Address("127.0.0.1", port)
    inet = f"addr.type=inet,addr.host=127.0.0.1,addr.port={port}"
    match kind:
        case "stream":
            with qemu(f"stream,server=on,{inet}"):
                talk(StreamBackend(local, listen=False))
        case "stream-listen":
            server = StreamBackend(local, listen=True)
            with qemu(f"stream,server=off,{inet}"):
                talk(server)
        case "unix":
            path = tmp_path / "wire"
            server = StreamBackend(Address(path=str(path)), listen=True)
            with qemu(f"stream,server=off,addr.type=unix,addr.path={path}"):
                talk(server)
        case "socket":
            with qemu(f"socket,listen=127.0.0.1:{port}"):
                talk(StreamBackend(local, listen=False))
        case "dgram":
            ends = [
                f"{end}.type=inet,{end}.host=127.0.0.1,{end}.port={number}"
                for end, number in (("local", other), ("remote", port))
            ]
            with qemu(f"dgram,{','.join(ends)}"):
                talk(DgramBackend(local, Address("127.0.0.1", other)))
        case _:
            with qemu(f"socket,udp=127.0.0.1:{port},localaddr=127.0.0.1:{other}"):
                talk(DgramBackend(local, Address("127.0.0.1", other)))
