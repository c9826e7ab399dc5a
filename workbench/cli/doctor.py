"""`workbench doctor`: what is installed, what is missing, and what it is for."""

from __future__ import annotations

import argparse
import ctypes.util
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from workbench.cli import text
from workbench.cli.roms import IPXE_FILES, LINUXBOOT_FILES, OVMF_FILES, SEABIOS_FILES, first_of
from workbench.errors import EXIT_BAD_INPUT, EXIT_OK

EXAMPLES = """\
examples:
  workbench doctor
  workbench doctor --json | jq '.checks[] | select(.ok | not)'

The exit status is 1 when something is missing that recording and replaying need.
"""

_PACKAGES = (
    ("llvmlite", "llvmlite", True, "the JIT: LLVM makes its machine code"),
    ("numpy", "numpy", True, "guest memory and the tables of a trace"),
    ("pyarrow", "pyarrow", True, "the tables of a trace"),
    ("zstandard", "zstandard", True, "compression of traces"),
    ("pyelftools", "elftools", True, "symbols of ELF files"),
    ("capstone", "capstone", True, "disassembly for people"),
    ("prompt_toolkit", "prompt_toolkit", True, "the terminal user interface"),
    ("rich", "rich", True, "tables and progress in the terminal"),
    ("duckdb", "duckdb", False, "workbench query"),
    ("bokeh", "bokeh", False, "workbench stats --html"),
    ("drgn", "drgn", False, "workbench drgn"),
    ("distributed", "distributed", False, "--scheduler: many traces on a Dask cluster"),
    ("unicorn", "unicorn", False, "tests: oracle for instruction semantics"),
    ("iced-x86", "iced_x86", False, "tests: second decoder"),
    ("hypothesis", "hypothesis", False, "tests: random inputs"),
    ("pytest", "pytest", False, "tests"),
    ("pygdbmi", "pygdbmi", False, "tests: driving gdb"),
)
_PROGRAMS = (
    ("gdb", "debugging a guest", "gdb"),
    ("tshark", "tests of exported network captures", "tshark"),
    ("qemu-storage-daemon", "images in formats other than raw and qcow2, iSCSI and Gluster",
     "qemu-system-common"),
    ("qemu-nbd", "the same, where there is no qemu-storage-daemon", "qemu-utils"),
    ("nbdkit", "images by HTTP and SSH, where there is neither of them", "nbdkit"),
    ("qemu-img", "making disk images", "qemu-utils"),
    ("qemu-system-x86_64", "bench: what the figures are compared with", "qemu-system-x86"),
    ("apt-get", "fetching kernels for tests and benchmarks", "apt"),
    ("cpio", "making initial RAM disks", "cpio"),
    ("grub-mkrescue", "tests: disks and CDs that boot", "grub-common grub-pc-bin"),
    ("chromium", "tests of reports", "chromium"),
)  # fmt: skip
_FILES = (
    ("SeaBIOS", SEABIOS_FILES, "--bios seabios", "seabios"),
    ("OVMF", OVMF_FILES, "--bios ovmf (UEFI)", "ovmf"),
    ("iPXE, e1000", IPXE_FILES["e1000"], "booting from the network, romfile=ipxe", "ipxe-qemu"),
    ("iPXE, virtio-net", IPXE_FILES["virtio-net"], "the same", "ipxe-qemu"),
    ("linuxboot", LINUXBOOT_FILES, "--bios with --kernel", "qemu-system-data"),
)


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report."""

    name: str
    ok: bool
    needed: bool
    found: str
    purpose: str
    remedy: str = ""


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "doctor",
        help="show what is installed and what is missing",
        description=__doc__,
        epilog=EXAMPLES,
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check and report."""
    checks = list(all_checks())
    healthy = all(check.ok for check in checks if check.needed)
    if args.json:
        text.print_json({"healthy": healthy, "checks": [asdict(check) for check in checks]})
    else:
        show(checks, healthy)
    return EXIT_OK if healthy else EXIT_BAD_INPUT


