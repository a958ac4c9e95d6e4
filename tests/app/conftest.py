"""A browser, and pages in it."""

import shutil

import pytest

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


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed")
    if CHROMIUM is None:
        pytest.skip("chromium isn't installed: apt install chromium")
    with playwright.sync_playwright() as session:
        yield session.chromium.launch(executable_path=CHROMIUM, args=BROWSER_FLAGS)


class Visit:
    """A browser page, with its errors, dialogs and requests."""

    def __init__(self, browser, url, size="desktop", **context):
        width, height = SIZES[size]
        self.errors, self.requests, self.dialogs = [], [], []
        viewport = {"width": width, "height": height}
        self.page = browser.new_context(viewport=viewport, **context).new_page()
        self.page.set_default_timeout(TIMEOUT)
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("dialog", self._on_dialog)
        self.page.goto(url)
        self.page.wait_for_function("() => layouts.sheet !== undefined")

    def _on_console(self, message):
        if message.type == "error":
            self.errors.append(message.text)

    def _on_dialog(self, dialog):
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def state(self):
        """The style, as the page holds it."""
        return self.page.evaluate("({z: [...style.z], factors: {...style.factors}})")

    def set(self, selector, value):
        """Moves a slider."""
        self.page.locator(selector).evaluate(
            "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')) }",
            value,
        )

    def draw(self, *strokes):
        """Draws lines on the pad, between points in [0, 1]; by default, a bar."""
        box = self.page.locator("#pad").bounding_box()
        for points in strokes or [[(0.2, 0.3), (0.8, 0.3)]]:
            places = [
                (box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points
            ]
            self.page.mouse.move(*places[0])
            self.page.mouse.down()
            for place in places[1:]:
                self.page.mouse.move(*place, steps=5)
            self.page.mouse.up()

    def choose(self, button, file):
        """Chooses a file after a click on a button."""
        with self.page.expect_file_chooser() as chooser:
            self.page.get_by_role("button", name=button).click()
        chooser.value.set_files(file)

    def download(self, button):
        """The path of the file that a button saves, and its name."""
        with self.page.expect_download() as download:
            self.page.get_by_role("button", name=button, exact=True).click()
        return download.value.path(), download.value.suggested_filename


@pytest.fixture
def visit(browser, tmp_path):
    """Opens the page of a model from a file; no visit may leave an error or leave the page."""
    from jvae_jax.app import build_page

    visits = []

    def open_page(model, size="desktop", fragment="", **context):
        path = tmp_path / f"page-{len(visits)}.html"
        path.write_text(build_page(model), encoding="utf-8")
        visits.append(Visit(browser, path.as_uri() + fragment, size, **context))
        return visits[-1]

    yield open_page
    for each in visits:
        assert each.errors == []
        assert each.dialogs == []
        others = [url for url in each.requests if not url.startswith(("data:", "blob:"))]
        assert {url.partition("#")[0] for url in others} == {each.page.url.partition("#")[0]}
        each.page.context.close()
