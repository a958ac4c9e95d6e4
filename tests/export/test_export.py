"""Exported models are the run's, in whichever form they are loaded."""

import json
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import SMALL, make_dataset

import jvae_jax
from jvae_jax.export import onnx
from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.pretrained import TrainedModel
from jvae_jax.training.run import start_run
from jvae_jax.training.step import init_state


@pytest.fixture
def trained(reference):
    run, _ = reference
    return jvae_jax.load(run.workdir)


@pytest.fixture
def exported(trained, tmp_path):
    onnx.export(trained, tmp_path / "model", onnx=False)
    return tmp_path / "model"


def test_weights_come_back_bit_for_bit(trained, exported):
    again = jvae_jax.load(exported)
    assert again.model == trained.model
    assert jax.tree.structure(again.variables) == jax.tree.structure(dict(trained.variables))
    jax.tree.map(np.testing.assert_array_equal, again.variables, trained.variables)


def test_the_folder_tells_what_it_is(trained, exported):
    card = (exported / "README.md").read_text()
    evaluation = trained.run.evaluation()
    assert f"{evaluation['mse']:.4f}" in card
    assert trained.run.data.fingerprint in card
    assert "classes: a, b, c." in card
    assert "3 continuous" not in card
    assert "2 continuous latents" in card
    assert {path.name for path in exported.iterdir()} == {
        "README.md",
        "config.json",
        "evaluation.json",
        "model.safetensors",
    }
    assert len({path.stat().st_mode for path in exported.iterdir()}) == 1
    assert jvae_jax.load(exported).run.evaluation() == evaluation
    assert str(trained.run.workdir) not in (exported / "config.json").read_text()


def test_what_is_there_is_not_written_over(trained, exported):
    before = {path: path.read_bytes() for path in exported.iterdir()}
    with pytest.raises(ValueError, match="holds something already"):
        onnx.export(trained, exported, onnx=False)
    assert {path: path.read_bytes() for path in exported.iterdir()} == before
    with pytest.raises(ValueError, match="exported model; choose another --workdir"):
        start_run(replace(SMALL, workdir=str(exported)).resolve(make_dataset()), make_dataset())


def test_a_failure_leaves_nothing(trained, tmp_path, monkeypatch):
    def fail(*_args, **_options):
        raise OSError("No space left on device")

    monkeypatch.setattr(onnx, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        onnx.export(trained, tmp_path / "model", onnx=False)
    assert not list(tmp_path.iterdir())


def test_damage_is_told(exported):
    path = exported / "model.safetensors"
    whole = path.read_bytes()
    for damaged in (whole[:-10], b"", whole[:5]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"model.safetensors is damaged"):
            jvae_jax.load(exported)
    path.write_bytes(whole)
    config = exported / "config.json"
    contents = json.loads(config.read_text())
    contents["config"]["latents"] = 5
    config.write_text(json.dumps(contents))
    with pytest.raises(ValueError, match=r"is float32 of shape .* its config.json says"):
        jvae_jax.load(exported)


def test_neither_run_nor_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no run"):
        jvae_jax.load(tmp_path)


@pytest.mark.long
@pytest.mark.parametrize(
    ("classes", "conditional", "dtype"),
    [(3, False, None), (3, False, jnp.bfloat16), (3, True, None), (0, False, None)],
)
@pytest.mark.filterwarnings("ignore")
def test_onnx_computes_the_same(classes, conditional, dtype, without_jaxtyping, tmp_path, caplog):
    """For batches of any size, by another program."""
    del without_jaxtyping
    pytest.importorskip("jax2onnx", reason="jax2onnx isn't installed: pip install -e '.[export]'")
    from onnxruntime import InferenceSession

    model = Autoencoder((16, 8, 1), 2, classes, conditional)
    variables = init_state(model, optax.sgd(0.1), jax.random.key(0)).average
    run = SimpleNamespace(model=model.clone(dtype=dtype))
    onnx.write_onnx(TrainedModel(run=run, variables=variables), tmp_path)
    assert "onnx_ir" not in caplog.text
    encoder, decoder = (InferenceSession(tmp_path / name) for name in onnx.ONNX)
    for batch in (1, 7):
        images = np.random.default_rng(0).random((batch, 16, 8, 1), np.float32)
        found = dict(
            zip(
                [output.name for output in encoder.get_outputs()],
                encoder.run(None, {"images": images}),
                strict=True,
            )
        )
        expected = model.apply(variables, images, method="infer")
        np.testing.assert_allclose(found["mean"], expected.mean, atol=1e-5)
        np.testing.assert_allclose(found["logvar"], expected.logvar, atol=1e-5)
        latents = {"z": found["mean"]}
        if classes:
            shares = jax.nn.softmax(expected.logits)
            np.testing.assert_allclose(found["probabilities"], shares, atol=1e-5)
            latents["c"] = np.eye(3, dtype=np.float32)[np.arange(batch) % 3]
        (drawn,) = decoder.run(["images"], latents)
        joined = np.concatenate(list(latents.values()), axis=-1)
        logits = model.apply(variables, joined, method="decode")
        np.testing.assert_allclose(drawn, jax.nn.sigmoid(logits), atol=1e-5)
