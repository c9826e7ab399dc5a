"""What `export --speedscope` writes is what speedscope's own schema describes, and opens in it."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from workbench import cache
from workbench.trace import stacks
from workbench.trace.export.flame import write_speedscope
from workbench.trace.reader import open_trace
from workbench.trace.symbols import SymbolTable

ROOT = Path(__file__).parents[2]
VERSION = "1.25.0"
EVIL = "</script><img src=x onerror='document.title=666'>"


@pytest.fixture(scope="module")
def speedscope() -> Path:
    """The npm package, unpacked; fetched once."""
    folder = cache.folder() / f"speedscope-{VERSION}"
    if not (folder / "package").is_dir():
        if shutil.which("npm") is None:
            pytest.skip("there is no npm")
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "pack", "--silent", f"speedscope@{VERSION}"]
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=120, check=False)
        if done.returncode:
            pytest.skip("npm cannot fetch speedscope")
        with tarfile.open(folder / f"speedscope-{VERSION}.tgz") as archive:
            archive.extractall(folder, filter="data")
    return folder / "package" / "dist" / "release"


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("speedscope") / "profile.json"
    with open_trace(ROOT / "traces" / "v1-demo.wbt") as trace:
        pcs = sorted(set(trace.accesses["pc"].to_pylist()))
        names = SymbolTable([(pcs[0], "t", "main"), (pcs[len(pcs) // 2], "t", EVIL)])
        found = stacks.Stacks(chains=[(pcs[-1], pcs[0]), (pcs[0],)])
        found.of_access.extend(n % 3 % 2 for n in range(trace.rows("accesses")))
        with path.open("wb") as file:
            assert write_speedscope(trace, found, names, file)
    return path


def test_its_schema(speedscope: Path, profile: Path) -> None:
    jsonschema: Any = pytest.importorskip("jsonschema")
    schema = json.loads((speedscope / "file-format-schema.json").read_text(encoding="utf-8"))
    document = json.loads(profile.read_text(encoding="utf-8"))
    jsonschema.validate(document, schema)
    document["profiles"][0]["weights"] = "none"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema)


@pytest.mark.slow
def test_it_opens(speedscope: Path, profile: Path, tmp_path: Path) -> None:
    """As speedscope's own command gives a file to its page."""
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.support.ui import WebDriverWait

    chromium, driver_path = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver_path):
        pytest.skip("there is no Chromium with its driver")
    script = tmp_path / "profile.js"
    data = base64.b64encode(profile.read_bytes()).decode()
    script.write_text(f'speedscope.loadFileFromBase64("boot.json", "{data}")', encoding="utf-8")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    arguments = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run")
    for option in (*arguments, f"--user-data-dir={tmp_path / 'chromium'}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options=options, service=Service(driver_path)) as driver:
        driver.get(f"{(speedscope / 'index.html').as_uri()}#localProfilePath={script}")
        WebDriverWait(driver, 30).until(lambda d: "device accesses" in d.title)
        page = driver.find_element("tag name", "body").text
        assert "Left Heavy" in page
        assert "666" not in driver.title
        assert [e for e in driver.get_log("browser") if "Uncaught" in e["message"]] == []
