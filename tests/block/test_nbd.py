"""The NBD client against qemu-nbd, over TCP, Unix sockets and TLS, and against servers that lie."""

import random
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from workbench.block.errors import RemoteError
from workbench.block.nbd import protocol as p
from workbench.block.nbd.client import NbdImage
from workbench.block.nbd.uri import Address, parse
from workbench.block.opening import open_image
from workbench.errors import InputFileError, UsageError

SIZE = 4 << 20
Serve = Callable[..., None]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def data(tmp_path: Path) -> bytes:
    content = random.Random(1).randbytes(SIZE)
    (tmp_path / "a.raw").write_bytes(content)
    return content


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """`serve(*arguments)` starts a qemu-nbd of a.raw, listening when it returns."""
    tool = shutil.which("qemu-nbd")
    if tool is None:
        pytest.skip("qemu-nbd is not installed (package qemu-utils)")
    running: list[subprocess.Popen[bytes]] = []

    def start(*arguments: object) -> None:
        command = [tool, "-f", "raw", "-t", *map(str, arguments), str(tmp_path / "a.raw")]
        pid = tmp_path / f"pid{len(running)}"
        running.append(subprocess.Popen([*command, f"--pid-file={pid}"]))
        end = time.monotonic() + 10
        while not pid.exists() or not pid.read_text():
            assert running[-1].poll() is None
            assert time.monotonic() < end
            time.sleep(0.005)

    yield start
    for process in running:
        process.terminate()
        process.wait()


def exercise(image: NbdImage, data: bytes) -> bytearray:
    model, rnd = bytearray(data), random.Random(2)
    for _ in range(60):
        n = rnd.choice((512, 4096, 100 * 512, 1 << 20))
        at = rnd.randrange((SIZE - n) // 512 + 1) * 512
        kind = rnd.randrange(3)
        if kind == 0:
            model[at : at + n] = new = rnd.randbytes(n)
            image.write(at, new)
        elif kind == 1 and n < 1 << 20:
            model[at : at + n] = bytes(n)
            image.write_zeroes(at, n)
        else:
            assert image.read(at, n) == model[at : at + n]
    image.flush()
    assert image.read(0, SIZE) == model
    return model


@pytest.mark.parametrize("structured", [False, True])
def test_unix_socket(structured: bool, tmp_path: Path, data: bytes, serve: Serve) -> None:
    serve("-k", tmp_path / "s", "-x", "an export")
    address = parse(f"nbd+unix:///an%20export?socket={tmp_path}/s")
    with NbdImage(address, read_only=False, structured=structured) as image:
        assert image.structured == structured
        model = exercise(image, data)
    assert (tmp_path / "a.raw").read_bytes() == model


def test_tcp(data: bytes, serve: Serve) -> None:
    port = free_port()
    serve("-b", "127.0.0.1", "-p", port)
    with open_image(f"nbd://127.0.0.1:{port}", read_only=False) as image:
        assert isinstance(image, NbdImage)
        assert image.size_bytes == SIZE
        exercise(image, data)
    with pytest.raises(RemoteError, match="has no such export"):
        open_image(f"nbd://127.0.0.1:{port}/other")


def test_a_read_only_export(tmp_path: Path, data: bytes, serve: Serve) -> None:
    serve("-k", tmp_path / "s", "-r")
    spec = f"nbd+unix:///?socket={tmp_path}/s"
    with open_image(spec) as image:
        assert image.read(512, 512) == data[512:1024]
        with pytest.raises(InputFileError, match="is open for reading only"):
            image.write(0, bytes(512))
    with pytest.raises(InputFileError, match="lets nobody write"):
        open_image(spec, read_only=False)


def test_the_server_dies(tmp_path: Path, data: bytes, serve: Serve) -> None:
    serve("-k", tmp_path / "s", "-r")
    image = open_image(f"nbd+unix:///?socket={tmp_path}/s")
    image._wire._socket.shutdown(socket.SHUT_RDWR)  # type: ignore[attr-defined]
    for reason in ("does not answer|closed the connection", "the connection has failed before"):
        with pytest.raises(RemoteError, match=reason):
            image.read(0, 512)
    image.close()


# -- TLS


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and certificates of a server and a client."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    place = tmp_path_factory.mktemp("pki")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=place, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    openssl("req", "-x509", *key, "-subj", "/CN=Test CA", "-keyout", "ca-key.pem",
            "-out", "ca-cert.pem")  # fmt: skip
    for name in ("server", "client"):
        openssl("req", *key[:5], "-subj", f"/CN={name}", "-keyout", f"{name}-key.pem",
                "-out", f"{name}.csr")  # fmt: skip
        (place / "ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca-cert.pem", "-CAkey", "ca-key.pem",
                "-CAcreateserial", "-days", "2", "-extfile", "ext",
                "-out", f"{name}-cert.pem")  # fmt: skip
    return place


