"""Servers that images come from, started on the loopback interface for one test: sshd, tgtd, a web
server with ranges, nbdkit.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import http.server
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest


@dataclass
class Served:
    """Where an image is: its URL, what a client needs in its environment, the file behind it."""

    url: str
    file: Path
    environment: dict[str, str] = field(default_factory=dict)


def tool(name: str, package: str) -> str:
    """The path of a program; the test is skipped without it."""
    found = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed (package {package})")
    return found


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(command: list[str], port: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A server in the foreground, which is ready when its port can be connected to."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(500):
            assert process.poll() is None, f"{command[0]} has ended with {process.returncode}"
            if port is None:
                break
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(1)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def ssh(folder: Path, image: Path) -> Iterator[Served]:
    """OpenSSH's server with a host key of its own, and an agent that has the only key it takes."""
    sshd, keygen = tool("sshd", "openssh-server"), tool("ssh-keygen", "openssh-client")
    agent, add = tool("ssh-agent", "openssh-client"), tool("ssh-add", "openssh-client")
    for name in ("host", "user"):
        subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    port = free_port()
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/user.pub\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nSubsystem sftp internal-sftp\n"
    )
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # for separation of privileges
    keys = folder / "agent"
    daemon = [sshd, "-D", "-e", "-f", str(folder / "sshd_config")]
    with running(daemon, port), running([agent, "-D", "-a", str(keys)]):
        while not keys.exists():
            time.sleep(0.01)
        environment = {"SSH_AUTH_SOCK": str(keys)}
        subprocess.run([add, "-q", folder / "user"], check=True, env={**os.environ, **environment})
        key = base64.b64decode((folder / "host.pub").read_text().split()[1])
        url = (
            f"ssh://127.0.0.1:{port}{image}?host_key_check=sha256:{hashlib.sha256(key).hexdigest()}"
        )
        yield Served(url, image, environment)


@contextmanager
def iscsi(folder: Path, image: Path) -> Iterator[Served]:
    """The user-space target tgtd with the image as LUN 1."""
    if os.getuid() != 0:
        pytest.skip("tgtd needs root")
    tgtd, admin = tool("tgtd", "tgt"), tool("tgtadm", "tgt")
    port = free_port()
    control = str(20000 + os.getpid() % 10000)
    target = "iqn.2026-11.test.workbench:disk"
    daemon = [tgtd, "-f", "-C", control, "--iscsi", f"portal=127.0.0.1:{port}"]
    with running(daemon, port):
        for line in (
            f"--mode target --op new --tid 1 -T {target}",
            f"--mode logicalunit --op new --tid 1 --lun 1 -b {image}",
            "--mode target --op bind --tid 1 -I ALL",
        ):
            command = [admin, "-C", control, "--lld", "iscsi", *line.split()]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        yield Served(f"iscsi://127.0.0.1:{port}/{target}/1", image)


@contextmanager
def web(folder: Path, image: Path) -> Iterator[Served]:
    """A web server of the image's folder."""
    with web_of(image.parent) as url:
        yield Served(f"{url}/{image.name}", image)


@contextmanager
def web_of(folder: Path) -> Iterator[str]:
    """The URL of a web server that knows ranges, as QEMU and nbdkit want them."""
    handler = functools.partial(Ranges, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class Ranges(http.server.SimpleHTTPRequestHandler):
    """GET and HEAD, with one range."""

    def send_head(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        span = self.headers.get("Range", "").removeprefix("bytes=").split("-")
        self.send_response(206 if len(span) == 2 else 200)
        if len(span) == 2:
            content = content[int(span[0]) : int(span[1]) + 1]
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def nbd(folder: Path, image: Path) -> Iterator[Served]:
    """nbdkit's file plugin over TCP."""
    port = free_port()
    command = [
        tool("nbdkit", "nbdkit"),
        "-f",
        "-i",
        "127.0.0.1",
        "-p",
        str(port),
        "file",
        str(image),
    ]
    with running(command, port):
        yield Served(f"nbd://127.0.0.1:{port}", image)


SERVERS = {"ssh": ssh, "iscsi": iscsi, "http": web, "nbd": nbd}
