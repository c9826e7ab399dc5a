"""DMA into many spans, by the compiled helper: memory, dirty pages and translations."""

from __future__ import annotations

import random

import pytest

from workbench.core.engine import PAGE, Cpu
from workbench.core.spans import pairs, spans_of

RAM_BYTES = 1 << 21


@pytest.mark.parametrize("seed", range(4))
def test_spans_are_written_as_one_by_one(seed: int) -> None:
    rng = random.Random(seed)
    compiled, simple = Cpu(RAM_BYTES), Cpu(RAM_BYTES)
    for cpu in (compiled, simple):
        cpu.set_page_kind(0x40000, 0x4000, 2)  # read-only
        cpu.set_page_kind(0x50000, 0x4000, 0)  # a hole
        cpu.forget_dirty()
    places = (0, 0x3F000, 0x50000, RAM_BYTES - 0x2000, 1 << 32, 1 << 41)
    spans = spans_of(
        (rng.choice(places) + rng.randrange(0x3000), rng.choice((0, 1, 512, PAGE, 9000)))
        for _ in range(60)
    )
    data = rng.randbytes(60 * 9000)
    compiled.scatter(spans, memoryview(data)[3:])
    at = 3
    for gpa, length in pairs(spans):
        simple.write_phys(gpa, data[at : at + length])
        at += length
    assert bytes(compiled.ram.view) == bytes(simple.ram.view)
    assert compiled.dirty_pages().tolist() == simple.dirty_pages().tolist()


def test_translated_code_under_a_transfer_is_dropped() -> None:
    cpu = Cpu(RAM_BYTES)
    cpu.set_segment("cs", 0, 0, 0xFFFF, 0x9B)
    results = []
    for number in (42, 77):
        code = bytes([0xB8, number, 0, 0xF4])  # mov ax, number; hlt
        cpu.scatter(spans_of([(0x1000 + n, 1) for n in range(4)]), code)
        cpu.set("rip", 0x1000)
        assert cpu.run(cpu.icount + 1000) == "hlt"
        results.append(cpu.get("rax"))
    assert results == [42, 77]
