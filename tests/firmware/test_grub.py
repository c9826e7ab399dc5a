"""GRUB from a disk with an MBR and from an El Torito CD boots Debian's kernel; replayed without
the images.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from guests.build import ensure
from guests.errors import GuestError
from tests.firmware import disks
from workbench.block.opening import open_image
from workbench.cli.roms import SEABIOS_FILES
from workbench.core.config import DriveConfig, FirmwareConfig, MachineConfig
from workbench.core.machine import Observer
from workbench.trace.guest import Guest, build_machine
from workbench.trace.reader import open_trace
from workbench.trace.replayer import Replay
from workbench.trace.session import Limits, Recording

pytestmark = [pytest.mark.slow, pytest.mark.guest]
LIMIT = 3_000_000_000


class Ear(Observer):
    """Ends the run a little after the console shows `last`."""

    def __init__(self, recording: Recording, last: bytes) -> None:
        self.recording = recording
        self.last = last
        self.text: dict[str, bytearray] = {}
        self.accesses: Counter[str] = Counter()

    def on_console(self, device: str, data: bytes, icount: int) -> None:
        text = self.text.setdefault(device, bytearray())
        text += data
        if self.last in text[-200:]:
            self.recording.interrupt()

    def on_access(self, kind, device, offset, size, is_write, *rest):  # type: ignore[no-untyped-def]
        self.accesses[device] += 1


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with disk.img and cd.iso."""
    lacking = disks.missing(disks.TOOLS) or disks.missing(disks.CD_TOOLS)
    if lacking or not any(Path(path).exists() for path in SEABIOS_FILES):
        pytest.skip(f"not installed: {lacking or 'SeaBIOS'}")
    try:
        guest = ensure("cloud")
    except GuestError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("media")
    files = disks.tree(folder / "files", guest.kernel, guest.images["boot"], "console=ttyS0 quiet")
    disks.mbr_disk(folder / "disk.img", files, folder)
    disks.rescue_cd(folder / "cd.iso", files)
    return folder


@pytest.mark.parametrize(
    ("interface", "file", "message", "last", "device"),
    [
        ("ide", "disk.img", b"Booting from Hard Disk", b"== init", "ide0"),
        ("virtio", "disk.img", b"Booting from Hard Disk", b"== init", "drive0"),
        # The kernel takes the same way from here, and to read it by PIO takes long.
        ("cdrom", "cd.iso", b"Booting from DVD/CD", b"Loading by GRUB", "ide0"),
    ],
    ids=("ide", "virtio", "cdrom"),
)
def test_grub_boots_linux_and_the_replay_needs_no_image(
    media: Path,
    tmp_path: Path,
    interface: str,
    file: str,
    message: bytes,
    last: bytes,
    device: str,
) -> None:
    image = open_image(str(media / file), read_only=True, format_name="raw")
    drive = DriveConfig("drive0", interface, image.size_bytes, read_only=interface == "cdrom")
    config = MachineConfig(seed=1, firmware=FirmwareConfig(), drives=(drive,), rtc_epoch_s=10**9)
    bios = next(path for path in SEABIOS_FILES if Path(path).exists())
    guest = Guest.from_files(None, None, "", {"bios": bios})
    path = tmp_path / "boot.wbt"
    recording = Recording(
        str(path),
        config.to_json(),
        guest,
        limits=Limits(icount=LIMIT),
        build=partial(build_machine, images={"drive0": image}),
    )
    ear = Ear(recording, last)
    recording.machine.observers.append(ear)
    outcome = recording.run()
    image.close()
    console = bytes(ear.text["com1"])
    assert message in console, console
    assert b"Loading by GRUB" in console, console
    assert last in console, console[-2000:]
    assert outcome.stop in ("interrupted", "shutdown")
    assert ear.accesses[device] > 100
    with open_trace(path) as trace:
        result = Replay(trace).run()
    assert result.identical, result.message
    assert result.verified
    assert result.digest == outcome.digest