def all_checks() -> Iterator[Check]:
    """Look at everything, one check at a time."""
    yield _python()
    yield _processor()
    for package, module, needed, purpose in _PACKAGES:
        yield _package(package, module, needed, purpose)
    yield _cache()
    for program, purpose, debian in _PROGRAMS:
        yield _program(program, purpose, debian)
    yield _libslirp()
    for name, paths, purpose, debian in _FILES:
        yield _file(name, paths, purpose, debian)
    yield _kvm()
    yield _memory()
    yield _terminal()


def show(checks: list[Check], healthy: bool) -> None:
    """Print the report for people."""
    rows = []
    for check in checks:
        state = "ok" if check.ok else "MISSING" if check.needed else "absent"
        hint = "" if check.ok or not check.remedy else f" ({check.remedy})"
        rows.append((check.name, state, check.found, check.purpose + hint))
    text.print_table("doctor", ("what", "state", "found", "what it is for"), rows, right=())
    if healthy:
        print("Everything that recording and replaying need is here.")
    else:
        names = ", ".join(check.name for check in checks if check.needed and not check.ok)
        print(f"Missing, and needed: {names}.")


def _python() -> Check:
    ok = sys.version_info >= (3, 11)
    version = platform.python_version()
    return Check("Python", ok, True, version, "runs all of it", "3.11 or newer is needed")


def _processor() -> Check:
    machine = platform.machine()
    return Check(
        "processor",
        machine in ("x86_64", "AMD64"),
        True,
        machine,
        "the JIT makes x86-64 code",
        "only x86-64 hosts can run guests",
    )


def _package(package: str, module: str, needed: bool, purpose: str) -> Check:
    from importlib import metadata

    try:
        version = metadata.version(package)
    except metadata.PackageNotFoundError:
        return Check(package, False, needed, "", purpose, f"pip install {package}")
    # A broken installation has its metadata and does not import; look without importing here.
    if importlib.util.find_spec(module) is None:
        return Check(package, False, needed, "broken", purpose, f"pip install -I {package}")
    return Check(package, True, needed, version, purpose)


def _program(program: str, purpose: str, debian: str) -> Check:
    path = shutil.which(program)
    if path is None:
        return Check(program, False, False, "", purpose, f"apt-get install {debian}")
    return Check(program, True, False, _version(path), purpose)


def _libslirp() -> Check:
    found, purpose = ctypes.util.find_library("slirp") or "", "--nic ...,user: the guest's network"
    return Check("libslirp", bool(found), False, found, purpose, "apt-get install libslirp0")


def _file(name: str, paths: tuple[str, ...], purpose: str, debian: str) -> Check:
    path = first_of(paths) or ""
    return Check(name, bool(path), False, path, purpose, f"apt-get install {debian}")


def _version(path: str) -> str:
    try:
        done = subprocess.run(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=5,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return "does not answer"
    lines = done.stdout.decode(errors="replace").strip().splitlines()
    return lines[0][:60] if lines else "present"


def _kvm() -> Check:
    usable = os.access("/dev/kvm", os.R_OK | os.W_OK)
    found = "usable" if usable else "no access" if Path("/dev/kvm").exists() else ""
    return Check("/dev/kvm", usable, False, found, "running guest code on the host's own processor")


def _memory() -> Check:
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return Check("free memory", True, False, "unknown", "guest memory and the engine")
    return Check(
        "free memory",
        free > 768 << 20,
        False,
        text.memory_text(free >> 20 << 20),
        "256 MiB of guest memory and the engine",
    )


def _terminal() -> Check:
    found = os.environ.get("TERM", "") if sys.stdout.isatty() else "not a terminal"
    return Check("terminal", True, False, found, "the guest's console, keys go to the guest")


def _cache() -> Check:
    from importlib.metadata import PackageNotFoundError

    from workbench.cli import engine

    try:
        path = engine.image_path()
        found = f"{text.size_text(path.stat().st_size)}, {path}" if path.exists() else ""
    except (OSError, PackageNotFoundError):
        found = ""
    return Check(
        "engine cache",
        bool(found),
        False,
        found,
        "the compiled engine; the first run makes it, in under a minute",
    )
