"""Networks in bfloat16; parameters, statistics and losses in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jvae_jax import data
from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.training.config import TrainConfig
from jvae_jax.training.loop import fit


@pytest.mark.parametrize("conditional", [False, True])
def test_bfloat16_network_has_float32_parameters_and_outputs(conditional):
    """Outputs and gradients are close to those of float32."""
    model = Autoencoder((8, 8, 1), latents=4, classes=3, conditional=conditional)
    images = jax.random.uniform(jax.random.key(1), (16, 8, 8, 1))
    bfloat16_model = model.clone(dtype=jnp.bfloat16, train=True)
    variables = jax.jit(bfloat16_model.init)(jax.random.key(0), images)
    float32_variables = jax.jit(model.init)(jax.random.key(0), images)
    jax.tree.map(np.testing.assert_array_equal, variables, float32_variables)

    def loss(params, model):
        logits, updates = model.apply(
            {**variables, "params": params}, images, mutable=["batch_stats"]
        )
        return jnp.mean((logits - images) ** 2), (logits, updates)

    loss_and_gradient = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=1)
    results = [
        loss_and_gradient(variables["params"], each)
        for each in (bfloat16_model, model.clone(train=True))
    ]
    assert {leaf.dtype for leaf in jax.tree.leaves(results)} == {jnp.dtype("float32")}
    (_, (rounded, _)), (_, (logits, _)) = results[0][0], results[1][0]
    assert not np.array_equal(rounded, logits)
    assert np.linalg.norm(rounded - logits) < 0.05 * np.linalg.norm(logits)
    gradients = [
        jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(gradient)])
        for _, gradient in results
    ]
    assert np.corrcoef(*gradients)[0, 1] > 0.95


@pytest.mark.long
def test_bfloat16_training_reaches_float32_mse(tmp_path):
    """Within 5%, after three epochs of 4,000 digits."""
    digits = data.load("mnist_5k", str(tmp_path / "data"))
    evaluations = {}
    for precision in ("float32", "bfloat16"):
        config = TrainConfig(
            workdir=str(tmp_path / precision), epochs=3, ema_decay=0.99, precision=precision
        )
        run = fit(config, digits, devices=jax.devices()[:1])
        state = run.load_state()
        assert {x.dtype for x in jax.tree.leaves(state)} == {np.dtype("float32"), np.dtype("int32")}
        evaluations[precision] = run.evaluation()
    mse = {precision: evaluation["mse"] for precision, evaluation in evaluations.items()}
    assert mse["bfloat16"] == pytest.approx(mse["float32"], rel=0.05)
    assert mse["bfloat16"] != mse["float32"]
    # Without training, a constant 0.5 has an MSE of 0.25, a blank image of 0.1.
    assert mse["float32"] < 0.05
