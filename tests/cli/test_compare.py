"""`workbench compare`: the same work through two devices."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

import guests
from workbench.cli.main import main


def test_a_disk_and_a_network_card_cannot_be_compared(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "ide", "e1000", "--kernel", "k", "--initrd", "i"]) == 2
    assert "expected two disks or two network interfaces" in capsys.readouterr().err


def compared(
    one: str,
    other: str,
    guest: Callable[[str], guests.Guest],
    capsys: pytest.CaptureFixture[str],
) -> dict[str, Any]:
    files = guest("generic")
    initrd = str(files.images["drivers"])
    words = ["compare", one, other, "--kernel", str(files.kernel), "--initrd", initrd]
    assert main([*words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.slow
def test_virtio_blk_takes_few_accesses(
    guest: Callable[[str], guests.Guest], capsys: pytest.CaptureFixture[str]
) -> None:
    found = compared("ide", "virtio-blk", guest, capsys)
    assert found["ide"]["accesses"] > 10 * found["virtio-blk"]["accesses"]
    assert "ide0.COMMAND" in found["ide"]["registers"]
    assert found["virtio-blk"]["dma_bytes"] > 36 << 20


@pytest.mark.slow
def test_an_e1000_takes_registers_for_each_packet(
    guest: Callable[[str], guests.Guest], capsys: pytest.CaptureFixture[str]
) -> None:
    found = compared("e1000", "virtio-net", guest, capsys)
    e1000, virtio = found["e1000"], found["virtio-net"]
    assert 1000 <= e1000["packets"] == virtio["packets"] < 1010
    assert e1000["mibs"] > 1.3
    assert e1000["accesses_per_packet"] > 4 > 1 > virtio["accesses_per_packet"]
    assert e1000["registers"]["net.TDT"] >= 500
    assert "net.EECD" not in e1000["registers"], "the driver reads it before the work"
    assert e1000["setup"]["registers"]["net.EECD"] > 1000
    assert abs(e1000["dma_bytes_per_mib"] / (1 << 20) - 1) < 0.1


@pytest.mark.slow
def test_an_initrd_that_does_no_work_is_told(
    guest: Callable[[str], guests.Guest], capsys: pytest.CaptureFixture[str]
) -> None:
    files = guest("cloud")
    words = ["compare", "ide", "virtio-blk", "--kernel", str(files.kernel), "--json"]
    assert main([*words, "--initrd", str(files.kernel)]) == 1
    assert "the work through ide and virtio-blk did not end" in capsys.readouterr().err
