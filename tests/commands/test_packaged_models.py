"""The commands with a packaged model, into whose folder they write nothing."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from jvae_jax import pretrained, style_controls
from jvae_jax.evaluation import factors
from jvae_jax.export import export
from jvae_jax.training.run import load_run


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def folder(finished):
    """The folder of the packaged models; the only one is the exported run."""
    run = load_run(finished / "run")
    model = replace(run.model, metrics={**run.model.metrics, "conditional_accuracy": 0.75})
    export(model, run, finished / "packaged" / "digits", onnx=False)
    return finished / "packaged"


@pytest.fixture
def packaged(folder, tmp_path, monkeypatch):
    """The packaged model, which no test may change, while the current folder is an empty one."""
    monkeypatch.setattr(pretrained, "PACKAGED", folder)
    monkeypatch.setattr(factors, "_TREES", 2)
    monkeypatch.setattr(style_controls, "_REQUESTS", 8)
    monkeypatch.setattr(style_controls, "MIN_R2", -np.inf)  # of a model that is hardly trained
    monkeypatch.chdir(tmp_path)
    before = files_of(folder / "digits")
    yield folder / "digits"
    assert files_of(folder / "digits") == before


def test_generate_uses_digits_by_default(call, packaged, tmp_path):
    status, _, err = call("generate")
    assert (status, err) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["samples.png"]
    for name, flag in {"a": "--model=digits", "b": f"--workdir={packaged}"}.items():
        status, _, err = call("generate", flag, f"--output={name}.png")
        assert (status, err) == (0, "")
        image = (tmp_path / f"{name}.png").read_bytes()
        assert image == (tmp_path / "samples.png").read_bytes()


def test_workdir_is_always_a_folder(call, packaged):
    del packaged
    message = "error: digits is not a run: it has no config.json\n"
    assert call("generate", "--workdir=digits") == (1, "", message)


def test_data_are_those_of_training(call, packaged, tmp_path):
    """Controls of the style are fitted for this image only."""
    del packaged
    status, out, err = call("generate", "--style_index=17", "--labels=3,8", "--slant=5")
    assert (status, err) == (0, "")
    assert "fitting the style controls to the training data\n" in out
    assert "1 x 2 characters in samples.png" in out
    assert [path.name for path in tmp_path.iterdir()] == ["samples.png"]


def test_evaluate_only_prints(call, packaged, tmp_path):
    expected = json.loads((packaged / "evaluation.json").read_text())
    status, out, err = call("evaluate", "--model=digits", "--disentanglement")
    assert (status, err) == (0, "")
    assert "\n1000 test images\n" in out
    assert re.search(rf"^accuracy +{expected['accuracy']:.4f} ", out, re.MULTILINE)
    assert re.search(r"^style_control_r2 +slant ", out, re.MULTILINE)
    assert "written" not in out
    assert not list(tmp_path.iterdir())


def test_export_copies_the_model(call, packaged, tmp_path):
    status, *_ = call("export", "--model=digits", "--output=mine")
    assert status == 0
    copied = files_of(tmp_path / "mine")
    for name, content in files_of(packaged).items():
        assert copied[name] == content or name == "README.md"  # ONNX may be added


def test_models_describes_the_packaged_models(call, packaged):
    evaluation = json.loads((packaged / "evaluation.json").read_text())
    status, out, err = call("models")
    assert (status, err) == (0, "")
    size = sum(map(len, files_of(packaged).values()))
    first, *facts = out.splitlines()
    assert first == f"digits: ours, {size / 1e6:.1f} MB in {packaged}"
    assert facts[:2] == [
        "training data: mnist_5k, 4,000 images of 10 classes (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)",
        "license of mnist_5k: CC BY-SA 3.0",
    ]
    metrics = [line.split()[:2] for line in facts[2:]]
    assert metrics == [
        ["mse", f"{evaluation['mse']:.4f}"],
        ["kl_z", f"{evaluation['kl_z']:.3f}"],
        ["accuracy", f"{evaluation['accuracy']:.4f}"],
        ["conditional_accuracy", "0.7500"],
    ]


@pytest.mark.fault(
    "flags",
    "unknown, mistyped or invalid value of a flag",
    "one line with the value and what is valid; exit status 2",
)
@pytest.mark.parametrize("name", ["evaluate", "explore", "export", "generate"])
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model=digit"], "error: unknown model 'digit'; packaged models: digits\n"),
        (["--model="], "error: unknown model ''; packaged models: digits\n"),
        (
            ["--model=digits", "--workdir=x"],
            "error: workdir x and model digits both select a model; give one of them\n",
        ),
    ],
)
def test_invalid_selection(call, packaged, tmp_path, name, flags, message):
    del packaged
    status, _, err = call(name, *flags, *(["--output=x"] if name == "export" else []))
    assert status == 2
    assert err.endswith(message)
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["evaluate", "export"])
def test_commands_that_need_a_model(call, packaged, name):
    del packaged
    status, _, err = call(name, *(["--output=x"] if name == "export" else []))
    assert status == 2
    message = "no model is given; add --workdir=FOLDER or --model=NAME (packaged models: digits)"
    assert err == f"error: {message}\n"
