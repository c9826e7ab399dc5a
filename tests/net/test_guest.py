"""A client on the host talks to a guest through a forward while it is recorded; the replay has no
network and says the same.
"""

import base64
import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import guests
from guests.errors import GuestError
from tests.block.servers import free_port

pytestmark = [pytest.mark.guest, pytest.mark.slow]

SCRIPT = """\
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
route add default gw 10.0.2.2
echo ready
nc -l -p 80 -e sha256sum
"""
SENT = b"hello from the host\n" * 5000


def client(port: int, ready: threading.Event, got: list[bytes]) -> None:
    """Connect, send, say that this is all, and take what comes back."""
    if not ready.wait(100):
        return
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", port), 10) as peer:
            peer.settimeout(30)
            try:
                peer.sendall(SENT)
                peer.shutdown(socket.SHUT_WR)
                answer = b"".join(iter(lambda: peer.recv(4096), b""))
            except OSError:
                answer = b""
        if answer:
            got.append(answer)
            return
        time.sleep(0.5)  # the guest does not listen yet


def workbench(folder: Path, *argv: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(
        [sys.executable, "-m", "workbench", *argv], cwd=folder, env=environment,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
    )  # fmt: skip


def test_a_client_of_the_host(tmp_path: Path) -> None:
    try:
        guest = guests.ensure("generic")
    except GuestError as error:
        pytest.skip(str(error))
    port, ready, got = free_port(), threading.Event(), list[bytes]()
    script = base64.b64encode(SCRIPT.encode()).decode()
    run = workbench(
        tmp_path, "record", "-q", "--kernel", str(guest.kernel), "-o", "run.wbt",
        "--initrd", str(guest.images["drivers"]), "--timeout", "120",
        "--append", f"console=ttyS0 quiet wb_run={script}",
        "--nic", f"virtio-net,user,hostfwd=tcp:127.0.0.1:{port}-:80",
    )  # fmt: skip
    thread = threading.Thread(target=client, args=(port, ready, got))
    thread.start()
    assert run.stdout is not None
    printed = b""
    while piece := run.stdout.read1(4096):
        printed += piece
        if b"ready" in printed:
            ready.set()
    thread.join()
    assert run.wait(60) == 0
    assert got == [hashlib.sha256(SENT).hexdigest().encode() + b"  -\n"]
    again = workbench(tmp_path, "replay", "run.wbt")
    assert again.communicate(timeout=120)[0].strip() == printed.strip()
    assert again.returncode == 0
