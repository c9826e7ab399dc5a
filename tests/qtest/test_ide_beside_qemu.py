"""The same register programs on our IDE function and on QEMU's: each difference is explained."""

import pytest

from tests.qtest.ide_differences import unexplained
from tests.qtest.ide_programs import PROGRAMS, beside
from tests.qtest.wire import QEMU


@pytest.mark.qemu
@pytest.mark.slow
@pytest.mark.skipif(QEMU is None, reason="qemu-system-x86_64 is not installed")
def test_every_difference_is_explained(tmp_path):
    differences = list(beside(tmp_path))
    assert len(PROGRAMS) > 25
    assert len(differences) > 100  # both ran
    assert unexplained(differences) == []
