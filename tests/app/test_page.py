"""The page in a real browser, at the sizes of a desktop and a phone."""

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import SMALL, encode_image, make_dataset, stroke_image

from jvae_jax import VAE, fit

SCRIPT = Path(__file__).parents[2] / "experiments" / "explore.py"
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


class Visit:
    """A browser page, with its errors and its requests to other servers."""

    def __init__(self, browser, url, size):
        width, height = size
        self.errors, self.external_requests, self.dialogs = [], [], []
        self.page = browser.new_page(viewport={"width": width, "height": height})
        self.page.set_default_timeout(TIMEOUT)
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self._on_request(request.url, url))
        self.page.on("dialog", self._on_dialog)
        self.page.goto(url)
        self.page.wait_for_selector("#sheet img")

    def _on_console(self, message):
        if message.type == "error":
            self.errors.append(message.text)

    def _on_request(self, url, own_url):
        if not url.startswith((own_url, "data:", "blob:")):
            self.external_requests.append(url)

    def _on_dialog(self, dialog):
        self.dialogs.append(dialog.message)
        dialog.dismiss()

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
    return serve(reference[0].workdir).url


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
    visit = Visit(browser, serve(run.workdir).url, SIZES["desktop"])
    visit.page.wait_for_selector("input[type=range]")  # Gradio adds components one by one
    assert visit.page.locator("input[type=range]").count() == 2
    assert visit.page.locator("#pad").count() == 0
    initial = visit.grid
    visit.page.get_by_role("button", name="Random").click()
    visit.wait_for_other_grid(initial)
    assert visit.errors == []


def test_upload_button(browser, url, tmp_path):
    visit = Visit(browser, url, SIZES["desktop"])
    page = visit.page

    def upload(content):
        path = tmp_path / "image.png"
        path.write_bytes(content)
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Upload").click()
        chooser.value.set_files(path)

    image = encode_image(stroke_image())
    upload(image.ljust(20 * 2**20 + 1, b"\0"))
    page.wait_for_selector("#trouble")
    assert "the file is larger than 20 MB" in page.locator("#trouble").inner_text()
    for _ in range(2):  # the same file again, too
        upload(image)
        page.wait_for_selector("#redrawn img")
        assert page.locator("#trouble").count() == 0
        page.get_by_role("button", name="Clear").click()
        page.wait_for_selector("#trouble")
    assert visit.errors == []


HTML_NAMES = (
    "<img src=x onerror=alert(1)>",
    "[link](javascript:alert(1)) **bold**",
    "${alert(1)} {{value}} &lt;b&gt;",
)
HTML_TITLE = "</title></script><script>alert(1)</script><b>data</b> [x](javascript:alert(1)) ${1+1}"


@pytest.mark.fault("page", "HTML and Markdown in names of classes and data", "shown as text")
def test_names_are_text(browser, serve, tmp_path):
    dataset = replace(make_dataset(name=HTML_TITLE), class_names=HTML_NAMES)
    run = fit(replace(SMALL, workdir=str(tmp_path / "html")), dataset)
    visit = Visit(browser, serve(run.workdir).url, SIZES["desktop"])
    visit.draw()
    visit.page.wait_for_selector("#redrawn img")
    visit.page.get_by_role("button", name="Classes").click()
    text = visit.page.locator("body").inner_text()
    assert visit.page.title() == f"ours, {HTML_TITLE}"
    assert HTML_TITLE in text
    for name in HTML_NAMES:
        assert visit.page.get_by_role("checkbox", name=name, exact=True).is_visible()
        assert name in visit.page.locator("#read").inner_text()
    for element in ("img[src=x]", "[href^=javascript]", "strong", "b"):
        assert visit.page.locator(element).count() == 0
    assert visit.dialogs == []
    assert visit.errors == []


def explore(reference, *flags):
    command = [sys.executable, str(SCRIPT), f"--workdir={reference[0].workdir}", *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


@pytest.mark.fault("page", "port in use", "error in one line")
def test_port_in_use(url, reference):
    port = url.rsplit(":", 1)[1]
    completed = explore(reference, f"--port={port}")
    assert completed.returncode == 1
    assert completed.stderr == f"error: port {port} isn't free at 127.0.0.1; choose another one\n"


@pytest.mark.fault("page", "address of another computer", "error in one line, at once")
@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-name.invalid"])
def test_address_of_another_computer(serve, reference, host):
    del serve  # skips without Gradio
    completed = explore(reference, f"--host={host}")
    assert completed.returncode == 1
    assert completed.stderr == f"error: {host} isn't an address of this computer\n"


@pytest.mark.fault("page", "port out of range", "error in one line")
def test_port_out_of_range(serve, reference):
    del serve
    completed = explore(reference, "--port=65536")
    assert completed.returncode == 2
    assert completed.stderr == "error: port must be between 1 and 65535, got 65536\n"
