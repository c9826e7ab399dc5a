"""AML encodings (ACPI 6.3, chapter 20 and 6.4)."""

from __future__ import annotations

import pytest

from workbench.hw import aml


@pytest.mark.parametrize(
    ("content", "encoded"),
    [
        (0, "01"),
        (62, "3f"),
        (63, "4104"),
        (4093, "4fff"),
        (4094, "810001"),
        ((1 << 20) - 4, "8fffff"),
        ((1 << 20) - 3, "c1000001"),
    ],
)
def test_pkg_length(content, encoded):
    assert aml.pkg_length(content).hex() == encoded


def test_pkg_length_is_limited():
    with pytest.raises(ValueError, match="expected a package below 256 MiB"):
        aml.pkg_length(1 << 28)


@pytest.mark.parametrize(
    ("path", "encoded"),
    [
        ("\\", b"\\\x00"),
        ("_SB", b"_SB_"),
        ("\\_SB.PCI0", b"\\\x2e_SB_PCI0"),
        ("^^ISA", b"^^ISA_"),
        ("\\_SB.PCI0.ISA.PRQA", b"\\\x2f\x04_SB_PCI0ISA_PRQA"),
    ],
)
def test_name_string(path, encoded):
    assert aml.name_string(path) == encoded


@pytest.mark.parametrize("bad", ["TOOLONG", "1ABC", "abc", "A.", "A-B"])
def test_bad_names(bad):
    with pytest.raises(ValueError, match="expected a"):
        aml.name_string(bad)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (1, "01"),
        (2, "0a02"),
        (0x1234, "0b3412"),
        (0x1_0000, "0c00000100"),
        (1 << 32, "0e0000000001000000"),
    ],
)
def test_integer(value, encoded):
    assert aml.integer(value).hex() == encoded


def test_integer_range():
    with pytest.raises(ValueError, match="expected an unsigned 64-bit integer, not -1"):
        aml.integer(-1)


def test_eisa_id():
    assert aml.eisa_id("PNP0A03") == bytes.fromhex("0c41d00a03")
    with pytest.raises(ValueError, match="expected an EISA ID"):
        aml.eisa_id("ACPI0007")


def test_objects():
    assert aml.name("_UID", 1) == b"\x08_UID\x01"
    assert aml.string("ab") == b"\x0dab\x00"
    assert aml.package(0, 5) == b"\x12\x05\x02\x00\x0a\x05"
    assert aml.buffer(b"xyz") == b"\x11\x06\x0a\x03xyz"
    assert aml.device("RTC", b"") == b"\x5b\x82\x05RTC_"
    assert aml.method("_DIS", 0, aml.return_(0)) == b"\x14\x08_DIS\x00\xa4\x00"
    assert aml.op_region("PIRQ", aml.PCI_CONFIG, 0x60, 4) == b"\x5b\x80PIRQ\x02\x0a\x60\x0a\x04"
    assert aml.field("PIRQ", aml.BYTE_ACC, ("PRQA", 8)) == b"\x5b\x81\x0bPIRQ\x01PRQA\x08"


def test_resources():
    assert aml.io(0x3F8, 8, 8) == bytes.fromhex("4701f803f8030808")
    assert aml.irq_no_flags(4) == bytes.fromhex("221000")
    assert aml.interrupt(5, 10) == bytes.fromhex("890a000902050000000a000000")
    assert aml.resource_template(b"") == bytes.fromhex("11050a027900")
