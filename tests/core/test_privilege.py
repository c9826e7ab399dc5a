"""Random programs about privilege against QEMU, and against what was seen there before."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from tests.core.privilege_program import RECORD, Program, explain, run_here, run_qemu

SNIPPETS = 700
GOLDEN = {
    (32, 1): "4e95a353e25080f9",
    (32, 2): "fb9520835be81a56",
    (32, 3): "f1509bd5eada299b",
    (64, 1): "c722a570e9adf544",
    (64, 2): "0a2437b3569e80b7",
    (64, 3): "72bd1155f7b064ce",
}


@pytest.mark.parametrize("mode", [32, 64])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_log_is_as_seen_with_qemu(seed: int, mode: int) -> None:
    log = run_here(Program(seed, mode))
    assert len(log) == SNIPPETS * RECORD
    assert hashlib.blake2b(log, digest_size=8).hexdigest() == GOLDEN[mode, seed]


@pytest.mark.qemu
@pytest.mark.skipif(not shutil.which("qemu-system-x86_64"), reason="QEMU is not installed")
@pytest.mark.parametrize("mode", [32, 64])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_log_is_that_of_qemu(seed: int, mode: int, tmp_path: Path) -> None:
    program = Program(seed, mode)
    ours, theirs = run_here(program), run_qemu(program, tmp_path)
    for i in range(SNIPPETS):
        a, b = ours[i * RECORD : (i + 1) * RECORD], theirs[i * RECORD : (i + 1) * RECORD]
        assert explain(a) == explain(b), (i, program.names[i])
