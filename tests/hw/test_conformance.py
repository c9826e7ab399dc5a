"""Every device against the rules of `conformance`."""

from __future__ import annotations

import pytest

from tests.hw import conformance
from tests.hw.conformance import CASES, Case, Rig
from workbench.core.state import StateError

ALL = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
SEEDS = pytest.mark.parametrize("seed", range(6))


@ALL
@SEEDS
def test_random_accesses_never_raise(case: Case, seed: int) -> None:
    conformance.check_never_raises(case, seed)


@ALL
@SEEDS
def test_save_restore_save_is_equal(case: Case, seed: int) -> None:
    conformance.check_round_trip(case, seed)


@ALL
def test_same_accesses_same_device(case: Case) -> None:
    conformance.check_deterministic(case, 1)


@ALL
def test_reset_is_a_fixed_point(case: Case) -> None:
    conformance.check_reset(case, 2)


@ALL
def test_wrong_state_is_refused(case: Case) -> None:
    device = case.build(Rig())
    with pytest.raises((StateError, KeyError)):
        device.restore({"kind": "something", "version": 1, "fields": {}})


@ALL
@SEEDS
def test_damaged_state_is_refused_or_harmless(case: Case, seed: int) -> None:
    conformance.check_damaged_state(case, seed)
