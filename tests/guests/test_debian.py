"""The whole Debian: what is refused before anything is fetched, and what is said afterwards."""

import subprocess
import sys
from pathlib import Path

import pytest

from guests import debian
from guests.errors import GuestError

needs_tools = pytest.mark.skipif(
    any(debian.shutil.which(tool) is None for tool in debian.TOOLS), reason="no mmdebstrap"
)


@needs_tools
@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"suite": "Book worm"}, "expected the name of a Debian suite such as bookworm, not 'Bo"),
        ({"key": Path("/nowhere.pub")}, "expected a file with a public key, not /nowhere.pub"),
        ({"suite": "nosuch", "mirror": "file:///nowhere"}, "mmdebstrap could not make the guest"),
    ],
)
def test_what_is_refused(tmp_path: Path, options: dict[str, object], why: str) -> None:
    with pytest.raises(GuestError, match=why):
        debian.make(tmp_path / "guest", **options)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_without_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GuestError, match="mmdebstrap and e2fsprogs must be installed"):
        debian.make(tmp_path / "guest")


def test_the_command_to_record_it(tmp_path: Path) -> None:
    (tmp_path / "PACKAGES").write_text("apt 2.6\nbase-files 12.4+deb12u15\n")
    text = debian.describe(debian.Debian(tmp_path))
    assert text.startswith("debian: a whole Debian 12.4+deb12u15; log in as root")
    for path in debian.Debian(tmp_path).files:
        assert str(path) in text


def test_help_has_examples() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "guests", "--help"], capture_output=True, text=True, check=True
    )
    assert "python -m guests debian --suite trixie" in done.stdout
