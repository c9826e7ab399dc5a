"""Traces in a bucket (moto's S3 server), on a web server, in fsspec's memory."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT
from workbench.cli.main import main
from workbench.errors import InputFileError, UsageError
from workbench.trace import fleet, storage
from workbench.trace.query import query
from workbench.trace.reader import open_trace

fsspec = pytest.importorskip("fsspec")
DEMO = ROOT / "traces" / "v1-demo.wbt"
ACCESSES = 1935


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A bucket with two traces and something else, served on loopback."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0)
    with pytest.MonkeyPatch.context() as patch:
        server.start()
        host, port = server.get_host_and_port()
        for name, value in {
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "y",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        }.items():
            patch.setenv(name, value)
        files = fsspec.filesystem("s3")
        files.mkdir("runs")
        files.put(str(DEMO), "runs/monday/a.wbt")
        files.put(str(ROOT / "traces" / "v2-demo.wbt"), "runs/b.wbt")
        files.put(str(ROOT / "README.md"), "runs/readme.md")
        yield "s3://runs"
        server.stop()


@pytest.mark.slow
def test_a_bucket_is_a_folder(bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert fleet.find([bucket]) == ["s3://runs/b.wbt", "s3://runs/monday/a.wbt"]
    assert main(["stats", bucket, "--json"]) == 0  # each in a process of its own
    assert json.loads(capsys.readouterr().out)["accesses"] == 2 * ACCESSES
    sql = "select trace, count(*) n from accesses group by all order by trace"
    assert main(["query", bucket, sql, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows == [
        {"trace": "s3://runs/b.wbt", "n": ACCESSES},
        {"trace": "s3://runs/monday/a.wbt", "n": ACCESSES},
    ]
    command = ["diff", str(DEMO), bucket, "--against-many", "--jobs", "1", "--json"]
    assert main(command) == 0
    assert [t["equal"] for t in json.loads(capsys.readouterr().out)["traces"]] == [True, True]
    with open_trace("s3://runs/b.wbt") as there, open_trace(ROOT / "traces/v2-demo.wbt") as here:
        assert there.accesses.equals(here.accesses)
        assert there.image("kernel") == here.image("kernel")
    for name, why in (
        ("s3://runs/none.wbt", "there is no such file"),
        ("s3://elsewhere", "there is no such file"),
    ):
        assert main(["stats", name]) == 1
        assert capsys.readouterr().err.startswith(f"workbench: {name}: {why}")
    assert main(["checkpoint", "s3://runs/b.wbt"]) == 2
    assert "expected a file on this machine" in capsys.readouterr().err


@pytest.mark.parametrize("block", [64, 4 << 20])
def test_blocks_are_read_and_few_are_kept(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_BLOCK_BYTES", block)
    monkeypatch.setattr(storage, "_BLOCKS_KEPT", 3)
    data = DEMO.read_bytes()
    fsspec.filesystem("memory").pipe("/blocks/a.wbt", data)
    assert fleet.find(["memory://blocks"]) == ["memory:///blocks/a.wbt"]
    source = storage.open_source("memory://blocks/a.wbt")
    assert source.size() == len(data)
    for start, count in ((0, 5), (60, 10), (63, 200), (len(data) - 3, 50), (len(data) + 1, 9)):
        assert source.read(count, start) == data[start : start + count]
    assert len(source._blocks) <= 3  # type: ignore[attr-defined]
    found = query(["memory://blocks/a.wbt"], "select count(*) n from accesses")
    assert found["n"].to_pylist() == [ACCESSES]


def test_a_web_server_that_gives_no_parts() -> None:
    """Python's own ignores Range; a larger file than a block is fetched once as a whole."""
    pytest.importorskip("aiohttp")
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            asked.append(self.command)

    handler = functools.partial(Handler, directory=str(ROOT / "traces"))
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(storage, "_BLOCK_BYTES", 1 << 10)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        with open_trace(f"{url}/v1-demo.wbt") as trace:
            assert trace.accesses.num_rows == ACCESSES
        assert asked.count("GET") <= 4
        assert f"{url}/v1-demo.wbt" in fleet.find([f"{url}/"])
        with pytest.raises(InputFileError, match=r"none\.wbt: there is no such file"):
            open_trace(f"{url}/none.wbt")
        server.shutdown()
    with pytest.raises(InputFileError, match=f"{url}/v1-demo.wbt: "):
        open_trace(f"{url}/v1-demo.wbt")


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("nosuch://a/b.wbt", "nosuch:// is no kind of URL that fsspec knows"),
        ("gs://a/b.wbt", r"gs:// needs a package that is not installed \(pip install gcsfs\)"),
        ("memory://none/b.wbt", "there is no such file or folder"),
    ],
)
def test_what_cannot_be_read(url: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
    with pytest.raises(InputFileError, match=f"^{url}: {sentence}"):
        open_trace(url)


def test_without_fsspec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "fsspec.core", None)
    with pytest.raises(InputFileError, match="URLs need fsspec"):
        open_trace("s3://runs/a.wbt")


def test_a_url_runs_nothing() -> None:
    for url in ("simplecache::s3://a/b.wbt", "reference://x.wbt", "filecache://x.wbt"):
        with pytest.raises((UsageError, InputFileError), match=r"expected a URL|no such file"):
            open_trace(url)


def test_a_file_by_url(tmp_path: Path) -> None:
    (tmp_path / "a b.wbt").write_bytes(DEMO.read_bytes())
    url = (tmp_path / "a b.wbt").as_uri()
    with open_trace(url) as trace:
        assert trace.rows("accesses") == ACCESSES
    assert fleet.find([tmp_path.as_uri()]) == [str(tmp_path / "a b.wbt")]
