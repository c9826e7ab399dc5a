"""The documentation shows code as it is, and its links lead somewhere."""

import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
QUOTE = re.compile(r"^```python\n# (\S+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")

QUOTES = [
    pytest.param(source, code, id=f"{page.name}:{source}:{n}")
    for page in PAGES
    for n, (source, code) in enumerate(QUOTE.findall(page.read_text(encoding="utf-8")), start=1)
]


@pytest.mark.parametrize(("source", "code"), QUOTES)
def test_quoted_code_is_the_code(source: str, code: str) -> None:
    text = (ROOT / source).read_text(encoding="utf-8")
    assert textwrap.dedent(code) in textwrap.dedent(text) or code in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
