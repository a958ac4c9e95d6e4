"""The analytic operation count against XLA's, on the compiled CPU step: guards the speed."""

import jax
import jax.numpy as jnp
import optax
import pytest
from benchmarks import roofline
from benchmarks.flops import train_step_flops

from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.objectives import OBJECTIVES
from jvae_jax.training import parallel
from jvae_jax.training.config import parameter_bytes
from jvae_jax.training.step import state_shape
from jvae_jax.types import Batch

BATCH = 64


@pytest.fixture(scope="module")
def compiled():
    """The training loop of the paper's model, compiled but not run."""
    devices = jax.devices()[:1]
    model, optimizer = Autoencoder((32, 32, 1)), optax.adam(1e-3)
    train_steps = parallel.make_train_steps(
        OBJECTIVES["ours"](), model, optimizer, batch_size=BATCH, devices=devices
    )
    key = jax.random.key(0)
    state = state_shape(model, optimizer)
    shape = jax.ShapeDtypeStruct
    data = Batch(shape((1, BATCH, 32, 32, 1), jnp.uint8), shape((1, BATCH), jnp.int32))
    order, stop = shape((BATCH,), jnp.int32), shape((), jnp.int32)
    return train_steps.lower(state, data, order, key, stop).compile()


def test_loop_contains_no_convolution(compiled):
    text = compiled.as_text()
    assert " while(" in text
    assert " dot(" in text
    assert " convolution(" not in text


def test_analytic_count_matches_xla(compiled):
    """Within 10 %: XLA also counts element-wise operations."""
    analysis = compiled.cost_analysis()
    counted = (analysis[0] if isinstance(analysis, list) else analysis)["flops"]
    expected = train_step_flops(Autoencoder((32, 32, 1)), BATCH, as_products=True)
    assert expected < counted < 1.1 * expected


def test_count_of_small_model():
    """8x8 images, one latent, no classes, a batch of one."""
    convolutions = 16 * (16 * 1 * 32 + 4 * 32 * 32 + 1 * 32 * 32)
    linear = 32 * 256
    heads, first = 256 * 2, 1 * 256
    total = 3 * (2 * convolutions + 2 * linear + heads + first) - 16 * 16 * 32
    assert train_step_flops(Autoencoder((8, 8, 1), 1, 0), 1) == 2 * total


def test_rejects_conditional_models():
    with pytest.raises(ValueError, match="conditional"):
        train_step_flops(Autoencoder((8, 8, 1), conditional=True), 1)


@pytest.mark.long
def test_roofline_on_paper():
    """Operations by the analytic count, and bytes that grow with the batch alone."""
    model = Autoencoder((32, 32, 1))
    (flops, size), (double_flops, double_size) = map(roofline.step_cost, (BATCH, 2 * BATCH))
    # XLA leaves out the products with the padding of convolutions.
    assert 0.85 < flops / train_step_flops(model, BATCH) < 1.1
    assert double_flops / flops == pytest.approx(2, rel=0.05)
    # Parameters, average, two moments and gradient are read or written at least ten times.
    fixed = 2 * size - double_size
    assert fixed > 10 * parameter_bytes(model)
    per_image = (size - fixed) / BATCH
    expected = fixed * 9 / per_image
    assert roofline.large_batch() == pytest.approx(expected, rel=0.05)
    assert len(roofline.rows()) == 6
