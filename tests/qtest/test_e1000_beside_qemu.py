"""The same register programs on our 82540EM and on QEMU's: each difference is explained."""

import re

import pytest

from tests.qtest.e1000_differences import RULES, unexplained
from tests.qtest.e1000_programs import PROGRAMS, beside
from tests.qtest.wire import QEMU


@pytest.mark.qemu
@pytest.mark.skipif(QEMU is None, reason="qemu-system-x86_64 is not installed")
def test_every_difference_is_explained(tmp_path):
    differences = list(beside(tmp_path))
    assert len(PROGRAMS) == 14
    assert unexplained(differences) == []
    for pattern, reason in RULES:
        assert any(re.match(pattern, key) for key, _, _ in differences), reason
    assert not any("segment" in key and key.endswith("data") for key, _, _ in differences)
