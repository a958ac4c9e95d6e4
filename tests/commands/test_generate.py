"""``jvae generate``: style transfer, interpolation, animation and styles by name; their metrics."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from jvae_jax import style_controls
from jvae_jax.commands.evaluate import main as evaluate
from jvae_jax.evaluation import factors
from jvae_jax.style_controls import FACTORS


@pytest.fixture
def generate(call, finished, monkeypatch):
    """Runs the command in the folder; returns its exit status, stdout and stderr."""

    def call_generate(*args):
        monkeypatch.chdir(finished)
        return call("generate", "--workdir=run", *args)

    return call_generate


def test_styles_from_images_and_interpolations(generate, finished, tmp_path):
    stroke = np.full((120, 90), 230, np.uint8)
    stroke[20:100, 40:50] = 30
    Image.fromarray(stroke).save(finished / "one.png")
    sizes = {}
    for name, args in {
        "one": ["--style_image=one.png"],
        "two": ["--style_image=one.png,one.png", "--labels=3,1"],
        "test": ["--style_index=17,3"],
        "labels": ["--style_index=17", "--interpolate=labels", "--labels=3,8"],
        "styles": ["--interpolate=styles", "--samples=4"],
    }.items():
        status, out, err = generate(*args, f"--output={tmp_path / name}.png")
        assert status == 0, err
        sizes[name] = re.search(r"(\d+ x \d+) characters", out).group(1)
    assert sizes == {
        "one": "1 x 10",
        "two": "2 x 2",
        "test": "2 x 10",
        "labels": "1 x 10",
        "styles": "10 x 7",
    }


def test_styles_by_name(generate, finished, tmp_path, monkeypatch):
    """Controls are fitted once, and kept beside the weights."""
    monkeypatch.setattr(style_controls, "_REQUESTS", 8)
    monkeypatch.setattr(style_controls, "MIN_R2", -np.inf)  # of a model that is hardly trained
    written, sizes = [], []
    for name, args in {
        "sample.png": ["--labels=3,8", "--slant=5", "--thickness=2.5", "--samples=4"],
        "restyle.png": ["--style_index=17,3", "--labels=3,8", "--width=9"],
        "sweep.png": ["--sweep=slant", "--labels=3,8,1", "--samples=5"],
        "sweep.gif": ["--sweep=slant", "--thickness=3", "--labels=3,8", "--samples=5"],
    }.items():
        status, out, err = generate(*args, f"--output={tmp_path / name}")
        assert status == 0, err
        written.append((finished / "run" / "style_controls.json").stat().st_mtime_ns)
        sizes.append(re.search(r"(\d+ x \d+) characters", out).group(1))
    assert len(set(written)) == 1
    assert sizes == ["2 x 4", "2 x 2", "3 x 5", "2 x 8"]
    with Image.open(tmp_path / "sweep.gif") as animation:
        assert animation.n_frames == 8  # there and back, without the ends twice


def test_disentanglement_is_added_to_the_evaluation(finished, monkeypatch, capsys):
    monkeypatch.chdir(finished)
    monkeypatch.setattr(factors, "_TREES", 2)
    monkeypatch.setattr(style_controls, "_REQUESTS", 8)
    path = finished / "run" / "evaluation.json"
    before = json.loads(path.read_text())
    with pytest.raises(SystemExit) as stop:
        evaluate(["--workdir=run", "--disentanglement"])
    assert stop.value.code == 0
    evaluation = json.loads(path.read_text())
    assert evaluation["mse"] == before["mse"]
    assert -1 < evaluation["dci_informativeness"] < 1
    assert np.shape(evaluation["factor_information"]["slant"]) == (3,)
    controls, *_ = json.loads((finished / "run" / "style_controls.json").read_text()).values()
    r2 = dict(zip(FACTORS, controls["r2"], strict=True))
    assert evaluation["style_control_r2"] == pytest.approx(r2, abs=1e-6)
    assert "factor_r2_within_classes" in capsys.readouterr().out


def test_animation_returns_to_first_style(generate, tmp_path):
    args = ["--interpolate=styles", "--labels=3,8", "--samples=4", f"--output={tmp_path / 'x.gif'}"]
    status, _, err = generate(*args)
    assert status == 0, err
    with Image.open(tmp_path / "x.gif") as animation:
        assert animation.n_frames == 9  # three transitions of three steps each
        assert animation.info["loop"] == 0


@pytest.mark.fault(
    "flags",
    "style, label or output that doesn't exist or doesn't fit the other flags",
    "one line; nothing is written",
)
@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--style_image=none.png"], 2, "none.png: No such file"),
        (["--style_image=blank.png"], 2, "blank.png: nothing is drawn on it"),
        (["--style_index=1000"], 2, "style_index must be 0 to 999, got 1000"),
        (["--style_index=x"], 2, "style_index must be numbers from 0, got 'x'"),
        (["--style_index=1", "--style_image=blank.png"], 2, "give one of them"),
        (
            ["--style_index=1", "--interpolate=styles"],
            2,
            "interpolating styles needs two or more, got 1",
        ),
        (
            ["--interpolate=labels", "--labels=3"],
            2,
            "interpolating labels needs two --labels or more, got 1",
        ),
        (["--interpolate=styles", "--samples=1"], 2, "must be 2 or more to interpolate, got 1"),
        (["--seed=-1"], 2, "seed must be from 0 to 4,294,967,295, got -1"),
        (["--seed=4294967296"], 2, "seed must be from 0 to 4,294,967,295, got 4294967296"),
        (["--style_index=1", "--samples=3"], 2, "samples has no effect on styles that are given"),
        (["--style_index=1", "--seed=3"], 2, "seed has no effect on styles that are given"),
        (["--output=x.gif"], 2, "an animation needs --interpolate or --sweep, got the output"),
        (["--output=x.bmp3"], 2, "'bmp3' is not supported"),
        (["--output=none/x.png"], 1, "there is no folder none"),
    ],
)
def test_rejects_invalid_flags(args, code, message, generate, finished):
    Image.new("L", (30, 30), 255).save(finished / "blank.png")
    before = {path for path in finished.rglob("*") if path.is_file()}
    status, _, err = generate(*args)
    assert status == code
    assert message in err
    assert err.count("\n") == 1
    assert {path for path in finished.rglob("*") if path.is_file()} == before
