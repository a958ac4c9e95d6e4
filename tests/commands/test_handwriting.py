"""The commands hand, write and font, and hands in generate, with the packaged digits."""

import io
import json
import os

import numpy as np
import pytest
from fontTools.ttLib import TTFont
from PIL import Image

import jvae_jax
from jvae_jax import data
from jvae_jax.models.inference import to_pixels


@pytest.fixture
def user(tmp_path, monkeypatch):
    """The current folder, with a sheet of five digits and a hand."""
    monkeypatch.chdir(tmp_path)
    digits = data.load("mnist_5k").test_images[[0, 101, 202, 303, 404], ..., 0]
    sheet = np.pad(np.concatenate(list(digits), axis=1), 8)
    Image.fromarray(255 - sheet).resize((176 * 4, 48 * 4)).save("sheet.png")
    contents = {"model": "ours, mnist", "z": [0.0] * 10, "standard_deviation": [0.3] * 10}
    (tmp_path / "me.hand.json").write_text(json.dumps(contents))
    return tmp_path


def pixels_of(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGBA"))


def test_hand_of_a_sheet(user, call):
    """Its five digits are found; each is drawn again in the hand for comparison."""
    code, out, _ = call("hand", "--style_image=sheet.png", "--output=new.hand.json")
    assert code == 0
    assert "found 5 characters, read as" in out
    contents = json.loads((user / "new.hand.json").read_text())
    assert contents["pictures"] == 5
    assert len(contents["z"]) == 10
    with Image.open(user / "new.hand.png") as preview:
        assert preview.width > preview.height > 100


def test_writes_a_text(user, call):
    code, out, _ = call("write", r"20 4\n1983", "--hand=me.hand.json", "--size=32")
    assert (code, out.strip()) == (0, "7 characters in text.png")
    pixels = pixels_of(user / "text.png").min(axis=-1)
    rows = np.flatnonzero(np.diff(np.r_[0, (pixels < 128).any(axis=1), 0]))
    assert len(rows) == 4  # two lines of ink
    assert pixels[0, 0] == 255


def test_size_and_transparency(user, call):
    for size in (32, 64):
        call("write", "8", "--hand=me.hand.json", f"--size={size}", f"--output={size}.png")
    small, large = (pixels_of(user / f"{size}.png") for size in (32, 64))
    np.testing.assert_allclose(large.shape[:2], 2 * np.array(small.shape[:2]), atol=1)
    call("write", "8", "--hand=me.hand.json", "--transparent", "--output=clear.png")
    clear = pixels_of(user / "clear.png")
    assert clear[0, 0, 3] == 0
    assert clear[..., 3].max() == 255


@pytest.mark.parametrize(("suffix", "start"), [("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_vector_formats_hold_curves_and_no_image(suffix, start, user, call):
    code, _, _ = call("write", "42", "--hand=me.hand.json", f"--output=x.{suffix}")
    content = (user / f"x.{suffix}").read_bytes()
    assert code == 0
    assert content.startswith(start)
    assert b"<image" not in content
    assert b"/Subtype /Image" not in content


def test_sampled_hands_differ_by_seed(user, call):
    for seed in (0, 1):
        call("write", "123", f"--seed={seed}", f"--output={seed}.png")
    assert (user / "0.png").read_bytes() != (user / "1.png").read_bytes()


def test_makes_a_font(user, call):
    code, out, _ = call("font", "--hand=me.hand.json", "--output=Me.ttf", "--characters=0==")
    assert code == 0
    content = (user / "Me.ttf").read_bytes()
    assert f"a font of {len(content):,} bytes in Me.ttf" in out
    ttf = TTFont(io.BytesIO(content))
    assert set(map(chr, ttf.getBestCmap())) == {*"123456789=", " ", "\u00a0"}
    assert ttf["name"].getBestFamilyName() == "Me"


def test_generates_in_hands(user, call):
    """A row for each hand, in whose mean style the characters are."""
    code, out, _ = call("generate", "--hand=me.hand.json,me.hand.json", "--labels=3,8")
    assert (code, out.strip()) == (0, "2 x 2 characters in samples.png")
    model = jvae_jax.load("digits")
    expected = 255 - to_pixels(np.asarray(model.decode(np.zeros((1, 10), np.float32), "3")))
    shown = pixels_of(user / "samples.png")[..., 0]
    cell = np.asarray(
        Image.fromarray(shown[: len(shown) // 2, : shown.shape[1] // 2]).resize((32, 32))
    )
    assert np.corrcoef(cell.ravel(), expected.ravel())[0, 1] > 0.98


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("write", "12", "--hand=none.json"), "there is no hand none.json; `jvae hand` makes one"),
        (("write", "12", "--hand=sheet.png"), "sheet.png isn't a hand: it isn't a JSON file"),
        (("write", "1", "--hand=x", "--style_image=y"), "hand and style_image both select styles"),
        (("generate", "--hand=x", "--style_index=1"), "hand and style_index both select styles"),
        (("generate", "--hand=me.hand.json", "--seed=1"), "seed has no effect on styles"),
        (("write", ""), "the text is empty"),
        (("write", "12a"), "ours, mnist has no a; it writes 0 1 2 3 4 5 6 7 8 9"),
        (("write", "1", "--size=0"), "size must be from 4 to 4096 pixels, got 0.0"),
        (("write", "1", "--variation=-1"), "variation must be from 0 to 5, got -1.0"),
        (("write", "1", "--output=x.docx"), "output x.docx: 'docx' is not supported"),
        (("write", "1", "--output="), "output must be the path of a file, got ''"),
        (("write", "1", "--style_image=blank.png"), "blank.png: nothing is drawn on it"),
        (("hand", "--style_image=blank.png"), "blank.png: nothing is drawn on it"),
        (("hand", "--style_image=none.png"), "none.png: "),
        (("hand",), "the following arguments are required: --style_image"),
        (("hand", "--style_image=sheet.png", "--output="), "output must be the path of a file"),
        (("hand", "--style_image=sheet.png", "--preview=x.exe"), "'exe' is not supported"),
        (("font", "--output=Me.otf"), "output must end with .ttf or .woff2, got Me.otf"),
        (("font", "--output=Me"), "output must end with .ttf or .woff2, got Me"),
        (("font", "--characters=0=a,0=b"), "characters maps class 0 twice"),
        (("hand", "--style_image=sheet.png", "--output=sheet.json"), "would replace a picture"),
        (("hand", "--style_image=sheet.png,"), "must be files separated by commas"),
        (("write", "1", "--style_image="), "must be files separated by commas, got ''"),
        (("write", "1", "--hand="), "hand must be the path of a file, got ''"),
        (("write", r"12\n" * 99, "--size=4096"), "pixels, at most 200,000,000 are supported"),
        (("font", "--characters=zero"), "characters must be as CLASS=CHARACTER, got 'zero'"),
        (("font", "--characters=zero=0"), "there is no class zero"),
        (("font", "--alternates=0"), "alternates must be from 1 to 20, got 0"),
    ],
)
@pytest.mark.fault(
    "hands", "flags, texts and pictures that can't be used", "refused; nothing is written"
)
def test_rejects(command, message, user, call):
    Image.new("L", (64, 64), 255).save(user / "blank.png")
    before = sorted(user.iterdir())
    code, _, err = call(*command)
    assert code in (1, 2)
    assert message in err
    assert err.count("\n") == 1
    assert sorted(user.iterdir()) == before


@pytest.mark.parametrize(
    "command", [("write", "1"), ("font",), ("hand", "--style_image=sheet.png")], ids=lambda c: c[0]
)
@pytest.mark.fault("hands", "output that is a link, FIFO or device", "refused; it is unchanged")
def test_replaces_regular_files_only(command, user, call):
    suffix = {"write": ".png", "font": ".ttf", "hand": ".json"}[command[0]]
    (user / "mine").write_text("mine")
    (user / f"link{suffix}").symlink_to("mine")
    os.mkfifo(user / f"fifo{suffix}")
    for name, kind in (("link", "a symbolic link"), ("fifo", "not a regular file")):
        code, _, err = call(*command, f"--output={name}{suffix}")
        assert code != 0
        assert f"{name}{suffix} is {kind}" in err
    assert (user / "mine").read_text() == "mine"
    assert "there is no folder none" in call(*command, f"--output=none/x{suffix}")[2]
