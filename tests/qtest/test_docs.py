"""The example in docs/qtest.md runs."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_example():
    text = (ROOT / "docs" / "qtest.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    subprocess.run([sys.executable, "-c", block], check=True, cwd=ROOT, timeout=60)
