"""The pages of `docs/devices` are those that the register maps give."""

from __future__ import annotations

from pathlib import Path

from workbench.hw import hpet, regdoc

DOCS = Path(__file__).parents[2] / "docs" / "devices"


def test_the_pages_are_up_to_date():
    pages = regdoc.pages()
    assert {path.name for path in DOCS.iterdir()} == set(pages)
    for name, text in pages.items():
        assert (DOCS / name).read_text() == text, f"{name}: run python -m workbench.hw.regdoc"


def test_every_register_is_in_its_table():
    text = regdoc.page(hpet)
    assert "| `0xf0` | **MAIN_CNT** | 8 | RW | `0x0` |" in text
    assert "| `0x108` + 0x20·n | **TN_COMP0–2** | 8 |" in text
    assert "8 32MODE_CNF<br>" in text


def test_usage(capsys):
    assert regdoc.main([]) == 2
    assert "usage" in capsys.readouterr().err
