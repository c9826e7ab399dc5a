from workbench.firmware.bootstate import (
    CODE32,
    CODE64,
    DATA32,
    E820,
    Allocator,
    Region,
    Segment,
    bios_data_area,
    descriptor,
)


def allocator() -> Allocator:
    return Allocator(
        [Region(0, 0x9FC00), Region(0xF0000, 0x10000, E820.RESERVED), Region(0x100000, 0x100000)]
    )


def test_only_usable_memory_is_given_out() -> None:
    a = allocator()
    assert a.is_free(0x1000, 0x1000)
    assert not a.is_free(0xF0000, 0x1000)
    assert not a.is_free(0x9F000, 0x1000), "runs over the end of a region"


def test_lowest_and_highest_do_not_overlap() -> None:
    a = allocator()
    assert a.highest(0x1800) == 0x1FE000
    assert a.highest(0x1000) == 0x1FD000
    assert a.lowest(0x1000) == 0x1000
    assert a.lowest(0x10) == 0x2000
    assert a.lowest(0x10, align=16) == 0x2010


def test_highest_respects_the_limit() -> None:
    assert allocator().highest(0x1000, end=0x180000) == 0x17F000


def test_no_room() -> None:
    a = allocator()
    assert a.lowest(0x200000) is None
    assert a.highest(0x200000) is None
    a.reserve(0, 0x200000)
    assert a.lowest(1) is None


def test_memory_above_4_gib_is_not_given_out() -> None:
    a = Allocator([Region(0xFFFF_F000, 0x10000)])
    assert a.highest(0x2000) is None
    assert a.highest(0x1000) == 0xFFFF_F000


def test_descriptors_of_flat_segments() -> None:
    assert descriptor(Segment(8, 0, 0xFFFFFFFF, CODE64)) == 0x00AF_9B00_0000_FFFF
    assert descriptor(Segment(8, 0, 0xFFFFFFFF, CODE32)) == 0x00CF_9B00_0000_FFFF
    assert descriptor(Segment(16, 0, 0xFFFFFFFF, DATA32)) == 0x00CF_9300_0000_FFFF


def test_descriptor_with_a_base() -> None:
    assert descriptor(Segment(8, 0x12345678, 0xFFFF, 0x0093)) == 0x1200_9334_5678_FFFF


def test_bios_data_area_names_the_end_of_base_memory() -> None:
    words = dict(bios_data_area([Region(0, 0x9FC00), Region(0x100000, 0x100000)]))
    assert words == {0x400: b"\xf8\x03", 0x40E: b"\xc0\x9f", 0x413: b"\x7f\x02"}
