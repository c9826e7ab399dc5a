"""What a trace says of the disk images behind a run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from workbench.cli.main import main
from workbench.core.build import source_key
from workbench.errors import FormatError
from workbench.firmware import demo
from workbench.trace.header import End, Header, other_maker
from workbench.trace.provenance import DiskFacts, DiskHasher

FACTS = {"name": "d", "path": "p", "format": "raw", "size_bytes": 512, "sha256": ""}


def test_fixed_files_get_a_hash_and_others_none(tmp_path: Path) -> None:
    contents = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(contents)
    paths = {"a": tmp_path / "a", "written": tmp_path / "a", "gone": tmp_path / "b"}
    disks = [DiskFacts(name, str(path), "raw", 512) for name, path in paths.items()]
    found = DiskHasher(disks, fixed={"a", "gone"}).finish(wait_s=30)
    assert [disk.sha256 for disk in found] == [hashlib.sha256(contents).hexdigest(), "", ""]


def test_a_large_file_does_not_delay_the_end(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 40)
    disks = [DiskFacts("d", str(tmp_path / "large"), "raw", 1 << 40)]
    assert DiskHasher(disks, fixed={"d"}).finish()[0].sha256 == ""


@pytest.mark.parametrize(
    "wrong",
    [{"name": 1}, {"path": "x" * 5000}, {"size_bytes": -1}, {"sha256": "abc"}, {"format": None}],
)
def test_hostile_facts_are_refused(wrong: dict[str, Any]) -> None:
    end = End(1, 1, 0, "limit", 0, "", 0.1, "").to_json()
    assert End.from_json({**end, "disks": [FACTS]}).disks == (DiskFacts(**FACTS),)  # type: ignore[arg-type]
    with pytest.raises(FormatError):
        End.from_json({**end, "disks": [{**FACTS, **wrong}]})
    with pytest.raises(FormatError):
        End.from_json({**end, "disks": [FACTS] * 1000})


def test_record_says_which_image_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("demo.elf").write_bytes(demo.image())
    Path("disk.img").write_bytes(b"image" * 102400)
    words = ["record", "--kernel", "demo.elf", "-q", "--serial", "none", "-o", "t.wbt"]
    assert main([*words, "--drive", "file=disk.img,if=virtio"]) == 0
    assert main(["info", "t.wbt", "--json"]) == 0
    (disk,) = json.loads(capsys.readouterr().out)["end"]["disks"]
    sha256 = hashlib.sha256(b"image" * 102400).hexdigest()
    assert disk == {
        **FACTS,
        "name": "drive0",
        "path": "disk.img",
        "size_bytes": 512000,
        "sha256": sha256,
    }
    assert main(["info", "t.wbt"]) == 0
    assert sha256 in capsys.readouterr().out.replace("\n", "").replace(" ", "")


def test_a_trace_says_when_another_workbench_made_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine comes first; a trace from before devices were named is taken as it is."""

    def header(**host: str) -> Header:
        return Header({}, host=host, workbench_version="0.0.9")

    monkeypatch.setattr("workbench.trace.header._devices_key", lambda: "mine")
    engine = source_key()
    assert other_maker(header(engine=engine, devices="mine")) == ""
    assert other_maker(header(engine=engine)) == ""
    assert other_maker(header(engine="x", devices="mine")).startswith(
        "it was recorded by another engine, that of workbench 0.0.9 (this is "
    )
    assert other_maker(header(engine=engine, devices="theirs")).startswith(
        "it was recorded with other models of devices, those of workbench 0.0.9 (this is "
    )
