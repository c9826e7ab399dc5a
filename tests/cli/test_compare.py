"""`workbench compare`: the same work through two devices."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

import guests
from workbench.cli.main import main


def test_a_disk_and_a_network_card_cannot_be_compared(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "ide", "e1000", "--kernel", "k", "--initrd", "i"]) == 2
    assert "expected two disks or two network interfaces" in capsys.readouterr().err


@pytest.mark.slow
def test_virtio_blk_takes_few_accesses(
    guest: Callable[[str], guests.Guest], capsys: pytest.CaptureFixture[str]
) -> None:
    files = guest("generic")
    initrd = str(files.images["drivers"])
    words = ["compare", "ide", "virtio-blk", "--kernel", str(files.kernel), "--initrd", initrd]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ide"]["accesses"] > 10 * found["virtio-blk"]["accesses"]
    assert "ide0.COMMAND" in found["ide"]["registers"]
    assert found["virtio-blk"]["dma_bytes"] > 36 << 20
