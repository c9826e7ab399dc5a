"""Debian's own e1000 driver on our 82540EM: pings and a download, then the replay without network.

Recorded twice over: through the user network, and over a stream socket through a real QEMU.
"""

from __future__ import annotations

import hashlib
import http.server
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from guests.initramfs import run_option
from tests.net.test_sockets import free_port, qemu

pytestmark = [pytest.mark.slow, pytest.mark.guest]
DATA = random.Random(1).randbytes(1 << 20)
SHA256 = hashlib.sha256(DATA).hexdigest()
SCRIPT = """\
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
n=0
while [ "$(cat /sys/class/net/eth0/carrier)" != 1 ] && [ $n -lt 80 ]; do sleep 0.1; n=$((n+1)); done
ping -c 3 -i 0.2 10.0.2.2
wget -q -O - http://10.0.2.2:{port}/data | sha256sum
ifconfig eth0 | grep errors
dmesg | grep e1000
"""


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(DATA)))
        self.end_headers()
        self.wfile.write(DATA)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    yield web.server_port
    web.shutdown()
    web.server_close()


def workbench(*arguments: object) -> str:
    command = [sys.executable, "-m", "workbench", *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def record(kernel: Path, initrd: Path, trace: Path, nic: str, port: int) -> str:
    append = f"console=ttyS0 quiet {run_option(SCRIPT.format(port=port))}"
    return workbench(
        "record", "--kernel", kernel, "--initrd", initrd, "--append", append, "--nic", nic,
        "-o", trace, "--timeout", 200,
    )  # fmt: skip


def check(output: str) -> None:
    assert "3 packets transmitted, 3 packets received, 0% packet loss" in output
    assert SHA256 in output
    assert "errors:0 dropped:0 overruns:0 frame:0" in output
    assert "NIC Link is Up 1000 Mbps Full Duplex" in output
    assert "52:54:00:00:00:07" in output


def test_user_network_and_replay(guest, server, tmp_path):
    made = guest("generic")
    trace = tmp_path / "net.wbt"
    nic = "e1000,mac=52:54:00:00:00:07,user"
    check(record(made.kernel, made.images["drivers"], trace, nic, server))
    replayed = workbench("replay", trace)
    check(replayed)
    assert "identical" in replayed


@pytest.mark.qemu
@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="needs qemu-system-x86_64")
def test_through_the_stream_socket_of_a_real_qemu(guest, server, tmp_path):
    made = guest("generic")
    port = free_port()
    nic = f"e1000,mac=52:54:00:00:00:07,stream,connect=127.0.0.1:{port}"
    with qemu(f"socket,listen=127.0.0.1:{port}"):
        check(record(made.kernel, made.images["drivers"], tmp_path / "q.wbt", nic, server))
