"""Networks by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.net.test_pcap import capture
from workbench.errors import UsageError, WorkbenchError
from workbench.net.pcap import PcapBackend, PcapTee
from workbench.net.sockets import DgramBackend, StreamBackend
from workbench.net.spec import open_backend
from workbench.net.tap import TapBackend


def test_kinds(tmp_path: Path) -> None:
    assert open_backend("none") is None
    (tmp_path / "x").write_bytes(capture())
    for spec, kind in (
        ("stream,listen=127.0.0.1:0", StreamBackend),
        (f"dgram,local=unix:{tmp_path}/a,remote=unix:{tmp_path}/b", DgramBackend),
        (f"pcap,file={tmp_path}/x,speed=0", PcapBackend),
        (f"stream,connect=:1,dump={tmp_path}/dump", PcapTee),
    ):
        backend = open_backend(spec)
        assert isinstance(backend, kind)
        backend.close()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "expected a network of none, user, stream, dgram, tap, pcap, not ''"),
        ("wifi", "not 'wifi'"),
        ("none,x=1", "expected an option of dump for 'none', not 'x'"),
        ("user,restrict", "expected OPTION=VALUE after 'user', not 'restrict'"),
        ("user,restrict=maybe", "expected restrict=on or restrict=off, not 'maybe'"),
        ("user,hostfwd=nonsense", "expected a forward like"),
        ("user,tftp=/no/such/folder", "expected tftp= with a folder to serve"),
        ("user,bootfile=pxelinux.0", "expected bootfile= together with tftp="),
        ("stream", "either listen=ADDRESS or connect=ADDRESS"),
        ("stream,listen=:1,listen=:2", "expected one 'listen', not 2"),
        ("dgram,local=:1", "expected remote=ADDRESS"),
        ("pcap", "expected file=FILE"),
        ("pcap,file=x,speed=-1", "expected speed=NUMBER"),
        ("pcap,file=x,speed=nan", "expected speed=NUMBER"),
    ],
)
def test_wrong(spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_backend(spec)


def test_tap():
    """Where the kernel lets us make one, what we write comes back from the interface's side."""
    with pytest.raises(WorkbenchError, match="expected the name of an interface"):
        TapBackend("a-name-that-is-too-long")
    try:
        tap = TapBackend()
    except WorkbenchError as error:
        pytest.skip(str(error))
    assert os.path.exists(f"/sys/class/net/{tap.interface}")  # noqa: PTH110
    tap.start(lambda frame: None)
    tap.send(bytes(60))
    tap.close()
    assert tap.failure is None