def test_tls(pki: Path, tmp_path: Path, data: bytes, serve: Serve) -> None:
    tls = f"tls-creds-x509,id=t,endpoint=server,dir={pki},verify-peer=on"
    port = free_port()
    serve("--object", tls, "--tls-creds", "t", "-b", "127.0.0.1", "-p", port)
    where = f"127.0.0.1:{port}"
    with open_image(f"nbds://{where}?tls-certificates={pki}", read_only=False) as image:
        assert isinstance(image, NbdImage)
        exercise(image, data)
    with pytest.raises(RemoteError, match="demands TLS"):
        open_image(f"nbd://{where}")
    with pytest.raises(RemoteError, match=r"TLS fails: .*certificate"):
        open_image(f"nbds://{where}")
    with pytest.raises(RemoteError, match=r"TLS fails: .*(doesn't match|mismatch|not valid)"):
        open_image(f"nbds://{where}?tls-certificates={pki}&tls-hostname=other")
    with pytest.raises(InputFileError, match=r"certificates .* cannot be loaded: no such file"):
        open_image(f"nbds://{where}?tls-certificates={tmp_path}")


def test_a_server_without_tls(tmp_path: Path, data: bytes, serve: Serve) -> None:
    serve("-k", tmp_path / "s", "-r")
    with pytest.raises(RemoteError, match="offers no TLS"):
        open_image(f"nbds+unix:///?socket={tmp_path}/s")


# -- servers that lie


