"""The report in a real Chromium: no error, no request, no script from a name; zoom, sort, theme."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from workbench.report import write_report
from workbench.trace import tables
from workbench.trace.header import End, Header
from workbench.trace.reader import open_trace
from workbench.trace.symbols import SymbolTable
from workbench.trace.writer import TraceWriter

pytest.importorskip("bokeh")
webdriver = pytest.importorskip("selenium.webdriver")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="there is no Chromium with its driver"),
]
EVIL = "</script><img src=x onerror='document.title=666'><script>document.title=667</script>"
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--window-size=1400,1000",
)  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of a run whose devices, functions, requests and file have hostile names."""
    folder = tmp_path_factory.mktemp("report")
    path = folder / "a<img src=x onerror=document.title=668>.wbt"
    header = Header(
        machine={"serial_ports": ["com1"]}, images=(), cmdline=EVIL, options={}, created=EVIL,
        host={},
    )  # fmt: skip
    writer = TraceWriter(path, header)
    writer.embed({}, header)
    events: list[Any] = [(tables.CONSOLE, 1, EVIL, b"Linux\nRun /init as init process\n")]
    for n in range(600):
        device = ("com1", EVIL, "ide0")[n % 3]
        events.append(
            (tables.ACCESS, 10 * n, n % 7, "pio", device, n % 8, 1, n % 2 == 0, n, 0x3F8, 1)
        )
    for n in range(20):
        event = (tables.REQUEST, 6000 + n, "ide0", n + 1)
        what = (EVIL if n % 2 else "READ DMA", -1, n, 512, False, -1, 1)
        events.append((*event, "begin", *what, "", ""))
        events.append((*event, "end", *what, "ok", ""))
    writer.append(events, 7000)
    writer.close(End(7000, 0, len(events), "limit", 0, EVIL, 0.0, ""))
    names = SymbolTable([(0, "T", EVIL), (3, "T", "main")])
    with open_trace(path) as trace:
        size = write_report(trace, folder / "report.html", names)
    assert size == (folder / "report.html").stat().st_size < 5_000_000
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with webdriver.Chrome(options=options, service=Service(DRIVER)) as driver:
        driver.get("data:text/html,")
        driver.get_log("performance")
        driver.get(page.as_uri())
        WebDriverWait(driver, 60).until(
            lambda d: d.execute_script("return document.documentElement.dataset.ready === 'yes'")
        )
        yield driver


def test_nothing_is_fetched_and_no_name_is_a_script(browser: Any) -> None:
    logged = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [
        message["params"]["request"]["url"]
        for message in logged
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert [url for url in urls if not url.startswith(("data:", "file:", "chrome:"))] == []
    assert sum(url.startswith("file:") for url in urls) <= 1
    problems = [e for e in browser.get_log("browser") if e["level"] in ("SEVERE", "WARNING")]
    assert problems == []
    assert browser.title.startswith("a<img src=x onerror=")
    assert browser.execute_script("return document.querySelectorAll('img[src=x]').length") == 0
    cells = browser.execute_script(
        "return [...document.querySelectorAll('td')].map((c) => c.textContent)"
    )
    assert EVIL in cells


def test_tables_are_sorted_and_filtered(browser: Any) -> None:
    table = "document.querySelectorAll('section')[1]"  # device, register, reads, writes, total
    column = f"return [...{table}.querySelectorAll('tbody tr')].map((r) => r.cells[4].textContent)"
    heads = browser.execute_script(f"return {table}.querySelectorAll('th button')")
    for descending in (True, False):
        browser.execute_script("arguments[0].click()", heads[4])
        numbers = [int(text.replace(",", "")) for text in browser.execute_script(column)]
        assert numbers == sorted(numbers, reverse=descending)
    box = browser.execute_script(f"return {table}.querySelector('input')")
    box.send_keys("ide0")
    shown = browser.execute_script(
        f"return [...{table}.querySelectorAll('tbody tr:not([hidden])')]"
        ".map((r) => r.cells[0].textContent)"
    )
    assert set(shown) == {"ide0"}


def test_theme(browser: Any) -> None:
    color = "return getComputedStyle(document.body).backgroundColor"
    figure = (
        "return [...Bokeh.documents[0].all_models].find((m) => m.type === 'Figure')"
        ".background_fill_color"
    )
    seen = []
    for theme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": theme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        browser.execute_async_script("requestAnimationFrame(() => arguments[0]())")
        seen.append((browser.execute_script(color), browser.execute_script(figure)))
    assert seen == [("rgb(255, 255, 255)", "#ffffff"), ("rgb(20, 23, 28)", "#14171c")]
    browser.find_element("id", "theme").click()
    assert browser.execute_script(figure) == "#ffffff"


def test_dragging_zooms_every_picture(browser: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ranges = (
        "return [...Bokeh.documents[0].all_models].filter((m) => m.name === 'time')"
        ".map((m) => [m.start, m.end])"
    )
    ((start, end),) = browser.execute_script(ranges)
    browser.execute_script("window.scrollTo(0, 0)")
    view = browser.execute_script(
        "const v = Object.values(Bokeh.index)[0] ?? [...Bokeh.index][0];"
        "return document.getElementById('pictures').getBoundingClientRect().top"
    )
    drag = ActionChains(browser).move_by_offset(500, int(view) + 120).click_and_hold()
    drag.move_by_offset(200, 0).release().perform()
    ((left, right),) = browser.execute_script(ranges)
    assert start < left < right < end
