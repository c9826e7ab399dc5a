"""TAP interfaces made with ip(8), as an administrator does; needs the right to make one."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from workbench.errors import WorkbenchError
from workbench.net.port import NetPort
from workbench.net.tap import TapBackend
from workbench.net.thread import failure_of

PROTOCOL = 0x88B5  # for experiments (IEEE 802)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def interface() -> Iterator[str]:
    name = "wbtest0"
    if shutil.which("ip") is None:
        pytest.skip("needs ip (package iproute2)")
    try:
        ip("tuntap", "add", "dev", name, "mode", "tap")
    except subprocess.CalledProcessError as error:
        pytest.skip(error.stderr.decode())
    ip("link", "set", name, "up")
    yield name
    subprocess.run(["ip", "link", "del", name], capture_output=True, check=False)


def test_frames_go_both_ways(interface: str) -> None:
    got: list[bytes] = []
    tap = TapBackend(interface)
    with pytest.raises(WorkbenchError, match=f"Cannot use the TAP interface '{interface}'"):
        TapBackend(interface)
    tap.start(got.extend)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(PROTOCOL)) as host:
        host.bind((interface, PROTOCOL))
        host.settimeout(10)
        frame = (
            b"\xff" * 6 + b"\x52" * 6 + PROTOCOL.to_bytes(2, "big") + b"from the guest".ljust(40)
        )
        tap.send(frame)
        assert host.recv(2000) == frame
        answer = frame.replace(b"from the guest", b"from the host!")
        host.send(answer)
        for _ in range(500):
            if answer in got:
                break
            time.sleep(0.02)
        assert answer in got
    tap.close()
    assert tap.lost == 0
    TapBackend(interface).close()  # it can be used again


def test_an_interface_that_goes_away(interface: str) -> None:
    """The network is dead and says so; its thread has ended, and does not turn for ever."""
    tap = TapBackend(interface)
    tap.start(lambda frame: None)
    assert failure_of(tap) == ""
    ip("link", "del", interface)
    tap._thread.join(10)
    assert not tap._thread.is_alive()
    assert failure_of(tap) == f"the TAP interface {interface!r} is gone"
    tap.send(bytes(60))
    tap.close()


def test_one_that_is_no_tap() -> None:
    with pytest.raises(WorkbenchError, match="Cannot use the TAP interface 'lo'"):
        TapBackend("lo")


def test_a_port_without_a_network_goes_on(interface: str) -> None:
    """Frames for a dead network are dropped, none arrive, nothing is raised."""
    from workbench.core.inputs import Inputs

    tap = TapBackend(interface)
    port = NetPort("net0", Inputs(), tap)
    ip("link", "del", interface)
    tap._thread.join(10)
    for _ in range(5000):
        port.send(bytes(60))
    assert tap.lost > 0
    port.close()
