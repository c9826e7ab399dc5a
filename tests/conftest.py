"""What all tests share: guests made from packages, and settings that fit a busy machine."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

import guests
from guests.initramfs import run_option
from tests.cli.conftest import command, environment

# The processors are for the tests; those of regions ask for them.
os.environ.setdefault("WORKBENCH_REGIONS", "0")

# A shell that runs tests in the background has them ignore Ctrl-C, and what they start, too.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline: a slow machine is no fault. In CI the examples are the same each time.
settings.register_profile("workbench", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("workbench")


@pytest.fixture(scope="session")
def guest() -> Callable[[str], guests.Guest]:
    """Return a function that gives the guest of a flavour, or skips where it cannot be made."""

    def make(flavour: str = "cloud") -> guests.Guest:
        try:
            return guests.ensure(flavour)
        except guests.GuestError as error:
            pytest.skip(str(error))

    return make


@pytest.fixture(scope="session")
def pae_trace(
    tmp_path_factory: pytest.TempPathFactory, guest: Callable[[str], guests.Guest]
) -> Path:
    """A recording of Debian's 32-bit kernel with its drivers for IDE and the e1000."""
    pae, folder = guest("pae"), tmp_path_factory.mktemp("pae")
    (folder / "disk.img").write_bytes(bytes(1 << 20))
    subprocess.run(
        [
            *command(False), "record", "--kernel", str(pae.kernel), "--initrd",
            str(pae.images["drivers"]), "--append", f"console=ttyS0 quiet {run_option('true')}",
            "--drive", "file=disk.img,format=raw", "--nic", "e1000,none", "-m", "256",
            "--seed", "1", "--serial", "none", "-o", "boot.wbt", "--timeout", "200",
        ],
        cwd=folder, env=environment(), check=True, timeout=240,
    )  # fmt: skip
    return folder / "boot.wbt"
