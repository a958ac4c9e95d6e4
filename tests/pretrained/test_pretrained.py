"""Packaged models: found by name, part of the wheel, and with the metrics they are shipped with."""

import tomllib
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import jvae_jax
from jvae_jax import data, pretrained
from jvae_jax.evaluation import classifier
from jvae_jax.export import export
from jvae_jax.files import load_arrays
from jvae_jax.pretrained import packaged_models
from jvae_jax.style_controls import StyleControls
from jvae_jax.training.run import load_run

ROOT = Path(__file__).parents[2]
DATA_FIXTURES = {"mnist": "mnist_files", "hiragana73": "hiragana73_files"}


@pytest.fixture
def packaged(reference, tmp_path, monkeypatch):
    """The folder of a packaged model, bars, while the current folder is an empty one."""
    monkeypatch.setattr(pretrained, "PACKAGED", tmp_path / "packaged")
    (tmp_path / "packaged" / "__pycache__").mkdir(parents=True)
    (tmp_path / "user").mkdir()
    monkeypatch.chdir(tmp_path / "user")
    run, _ = reference
    matrix = np.zeros((3, 4))
    controls = StyleControls(
        weights=np.zeros((3, 4, 2)),
        intercepts=matrix,
        lowest=matrix,
        highest=matrix,
        r2=matrix[0],
        map_r2=matrix[0],
        quadratic=np.zeros((3, 4, 2, 2)),
    )
    model = replace(run.model, style_controls=controls)
    export(model, run, tmp_path / "packaged" / "bars", onnx=False)
    return tmp_path / "packaged" / "bars"


def test_name_is_the_packaged_model(packaged, reference):
    assert packaged_models() == {"bars": packaged}
    model = jvae_jax.load("bars")
    jax.tree.map(np.testing.assert_array_equal, model.variables, reference[0].model.variables)
    assert model.metrics == reference[0].evaluation()
    assert model.style_controls is not None


def test_path_is_a_folder(packaged, reference):
    """A folder has the name of a packaged model."""
    del packaged
    run, _ = reference
    Path("bars").mkdir()
    assert jvae_jax.load("bars").style_controls is not None
    for path in ("./bars", Path("bars")):
        with pytest.raises(FileNotFoundError, match="bars is not a run"):
            jvae_jax.load(path)
    export(run.model, run, Path("bars"), onnx=False)
    for path in ("./bars", Path("bars")):
        assert jvae_jax.load(path).style_controls is None


def test_unknown_name_lists_the_packaged_models(packaged):
    del packaged
    with pytest.raises(FileNotFoundError) as caught:
        jvae_jax.load("digit")
    message = "digit is not a run: it has no config.json; packaged models: bars"
    assert str(caught.value) == message


def test_wheel_contains_every_file(packaged):
    contents = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = contents["tool"]["setuptools"]["package-data"]["jvae_jax.pretrained"]
    names = sorted(f"bars/{path.name}" for path in packaged.iterdir())
    assert len(names) == 6
    assert [name for name in names if any(fnmatch(name, each) for each in patterns)] == names


def test_packaged_evaluation_classifier_is_of_this_version():
    """Another version of the classifier or of the fingerprint would leave it unused."""
    folder = pretrained.PACKAGED / "eval_classifiers"
    (path,) = folder.glob("*.safetensors")
    fingerprint, version = path.stem.split("_")
    assert len(fingerprint) == len(data.load("mnist_5k").fingerprint)
    assert int(version) == classifier._VERSION
    arrays = load_arrays(path)
    assert 0.99 < arrays.pop("accuracy") < 1
    network, images = classifier.Network(10), jnp.zeros((1, 32, 32, 1))
    shapes = jax.eval_shape(network.init, jax.random.key(0), images)
    expected = {name: leaf.shape for name, leaf in flatten_dict(shapes, sep="/").items()}
    assert {name: array.shape for name, array in arrays.items()} == expected
    contents = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = contents["tool"]["setuptools"]["package-data"]["jvae_jax.pretrained"]
    assert any(fnmatch(f"eval_classifiers/{path.name}", each) for each in patterns)


@pytest.mark.parametrize("name", packaged_models())
def test_packaged_model_loads(name):
    model = jvae_jax.load(name)
    characters = np.asarray(model.sample(key=jax.random.key(0), columns=1))
    assert len(characters) == len(model.class_names)
    assert np.isfinite(characters).all()
    if name == "digits":
        dataset = data.load("mnist_5k", image_size=model.network.image_shape[0])
        logits = model.encode(dataset.test_images).logits
        accuracy = np.mean(np.argmax(logits, axis=-1) == dataset.test_labels)
        assert accuracy > model.metrics["accuracy"] - 0.02


@pytest.mark.long
@pytest.mark.parametrize("name", packaged_models())
def test_packaged_model_has_its_metrics(name, request):
    run = load_run(packaged_models()[name])
    folder = request.getfixturevalue(DATA_FIXTURES[run.config.dataset])
    dataset = run.load_dataset(str(folder))
    run.check_data(dataset)
    metrics, expected = run.model.evaluate(dataset), run.evaluation()
    assert metrics["accuracy"] == pytest.approx(expected["accuracy"], abs=1e-3)
    for metric in ("mse", "kl_z"):
        assert metrics[metric] == pytest.approx(expected[metric], rel=1e-3)
