"""Compile every stencil of one semantics module and print what LLVM made: a tool for those who
write semantics.

python -m workbench.core.check_stencils sem_int [op]
"""

from __future__ import annotations

import importlib
import sys

from workbench.core.lang import Module
from workbench.core.opcodes import ROWS
from workbench.core.optable import keys_of_rows
from workbench.core.stencil import OPS, emit_stencil


def main(name: str, only: str = "") -> None:
    """Compile the stencils of `workbench.core.NAME`; with `only`, print the assembly of that op."""
    import llvmlite.binding as llvm

    importlib.import_module(f"workbench.core.{name}")
    module = Module()
    keys = [k for k in keys_of_rows(ROWS) if not only or k.op == only]
    for key in keys:
        emit_stencil(module, key)
    while module.queue:
        module._compile_now(module.queue.pop())
    text = module.text()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    parsed = llvm.parse_assembly(text)
    parsed.verify()
    target = llvm.Target.from_default_triple().create_target_machine(
        opt=2, reloc="static", codemodel="small"
    )
    builder = llvm.create_pass_builder(target, llvm.create_pipeline_tuning_options(speed_level=2))
    builder.getModulePassManager().run(parsed, builder)
    assembly = target.emit_assembly(parsed)
    print(f"{len(OPS)} ops, {len(keys)} stencils, {len(assembly)} characters of assembly")
    if only:
        print(assembly)


if __name__ == "__main__":
    main(*sys.argv[1:])
