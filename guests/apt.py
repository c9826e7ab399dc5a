"""Find, fetch and unpack packages of the distribution, without installing them and without root.

The system's package lists are used when they are there and current. Where they are missing (a fresh
container) or stale (the mirror answers 404), a private set of lists is fetched into the cache
directory; the system's own are never changed.
"""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from guests.errors import GuestError


class Apt:
    """The package manager, as seen by this project.

    `directory` receives packages and, if need be, private package lists. With an `architecture`
    its packages are meant, whatever the machine's own are.
    """

    def __init__(self, directory: Path, architecture: str = "") -> None:
        self._directory = directory
        self._architecture = architecture
        self._options: list[str] = []
        for tool in ("apt-get", "apt-cache", "dpkg-deb"):
            if shutil.which(tool) is None:
                raise GuestError(
                    f"{tool} is not installed: guests are made on Debian or Ubuntu only"
                )
        if architecture:
            self._private_lists()

    def resolve(self, names: Sequence[str], pattern: str) -> str:
        """Return the package that the first known name of `names` is, or depends on.

        A meta package (``linux-image-amd64``) is followed to the first dependency that matches the
        regular expression `pattern`.
        """
        for attempt in range(2):
            for name in names:
                found = self._depends(name, pattern)
                if found is not None:
                    return found
            if attempt == 0:
                self._private_lists()
        raise GuestError(f"apt knows none of the packages {', '.join(names)}")

    def download(self, package: str) -> Path:
        """Return the path of `package` as a .deb file, fetched unless it is there already."""
        self._directory.mkdir(parents=True, exist_ok=True)
        for attempt in range(2):
            output = self._run("apt-get", "download", "--print-uris", package)
            match = re.search(r"^'[^']+' (\S+\.deb) ", output, re.MULTILINE)
            if match is not None:
                path = self._directory / match[1]
                if path.is_file():
                    return path
                self._run("apt-get", "download", package, cwd=self._directory)
                if path.is_file():
                    return path
            if attempt == 0:
                self._private_lists()
        raise GuestError(f"the package {package} cannot be fetched with `apt-get download`")

    def unpack(self, deb: Path, target: Path) -> None:
        """Unpack the files of `deb` below `target`."""
        target.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["dpkg-deb", "-x", deb, target], capture_output=True, text=True, check=False
        )
        if done.returncode:
            deb.unlink(missing_ok=True)  # most likely cut off; the next run fetches it again
            raise GuestError(f"{deb.name} cannot be unpacked: {done.stderr.strip()}")

    def _depends(self, name: str, pattern: str) -> str | None:
        if re.fullmatch(pattern, name):
            known = self._run("apt-cache", "show", "--no-all-versions", name)
            return name if known.strip() else None
        output = self._run("apt-cache", "depends", "--important", name)
        for match in re.finditer(r"^[ |]*(?:Pre)?Depends: (\S+)$", output, re.MULTILINE):
            if re.fullmatch(pattern, match[1]):
                return match[1]
        return None

    def _private_lists(self) -> None:
        if self._options:
            return
        state = self._directory / f"apt{self._architecture}"
        (state / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        (state / "archives" / "partial").mkdir(parents=True, exist_ok=True)
        self._options = [
            f"-oDir::State::lists={state / 'lists'}",
            f"-oDir::Cache={state}",
            "-oAPT::Sandbox::User=",
        ]
        if self._architecture:
            self._options += [
                f"-oAPT::Architecture={self._architecture}",
                f"-oAPT::Architectures={self._architecture}",
            ]
        self._run("apt-get", "update")

    def _run(self, program: str, *arguments: str, cwd: Path | None = None) -> str:
        done = subprocess.run(
            [program, "-q", "-oAPT::Sandbox::User=", *self._options, *arguments],
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        return done.stdout
