"""The random drivers, briefly; `python -m tests.qtest.random_driver` does a million operations."""

import os

import pytest

from tests.qtest.random_driver import DRIVERS

OPERATIONS = int(os.environ.get("WORKBENCH_HOSTILE_OPERATIONS", "3000"))


@pytest.mark.parametrize("seed", [2, 3])
@pytest.mark.parametrize("name", DRIVERS)
def test_random_driver(name, seed):
    DRIVERS[name](seed).run(OPERATIONS)


@pytest.mark.parametrize("name", DRIVERS)
def test_the_check_at_the_end_is_one(name):
    """A device that works passes it, without any operation before."""
    DRIVERS[name](0).run(0)
