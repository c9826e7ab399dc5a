"""The disk that devices see: overlay, recorded fetches, replay without the image."""

import random
from pathlib import Path

import pytest

from workbench.block.disk import Disk, DiskError
from workbench.block.opening import open_image
from workbench.core.inputs import Input, Inputs
from workbench.core.state import StateError
from workbench.errors import FormatError

SIZE = 12 << 20


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(random.Random(1).randbytes(SIZE))
    return path


def exercise(disk: Disk, model: bytearray | None, seed: int) -> bytes:
    """Random work; compared with `model`, given back as everything that was read."""
    rnd, seen = random.Random(seed), b""
    for _ in range(200):
        count = rnd.choice((1, 1, 8, 63, 256, 5000))
        lba = rnd.randrange(disk.sectors - count + 1)
        at, end = lba * 512, (lba + count) * 512
        match rnd.randrange(4):
            case 0:
                data = rnd.randbytes(count * 512)
                disk.write(lba, data)
                if model is not None:
                    model[at:end] = data
            case 1 if count > 60:
                (disk.discard if count % 2 else disk.write_zeroes)(lba, count)
                if model is not None:
                    model[at:end] = bytes(end - at)
            case _:
                data = disk.read(lba, count)
                seen += data
                assert model is None or data == model[at:end]
    return seen


def test_replay_needs_no_image(raw: Path) -> None:
    inputs, fetched = Inputs(), []
    inputs.on_fetch = lambda target, data: fetched.append(Input(0, 0, target, "fetch", data))
    before = raw.read_bytes()
    disk = Disk("drive0", open_image(raw), inputs.fetch)
    seen = exercise(disk, bytearray(before), 7)
    disk.close()
    assert raw.read_bytes() == before

    again = Inputs()
    again.replay(fetched)
    replayed = Disk("drive0", None, again.fetch, size_bytes=SIZE)
    assert exercise(replayed, None, 7) == seen
    assert replayed.save() == disk.save()


def test_nothing_is_fetched_twice_or_for_nothing(raw: Path) -> None:
    disk = Disk("drive0", open_image(raw), Inputs().fetch)
    disk.write(8, bytes(4096))
    assert disk.fetched_bytes == 0
    disk.read(0, 24)
    assert disk.fetched_bytes == 8192
    disk.read(0, 24)
    assert disk.fetched_bytes == 8192


def test_write_through(raw: Path) -> None:
    model = bytearray(raw.read_bytes())
    disk = Disk("drive0", open_image(raw, read_only=False), Inputs().fetch, write_through=True)
    exercise(disk, model, 3)
    disk.flush()
    assert raw.read_bytes() == model
    disk.close()


def test_a_disk_whose_last_block_is_short(tmp_path: Path) -> None:
    path = tmp_path / "odd.raw"
    path.write_bytes(b"x" * (4096 + 1000))
    disk = Disk("drive0", open_image(path, read_only=False), Inputs().fetch, write_through=True)
    assert disk.sectors == 10
    assert disk.read(9, 1) == b"x" * 488 + bytes(24)
    disk.write(9, b"y" * 512)
    disk.write_zeroes(8, 1)
    disk.close()
    assert path.read_bytes() == b"x" * 4096 + bytes(512) + b"y" * 512


def test_state(raw: Path) -> None:
    disk = Disk("drive0", open_image(raw), Inputs().fetch)
    exercise(disk, None, 5)
    state = disk.save()
    disk.write(0, b"z" * 512)
    disk.discard(2048, 16384)
    assert disk.save() != state
    disk.restore(state)
    assert disk.save() == state
    for wrong in (
        {}, {"blocks": {1 << 40: bytes(4096)}}, {"blocks": {0: b""}}, {"extents": {0: b"x"}},
        {"extents": {1 << 40: bytes(4096)}}, {"zero_chunks": [-1]},
    ):  # fmt: skip
        fields = {**state["fields"], **wrong}
        bad = {**state, "fields": fields, "version": 2 if wrong else 1}
        with pytest.raises(StateError, match="drive0: expected"):
            disk.restore(bad)
    assert disk.save() == state


def test_discarding_a_huge_disk_takes_little(tmp_path: Path) -> None:
    path = tmp_path / "huge.raw"
    with path.open("wb") as out:
        out.truncate(1 << 40)
    disk = Disk("drive0", open_image(path), Inputs().fetch)
    disk.discard(1, disk.sectors - 1)
    assert len(disk.save()["fields"]["blocks"]) < 2048
    assert disk.read(disk.sectors - 1, 1) == bytes(512)


def test_what_a_guest_may_not() -> None:
    disk = Disk("drive0", None, Inputs().fetch, read_only=True, size_bytes=5120)
    for lba, count in ((10, 1), (0, 11), (-1, 1), (1 << 64, 1)):
        with pytest.raises(DiskError, match="expected some of 10 sectors"):
            disk.read(lba, count)
    with pytest.raises(DiskError, match="drive0 is read-only"):
        disk.write(0, bytes(512))


def test_an_unreadable_sector_is_recorded() -> None:
    inputs, fetched = Inputs(), []
    inputs.on_fetch = lambda target, data: fetched.append(data)
    disk = Disk("drive0", _Failing(), inputs.fetch)
    with pytest.raises(DiskError, match="drive0: sectors from 0 cannot be read"):
        disk.read(0, 1)
    assert fetched == [b""]
    assert disk.errors == ["the medium is bad"]


def test_a_trace_that_lies() -> None:
    inputs = Inputs()
    inputs.replay([Input(0, 0, "drive0", "fetch", b"short")])
    disk = Disk("drive0", None, inputs.fetch, size_bytes=4096)
    with pytest.raises(FormatError, match="expected 4096 bytes of drive0 in the trace, not 5"):
        disk.read(0, 1)


class _Failing:
    size_bytes = 8192

    def read(self, offset: int, length: int) -> bytes:
        raise FormatError("the medium is bad")
