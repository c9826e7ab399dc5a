"""The processor survives what no compiler makes, and does it again alike, also in other pieces."""

from __future__ import annotations

import pytest

from tests.core import hostile_code


@pytest.mark.parametrize("mode", hostile_code.MODES)
@pytest.mark.parametrize("seed", [3, 14, 19])
def test_random_code_comes_back_and_is_repeatable(seed: int, mode: int) -> None:
    ends = hostile_code.run(seed, mode)
    assert hostile_code.run(seed, mode) == ends
    assert hostile_code.run(seed, mode, block_insns=1) == ends
    assert set(ends) - {"hlt", "budget", "mmio", "pio", "triple-fault"} == {
        end for end in ends if end.startswith("digest")
    }
    assert sum(ends.values()) == hostile_code.CASES + 1
