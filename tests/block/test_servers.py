"""`workbench record --drive file=URL` with real servers: a guest reads, writes and flushes; what is
wrong is said in one sentence; no helper outlives the run.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.block.runs import ENDLESS, available, guest, helpers, record, start
from tests.block.servers import SERVERS, Served, free_port, ssh, web
from workbench.block import helper
from workbench.block.opening import open_image
from workbench.errors import InputFileError, WorkbenchError

SIZE = 1 << 20

pytestmark = pytest.mark.skipif(not available(), reason="needs binutils")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for sectors in (3, ENDLESS):
        (tmp_path / f"guest{sectors}").write_bytes(guest(sectors))
    (tmp_path / "tmp").mkdir()
    image = bytearray(SIZE)
    image[512:516] = b"wbdk"
    (tmp_path / "disk.raw").write_bytes(image)
    return tmp_path


@pytest.fixture(params=SERVERS)
def served(request: pytest.FixtureRequest, folder: Path) -> Iterator[Served]:
    with SERVERS[request.param](folder, folder / "disk.raw") as served:
        yield served


@pytest.mark.slow
def test_a_guest_on_a_server(served: Served, folder: Path) -> None:
    """Read, write into the overlay, then through; and a replay without the server."""
    before = served.file.read_bytes()
    done = start(folder, *record(folder, served.url), **served.environment)
    out, error = done.communicate(timeout=60)
    assert (done.returncode, out, error) == (1, b"wbdk...", b"")
    assert served.file.read_bytes() == before
    if not served.url.startswith("http"):
        done = start(folder, *record(folder, served.url, ",rw=on"), **served.environment)
        out, error = done.communicate(timeout=60)
        assert (done.returncode, out, error) == (1, b"wbdk...", b"")
        after = bytearray(before)
        for n in range(8, 11):
            after[n * 512 : n * 512 + 512] = n.to_bytes(2, "little") * 256
        assert served.file.read_bytes() == after
    served.file.unlink()
    done = start(folder, "replay", "run.wbt")
    assert done.communicate(timeout=60)[0].startswith(b"wbdk...")
    assert done.returncode == 0
    assert not helpers(folder)
    assert not list((folder / "tmp").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_helper_outlives_the_run(folder: Path, how: signal.Signals) -> None:
    """However it ends, in the middle of writing; what was flushed is in the image."""
    image = folder / "disk.raw"
    with ssh(folder, image) as served:
        run = start(folder, *record(folder, served.url, ",rw=on", ENDLESS), **served.environment)
        assert run.stdout is not None
        assert run.stderr is not None
        assert run.stdout.read(4) == b"wbdk"
        run.stdout.read(5)
        assert len(helpers(folder)) >= 1
        run.send_signal(how)
        flushed = 5 + len(run.stdout.read())
        error = run.stderr.read()
        run.stdout.close()
        run.stderr.close()
        assert run.wait(20) == (-how if how == signal.SIGKILL else 130)
        assert error == b""
        for _ in range(200):
            if not helpers(folder):
                break
            time.sleep(0.02)
        assert not helpers(folder)
        content = image.read_bytes()
        for n in range(8, 8 + flushed):
            assert content[n * 512 : n * 512 + 512] == n.to_bytes(2, "little") * 256


@pytest.mark.slow
def test_what_is_wrong_is_said_in_a_sentence(folder: Path) -> None:
    """The exit status is not 0, there is no trace, no helper, and the sentence names the URL."""
    with ssh(folder, folder / "disk.raw") as served:
        good = served.url.partition("?")[0]
        wrong = served.url[:-4] + ("0000" if not served.url.endswith("0000") else "1111")
        for url, environment, says in (
            (f"ssh://127.0.0.1:{free_port()}/x", {}, "Connection refused"),
            ("ssh://no-such-host.invalid/x", {}, "address resolution failed"),
            (wrong, served.environment, "does not match host_key_check"),
            (served.url, {"SSH_AUTH_SOCK": ""}, "failed to authenticate"),
            (good + "x?host_key_check=no", served.environment, "No such file"),
            (good + "?password=x", {}, "expected host_key_check="),
            (f"iscsi://127.0.0.1:{free_port()}/iqn.x:y/1", {}, "Failed to connect"),
            (f"gluster://127.0.0.1:{free_port()}/v/x", {}, "failed to connect"),
            (f"http://127.0.0.1:{free_port()}/x", {}, "Connection refused|Failed to connect"),
            (f"nbd://127.0.0.1:{free_port()}/x", {}, "cannot be reached: connection refused"),
            ("sheepdog:vm", {}, "QEMU dropped the sheepdog driver"),
        ):
            run = start(folder, *record(folder, url), **environment)
            error = run.communicate(timeout=60)[1].decode()
            assert run.returncode == (2 if "expected" in says or "dropped" in says else 1), error
            assert error.startswith("workbench: "), error
            assert error.count("\n") == 1, error
            assert any(part in error for part in says.split("|")), error
    assert not helpers(folder)
    assert not (folder / "run.wbt").exists()


def test_a_helper_that_dies(folder: Path) -> None:
    """The message has the image's name, not that of our socket."""
    with ssh(folder, folder / "disk.raw") as served:
        os.environ.update(served.environment)
        try:
            with open_image(served.url) as image:
                assert image.read(512, 4) == b"wbdk"
                [pid] = [
                    int(entry.parent.name)
                    for entry in Path("/proc").glob("[0-9]*/cmdline")
                    if b"qemu-storage-daemon" in (line := entry.read_bytes())
                    and str(os.getpid()) in (entry.parent / "stat").read_text().split(")")[1]
                    and served.url.encode()[10:15] in line
                ]
                os.kill(pid, signal.SIGKILL)
                with pytest.raises(WorkbenchError) as caught:
                    image.read(8192, 512)
                assert str(caught.value).startswith(served.url)
        finally:
            for name in served.environment:
                del os.environ[name]


def test_nbdkit_will_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For http and ssh, without QEMU's programs."""
    which = shutil.which
    hidden = ("qemu-storage-daemon", "qemu-nbd")
    monkeypatch.setattr(
        helper.shutil, "which", lambda n, **more: None if n in hidden else which(n, **more)
    )
    if which("nbdkit") is None:
        pytest.skip("nbdkit is not installed")
    image = folder / "disk.raw"
    with web(folder, image) as served, open_image(served.url) as opened:
        assert opened.read(512, 4) == b"wbdk"
    with ssh(folder, image) as served:
        for name, value in served.environment.items():
            monkeypatch.setenv(name, value)
        url = served.url.partition("?")[0] + "?host_key_check=no"
        with open_image(url, read_only=False) as opened:
            opened.write(1024, b"x" * 512)
            opened.flush()
        assert image.read_bytes()[1024:1536] == b"x" * 512
        with pytest.raises(InputFileError, match="needs qemu-storage-daemon"):
            open_image(served.url)  # nbdkit cannot look at the hash of a key
        with pytest.raises(InputFileError, match="No such file"):
            open_image(url.replace("disk.raw", "none"))
