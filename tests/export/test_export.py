"""Exported models equal the model of the run, as safetensors and as ONNX."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import SMALL, make_dataset

import jvae_jax
from jvae_jax import TrainedModel
from jvae_jax.export import export, export_onnx, folder
from jvae_jax.export.model_card import model_card
from jvae_jax.export.onnx import DECODER, ENCODER
from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.training.run import open_run
from jvae_jax.training.step import init_state


@pytest.fixture
def run(reference):
    return reference[0]


@pytest.fixture
def exported(run, tmp_path):
    export(run.model, run, tmp_path / "model", onnx=False)
    return tmp_path / "model"


def test_weights_are_bit_identical(run, exported):
    loaded = jvae_jax.load(exported)
    assert loaded.network == run.model.network
    assert jax.tree.structure(loaded.variables) == jax.tree.structure(dict(run.model.variables))
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, run.model.variables)


def test_folder_has_model_card_evaluation_and_no_local_paths(run, exported):
    card = (exported / "README.md").read_text()
    evaluation = run.evaluation()
    assert f"{evaluation['mse']:.4f}" in card
    assert run.data.fingerprint in card
    assert "classes: a, b, c." in card
    assert "3 continuous" not in card
    assert "2 continuous latents" in card
    assert {path.name for path in exported.iterdir()} == {
        "README.md",
        "config.json",
        "evaluation.json",
        "model.safetensors",
        "samples.png",
    }
    assert len({path.stat().st_mode for path in exported.iterdir()}) == 1
    assert jvae_jax.load(exported).metrics == evaluation
    assert str(run.workdir) not in (exported / "config.json").read_text()
    assert "in place of the paper's values" not in card
    assert "binarized" not in card


def test_model_card_names_settings_that_are_not_the_papers(run):
    objective = replace(run.config.objective, gamma=7.0, penalty="multiplier")
    other = replace(run, config=replace(run.config, objective=objective, binarize=True))
    card = model_card(run.model, other, {})
    assert "with `penalty=multiplier`, `gamma=7.0` in place of the paper's values" in card
    assert "statically binarized. Fingerprint" in card


def test_sources_are_named_without_their_paths(run, tmp_path):
    sources = {
        name: str(tmp_path / "private" / name) for name in ("init_from", "pseudo_labels_from")
    }
    config = replace(run.config, **sources)
    few_labels = replace(run.data, labels_per_class=(1, 1, 1))
    source = replace(run, config=config, data=few_labels)
    export(run.model, source, tmp_path / "model", onnx=False)
    card = (tmp_path / "model" / "README.md").read_text()
    assert "weights of ./init_from, with pseudo-labels by ./pseudo_labels_from. 2 cont" in card
    written = json.loads((tmp_path / "model" / "config.json").read_text())["config"]
    assert {name: written[name] for name in sources} == {name: f"./{name}" for name in sources}
    config = replace(run.config, label_propagation=True)
    cards = [
        model_card(run.model, replace(run, config=config, data=data), {})
        for data in (few_labels, run.data)
    ]
    assert [", with pseudo-labels by label propagation. 2 cont" in card for card in cards] == [
        True,
        False,
    ]


def test_usage_of_model_card_runs(exported, monkeypatch):
    (code,) = (exported / "README.md").read_text().split("```python\n")[1:]
    monkeypatch.chdir(exported)
    names = {}
    exec(code.partition("```")[0], names)
    assert names["grid"].shape == (3, 10, 8, 8, 1)


def test_existing_folder_is_not_overwritten(run, exported):
    before = {path: path.read_bytes() for path in exported.iterdir()}
    with pytest.raises(ValueError, match="already exists and isn't empty"):
        export(run.model, run, exported, onnx=False)
    assert {path: path.read_bytes() for path in exported.iterdir()} == before
    with pytest.raises(ValueError, match="exported model; choose another --workdir"):
        open_run(replace(SMALL, workdir=str(exported)).resolve(make_dataset()), make_dataset())


def test_failed_export_leaves_no_files(run, tmp_path, monkeypatch):
    def fail(*_args, **_options):
        raise OSError("No space left on device")

    monkeypatch.setattr(folder, "save_arrays", fail)
    with pytest.raises(OSError, match="No space left"):
        export(run.model, run, tmp_path / "model", onnx=False)
    assert not list(tmp_path.iterdir())


def test_damaged_files_are_rejected(exported):
    path = exported / "model.safetensors"
    intact = path.read_bytes()
    flipped = intact[:-1] + bytes([intact[-1] ^ 1])
    for damaged in (intact[:-10], b"", intact[:5], flipped):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"model.safetensors is damaged"):
            jvae_jax.load(exported)
    path.write_bytes(intact)
    config = exported / "config.json"
    contents = json.loads(config.read_text())
    contents["config"]["latents"] = 5
    config.write_text(json.dumps(contents))
    with pytest.raises(ValueError, match=r"is float32 of shape .* config.json requires"):
        jvae_jax.load(exported)


def test_folder_without_run_or_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a run"):
        jvae_jax.load(tmp_path)


@pytest.mark.long
@pytest.mark.parametrize(
    ("classes", "conditional", "dtype"),
    [(3, False, None), (3, False, jnp.bfloat16), (3, True, None), (0, False, None)],
)
@pytest.mark.filterwarnings("ignore")
def test_onnx_matches_jax(classes, conditional, dtype, without_jaxtyping, tmp_path, caplog):
    del without_jaxtyping
    pytest.importorskip("jax2onnx", reason="jax2onnx isn't installed: pip install -e '.[export]'")
    from onnxruntime import InferenceSession

    network = Autoencoder((16, 8, 1), 2, classes, conditional)
    variables = init_state(network, optax.sgd(0.1), jax.random.key(0)).average
    # Outputs of initial weights are so small that softmax and sigmoid would be almost linear.
    variables = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf * (20 if "logits" in jax.tree_util.keystr(path) else 2), variables
    )
    class_names = tuple("abc")
    export_onnx(
        TrainedModel(
            network=network.clone(dtype=dtype), variables=variables, class_names=class_names
        ),
        tmp_path,
    )
    assert "onnx_ir" not in caplog.text
    encoder, decoder = (InferenceSession(tmp_path / name) for name in (ENCODER, DECODER))
    for batch in (1, 7):
        images = np.random.default_rng(0).random((batch, 16, 8, 1), np.float32)
        outputs = dict(
            zip(
                [output.name for output in encoder.get_outputs()],
                encoder.run(None, {"images": images}),
                strict=True,
            )
        )
        expected = network.apply(variables, images, method="infer")
        np.testing.assert_allclose(outputs["mean"], expected.mean, atol=1e-5)
        np.testing.assert_allclose(outputs["logvar"], expected.logvar, atol=1e-5)
        latents = {"z": outputs["mean"]}
        if classes:
            probabilities = jax.nn.softmax(expected.logits)
            np.testing.assert_allclose(outputs["probabilities"], probabilities, atol=1e-5)
            assert np.ptp(probabilities) > 0.5
            latents["c"] = np.eye(3, dtype=np.float32)[np.arange(batch) % 3]
        (generated,) = decoder.run(["images"], latents)
        joined = np.concatenate(list(latents.values()), axis=-1)
        logits = network.apply(variables, joined, method="decode")
        np.testing.assert_allclose(generated, jax.nn.sigmoid(logits), atol=1e-5)
        assert np.ptp(generated) > 0.5
