"""What all tests share: guests made from packages, and settings that fit a busy machine."""

import os
from collections.abc import Callable

import pytest
from hypothesis import settings

import guests

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
