"""Machine code of the system tests: assembler text, with the bytes kept beside it.

The bytes are in system_code.json, by a hash of the text, so that the tests need no assembler.  With
WORKBENCH_ASSEMBLE=1 and keystone installed new texts are added.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from pathlib import Path

STORE = Path(__file__).with_name("system_code.json")
_codes: dict[str, str] = json.loads(STORE.read_text()) if STORE.exists() else {}


def assemble(text: str, bits: int = 64, at: int = 0) -> bytes:
    """The bytes of `text` (Intel syntax, lines or semicolons) placed at `at`."""
    text = "\n".join(line.split("#")[0].strip() for line in text.splitlines()).strip()
    key = hashlib.sha256(f"{bits} {at:x} {text}".encode()).hexdigest()[:16]
    if key not in _codes:
        if not os.environ.get("WORKBENCH_ASSEMBLE"):
            raise KeyError(f"no stored code for {text!r}; run with WORKBENCH_ASSEMBLE=1")
        keystone = importlib.import_module("keystone")
        modes = {16: keystone.KS_MODE_16, 32: keystone.KS_MODE_32, 64: keystone.KS_MODE_64}
        engine = keystone.Ks(keystone.KS_ARCH_X86, modes[bits])
        try:
            code, _ = engine.asm(text, at, as_bytes=True)
        except keystone.KsError as err:
            raise ValueError(f"{err}: {text}") from err
        _codes[key] = bytes(code).hex()
        STORE.write_text(json.dumps(dict(sorted(_codes.items())), indent=0) + "\n")
    return bytes.fromhex(_codes[key])
