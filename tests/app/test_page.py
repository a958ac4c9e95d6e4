"""The page, as a visitor has it: in a real browser, at the sizes of a desk and of a phone."""

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import SMALL, make_dataset

from jvae_jax import fit

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
PATIENCE = 20_000  # milliseconds

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def browser():
    pytest.importorskip("gradio", reason="Gradio isn't installed: pip install -e '.[explore]'")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed")
    if CHROMIUM is None:
        pytest.skip("there is no chromium here: apt install chromium")
    with playwright.sync_playwright() as session:
        yield session.chromium.launch(executable_path=CHROMIUM, args=QUIET)


@pytest.fixture(scope="module")
def serve():
    """Serves a run's page by the script, as a user does."""
    started = []

    def at(workdir):
        script = [sys.executable, str(ROOT / "experiments" / "explore.py"), f"--workdir={workdir}"]
        process = subprocess.Popen(
            script, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        started.append(process)
        said = []
        for line in process.stdout:
            said.append(line)
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                return found.group()
        raise AssertionError("".join(said))

    yield at
    for process in started:
        with process:  # which closes its pipe too
            process.terminate()


class Visit:
    """A page and what a visitor does there; what went wrong is kept."""

    def __init__(self, browser, address, size):
        width, height = size
        self.errors, self.elsewhere = [], []
        self.page = browser.new_page(viewport={"width": width, "height": height})
        self.page.set_default_timeout(PATIENCE)
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self._follow(request.url, address))
        self.page.goto(address)
        self.page.wait_for_selector("#sheet img")

    def _hear(self, message):
        if message.type == "error":
            self.errors.append(message.text)

    def _follow(self, url, address):
        if not url.startswith((address, "data:", "blob:")):
            self.elsewhere.append(url)

    @property
    def sheet(self):
        return self.page.locator("#sheet img").get_attribute("src")

    def until_sheet_is_not(self, source):
        self.page.wait_for_function(
            "source => document.querySelector('#sheet img').src !== source", arg=source
        )

    def draw(self):
        """A bar across the upper third."""
        paper = self.page.locator("#pad canvas")
        paper.scroll_into_view_if_needed()
        box = paper.bounding_box()
        row = box["y"] + 0.3 * box["height"]
        self.page.mouse.move(box["x"] + 0.2 * box["width"], row)
        self.page.mouse.down()
        self.page.mouse.move(box["x"] + 0.8 * box["width"], row, steps=5)
        self.page.mouse.up()


@pytest.fixture(scope="module")
def address(serve, reference, browser):
    del browser  # which skips before anything is served
    return serve(reference[0].workdir)


@pytest.mark.parametrize("size", SIZES)
def test_a_visit(browser, address, size, tmp_path):
    visit = Visit(browser, address, SIZES[size])
    page, first = visit.page, visit.sheet
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]

    page.locator("#z0 input[type=range]").evaluate(
        "slider => { slider.value = 2; slider.dispatchEvent(new Event('input', {bubbles: true})) }"
    )
    visit.until_sheet_is_not(first)
    moved = visit.sheet
    page.get_by_role("button", name="Random").click()
    visit.until_sheet_is_not(moved)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save PNG").click()
    assert download.value.suggested_filename == "characters.png"
    assert Path(download.value.path()).read_bytes().startswith(b"\x89PNG")
    page.get_by_role("button", name="Reset").first.click()
    page.wait_for_function("document.querySelector('#z0 input[type=number]').value == 0")

    visit.draw()
    page.wait_for_selector("#read")
    assert set(re.findall(r"^[abc]$", page.locator("#read").inner_text(), re.M)) == {*"abc"}
    assert page.locator("#redrawn img").is_visible()

    page.get_by_role("button", name="Clear").click()
    page.wait_for_selector("#trouble")
    assert "nothing is drawn" in page.locator("#trouble").inner_text()
    assert page.locator("#read").count() == 0

    false = tmp_path / "false.png"
    false.write_bytes(b"not a picture")
    page.locator("input[type=file]").first.set_input_files(false)
    page.wait_for_function(
        "document.querySelector('#trouble').innerText.includes('no picture that Pillow reads')"
    )
    assert visit.errors == []
    assert visit.elsewhere == []


def test_without_classes_there_are_only_sliders(browser, serve, tmp_path):
    config = replace(SMALL, objective="vae", epochs=1, workdir=str(tmp_path / "vae"))
    run = fit(config, make_dataset(), say=lambda _: None)
    visit = Visit(browser, serve(run.workdir), SIZES["desktop"])
    assert visit.page.locator("#pad").count() == 0
    assert visit.page.locator("input[type=range]").count() == 2
    first = visit.sheet
    visit.page.get_by_role("button", name="Random").click()
    visit.until_sheet_is_not(first)
    assert visit.errors == []


def test_the_port_is_taken(address, reference):
    port = address.rsplit(":", 1)[1]
    script = [sys.executable, str(ROOT / "experiments" / "explore.py")]
    flags = [f"--workdir={reference[0].workdir}", f"--port={port}"]
    done = subprocess.run([*script, *flags], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"error: port {port} isn't free at 127.0.0.1; choose another one\n"
