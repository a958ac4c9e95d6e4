"""The page in a real browser, at the sizes of a desktop and a phone."""

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import SMALL, make_dataset

from jvae_jax import VAE, fit

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
BROWSER_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
TIMEOUT = 20_000
"""Milliseconds."""

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def browser():
    pytest.importorskip("gradio", reason="Gradio isn't installed: pip install -e '.[explore]'")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed")
    if CHROMIUM is None:
        pytest.skip("chromium isn't installed: apt install chromium")
    with playwright.sync_playwright() as session:
        yield session.chromium.launch(executable_path=CHROMIUM, args=BROWSER_FLAGS)


@pytest.fixture(scope="module")
def serve():
    """Serves a run's page with the script, and returns its URL."""
    processes = []

    def start(workdir):
        script = [sys.executable, str(ROOT / "experiments" / "explore.py"), f"--workdir={workdir}"]
        process = subprocess.Popen(
            script, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        processes.append(process)
        lines = []
        for line in process.stdout:
            lines.append(line)
            if match := re.search(r"http://127\.0\.0\.1:\d+", line):
                return match.group()
        raise AssertionError("".join(lines))

    yield start
    for process in processes:
        with process:  # closes its pipe
            process.terminate()


class Visit:
    """A browser page, with its errors and its requests to other servers."""

    def __init__(self, browser, url, size):
        width, height = size
        self.errors, self.external_requests = [], []
        self.page = browser.new_page(viewport={"width": width, "height": height})
        self.page.set_default_timeout(TIMEOUT)
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self._on_request(request.url, url))
        self.page.goto(url)
        self.page.wait_for_selector("#sheet img")

    def _on_console(self, message):
        if message.type == "error":
            self.errors.append(message.text)

    def _on_request(self, url, own_url):
        if not url.startswith((own_url, "data:", "blob:")):
            self.external_requests.append(url)

    @property
    def grid(self):
        return self.page.locator("#sheet img").get_attribute("src")

    def wait_for_other_grid(self, source):
        self.page.wait_for_function(
            "source => document.querySelector('#sheet img').src !== source", arg=source
        )

    def draw(self):
        """Draws a bar across the upper third of the pad."""
        canvas = self.page.locator("#pad canvas")
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        row = box["y"] + 0.3 * box["height"]
        self.page.mouse.move(box["x"] + 0.2 * box["width"], row)
        self.page.mouse.down()
        self.page.mouse.move(box["x"] + 0.8 * box["width"], row, steps=5)
        self.page.mouse.up()


@pytest.fixture(scope="module")
def url(serve, reference, browser):
    del browser  # skips before anything is served
    return serve(reference[0].workdir)


@pytest.mark.parametrize("size", SIZES)
def test_sliders_buttons_drawing_and_upload(browser, url, size, tmp_path):
    visit = Visit(browser, url, SIZES[size])
    page, initial = visit.page, visit.grid
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]

    page.locator("#z0 input[type=range]").evaluate(
        "slider => { slider.value = 2; slider.dispatchEvent(new Event('input', {bubbles: true})) }"
    )
    visit.wait_for_other_grid(initial)
    moved = visit.grid
    page.get_by_role("button", name="Random").click()
    visit.wait_for_other_grid(moved)
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

    invalid = tmp_path / "invalid.png"
    invalid.write_bytes(b"not an image")
    page.locator("input[type=file]").first.set_input_files(invalid)
    page.wait_for_function(
        "document.querySelector('#trouble').innerText.includes('not an image that Pillow can read')"
    )
    assert visit.errors == []
    assert visit.external_requests == []


def test_only_sliders_without_classes(browser, serve, tmp_path):
    config = replace(SMALL, objective=VAE(), epochs=1, workdir=str(tmp_path / "vae"))
    run = fit(config, make_dataset())
    visit = Visit(browser, serve(run.workdir), SIZES["desktop"])
    assert visit.page.locator("#pad").count() == 0
    assert visit.page.locator("input[type=range]").count() == 2
    initial = visit.grid
    visit.page.get_by_role("button", name="Random").click()
    visit.wait_for_other_grid(initial)
    assert visit.errors == []


def test_port_in_use(url, reference):
    port = url.rsplit(":", 1)[1]
    script = [sys.executable, str(ROOT / "experiments" / "explore.py")]
    flags = [f"--workdir={reference[0].workdir}", f"--port={port}"]
    completed = subprocess.run([*script, *flags], capture_output=True, text=True, check=False)
    assert completed.returncode == 1
    assert completed.stderr == f"error: port {port} isn't free at 127.0.0.1; choose another one\n"