def lying(script: list[bytes | int]) -> tuple[Address, threading.Thread]:
    """A server that sends bytes and, for a number, waits for so many."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with listener, listener.accept()[0] as peer:
            peer.settimeout(10)
            for step in script:
                try:
                    if isinstance(step, int):
                        while step > 0 and (got := peer.recv(step)):
                            step -= len(got)
                    else:
                        peer.sendall(step)
                except OSError:
                    return

    thread = threading.Thread(target=run)
    thread.start()
    return Address(host="127.0.0.1", port=listener.getsockname()[1]), thread


HELLO = p.NBDMAGIC + p.IHAVEOPT + b"\0\3"


def option_reply(option: int, kind: int, body: bytes = b"", length: int | None = None) -> bytes:
    n = len(body) if length is None else length
    return p.OPTION_REPLY.pack(p.OPTION_REPLY_MAGIC, option, kind, n) + body


STRUCTURED = option_reply(p.OPT_STRUCTURED_REPLY, p.REP_ACK)
EXPORT = struct.pack(">HQH", p.INFO_EXPORT, 1 << 20, 5)
READY: list[bytes | int] = [
    HELLO, 4 + 16, STRUCTURED, 16 + 8,
    option_reply(p.OPT_GO, p.REP_INFO, EXPORT), option_reply(p.OPT_GO, p.REP_ACK), 28,
]  # fmt: skip


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ([b"SSH-2.0-OpenSSH_9.2\r\n"], "expected an NBD server"),
        ([p.NBDMAGIC + p.OLD_STYLE], "old style"),
        ([HELLO[:-1] + b"\0"], "does not speak fixed newstyle"),
        ([HELLO[:5]], "closed the connection"),
        ([HELLO, 20, b"x" * 20], "expected a reply to an option"),
        ([HELLO, 20, option_reply(8, 1, length=1 << 31)], "expected a shorter reply"),
        ([HELLO, 20, option_reply(8, p.REP_INFO) * 2000], "expected an end of the replies"),
        ([HELLO, 20, STRUCTURED, 24, option_reply(7, 1)], "expected the size"),
        (
            [HELLO, 20, STRUCTURED, 24, option_reply(7, 3, b"\0\3" + b"\xff" * 12)],
            "expected a|closed",
        ),
        (
            [HELLO, 20, STRUCTURED, 24, option_reply(7, 3, b"\0\0" + b"\xff" * 10),
             option_reply(7, 1)],
            "at most 2\\^62 bytes",
        ),
        (
            [HELLO, 20, STRUCTURED, 24, option_reply(7, p.REP_ERR_POLICY, b"go\x1b[2J away")],
            r"forbids it: go\?\[2J away",
        ),
    ],
)  # fmt: skip
def test_lies_of_negotiation(script: list[bytes | int], message: str) -> None:
    address, thread = lying(script)
    with pytest.raises(RemoteError, match=message):
        NbdImage(address, read_only=True)
    thread.join()


def chunk(kind: int, body: bytes = b"", *, done: int = 1, length: int | None = None) -> bytes:
    n = len(body) if length is None else length
    head = p.STRUCTURED_REPLY_MAGIC.to_bytes(4, "big")
    return head + p.STRUCTURED_REPLY.pack(done, kind, 1, n) + body


def at(offset: int, data: bytes) -> bytes:
    return offset.to_bytes(8, "big") + data


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b"garbage!" * 4, "expected a reply, not"),
        (struct.pack(">IIQ", p.SIMPLE_REPLY_MAGIC, 0, 1), "expected a reply, not"),
        (chunk(1, at(0, bytes(512)))[:9] + bytes(40), "expected the reply to the request"),
        (chunk(1, length=1 << 30), "expected a chunk of data, not 1073741824 bytes"),
        (chunk(1, at(1024, bytes(512))), "expected a chunk inside the request"),
        (chunk(1, at(0, bytes(256))), "expected 512 bytes, not 256"),
        (chunk(2, at(0, struct.pack(">I", 1 << 31))), "expected a chunk inside the request"),
        (chunk(0, done=0), "expected an empty last chunk"),
        (chunk(77, bytes(8)), "not type 77"),
        (chunk(0x8001, bytes(3)), "expected an error"),
        (chunk(0x8001, struct.pack(">IH", 5, 0)), "cannot read: input/output error"),
        (chunk(1, at(0, bytes(1)), done=0) * 600, "expected|closed"),
    ],
)
def test_lies_of_replies(reply: bytes, message: str) -> None:
    address, thread = lying([*READY, reply])
    image = NbdImage(address, read_only=True)
    with pytest.raises(RemoteError, match=message):
        image.read(0, 512)
    image.close()
    thread.join()


def test_a_server_with_export_name_only() -> None:
    unsupported = [option_reply(o, p.REP_ERR_UNSUP) for o in (8, 7)]
    script: list[bytes | int] = [
        HELLO, 20, unsupported[0], 24, unsupported[1], 16, struct.pack(">QH", 1 << 20, 5), 28,
        struct.pack(">IIQ", p.SIMPLE_REPLY_MAGIC, 0, 1) + b"d" * 512,
    ]  # fmt: skip
    address, thread = lying(script)
    with NbdImage(address, read_only=True) as image:
        assert image.size_bytes == 1 << 20
        assert image.read(512, 512) == b"d" * 512
    thread.join()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("nbd://", "expected the name of a host"),
        ("nbd://h:99999/", "expected an NBD URI"),
        ("nbd+unix:///x", "expected nbd://host"),
        ("nbd+unix://h/x?socket=/s", "expected nbd://host"),
        ("nbd://h/?tls-psk-file=x", "'tls-psk-file' in .* is not supported"),
        ("nbd+unix:///?socket=/a&socket=/b", "expected one 'socket'"),
    ],
)
def test_wrong_uris(uri: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_image(uri)
