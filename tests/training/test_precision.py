"""bfloat16 inside the networks, float32 around them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jvae_jax import data
from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.training.config import TrainConfig
from jvae_jax.training.loop import fit


@pytest.mark.parametrize("conditional", [False, True])
def test_bfloat16_is_only_what_it_computes_in(conditional):
    """Rounded to eight bits on the way, from parameters and to results that are float32."""
    model = Autoencoder((8, 8, 1), latents=4, classes=3, conditional=conditional)
    images = jax.random.uniform(jax.random.key(1), (16, 8, 8, 1))
    rounding = model.clone(dtype=jnp.bfloat16, train=True)
    variables = jax.jit(rounding.init)(jax.random.key(0), images)
    exact = jax.jit(model.init)(jax.random.key(0), images)
    jax.tree.map(np.testing.assert_array_equal, variables, exact)

    def error(params, model):
        logits, updates = model.apply(
            {**variables, "params": params}, images, mutable=["batch_stats"]
        )
        return jnp.mean((logits - images) ** 2), (logits, updates)

    ask = jax.jit(jax.value_and_grad(error, has_aux=True), static_argnums=1)
    outcomes = [ask(variables["params"], each) for each in (rounding, model.clone(train=True))]
    assert {leaf.dtype for leaf in jax.tree.leaves(outcomes)} == {jnp.dtype("float32")}
    (_, (rounded, _)), (_, (logits, _)) = outcomes[0][0], outcomes[1][0]
    assert not np.array_equal(rounded, logits)
    assert np.linalg.norm(rounded - logits) < 0.05 * np.linalg.norm(logits)
    slopes = [jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(o[1])]) for o in outcomes]
    assert np.corrcoef(*slopes)[0, 1] > 0.95


@pytest.mark.long
def test_bfloat16_trains_as_well(tmp_path):
    """To within 5 % of float32's MSE, on 4,000 digits and three epochs of them."""
    digits = data.load("mnist_5k", str(tmp_path / "data"), say=lambda _: None)
    found = {}
    for precision in ("float32", "bfloat16"):
        config = TrainConfig(
            workdir=str(tmp_path / precision), epochs=3, ema_decay=0.99, precision=precision
        )
        run = fit(config, digits, devices=jax.devices()[:1], say=lambda _: None)
        state = run.load_state()
        assert {x.dtype for x in jax.tree.leaves(state)} == {np.dtype("float32"), np.dtype("int32")}
        found[precision] = run.evaluation()
    assert found["bfloat16"]["mse"] == pytest.approx(found["float32"]["mse"], rel=0.05)
    assert found["bfloat16"]["mse"] != found["float32"]["mse"]
    # An untrained one redraws nothing: a grey of one half leaves 0.25, an empty image 0.1.
    assert found["float32"]["mse"] < 0.05
