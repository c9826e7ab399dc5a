"""Tools of QEMU that images are compared with."""

import shutil
import subprocess
from collections.abc import Callable

import pytest

Tool = Callable[..., str]


@pytest.fixture(scope="session")
def qemu_img() -> Tool:
    """`qemu_img("check", path)` runs it and gives its output; a failure of it is a failure."""
    return _tool("qemu-img")


@pytest.fixture(scope="session")
def qemu_io() -> Tool:
    """`qemu_io(path, "write 0 512", ...)`: commands on a qcow2 image."""
    run = _tool("qemu-io")

    def call(path: object, *commands: str) -> str:
        return run("-f", "qcow2", *[x for c in commands for x in ("-c", c)], str(path))

    return call


def _tool(name: str) -> Tool:
    where = shutil.which(name)
    if where is None:
        pytest.skip(f"{name} is not installed (package qemu-utils)")

    def call(*args: object) -> str:
        command = [where, *map(str, args)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{name} {args}: {done.stdout}{done.stderr}"
        return done.stdout

    return call
