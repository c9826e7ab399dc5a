"""Recordings of the fake machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.trace import fake
from workbench.trace.session import Limits, Recording

Make = Callable[..., Path]


@pytest.fixture
def make_trace(tmp_path: Path) -> Make:
    """Record the fake machine and give the path; keyword arguments go to its configuration."""

    def make(name: str = "a.wbt", embed: bool = True, **options: object) -> Path:
        path = tmp_path / name
        config = fake.config(**options)  # type: ignore[arg-type]
        recording = Recording(
            str(path),
            config,
            fake.GUEST,
            embed=embed,
            limits=Limits(digest_every=10_000),
            build=fake.FakeMachine,
        )
        typed = [b"l", b"s", b"\r"]

        def type_a_key(machine: fake.FakeMachine) -> None:
            # Flush here, so that the trace has several groups.
            recording.recorder.flush()
            if typed:
                machine.inputs.post("com1", "rx", typed.pop(0))

        assert isinstance(recording.machine, fake.FakeMachine)
        recording.machine.on_slice = type_a_key
        recording.run()
        return path

    return make
