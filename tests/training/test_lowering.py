"""Programs for accelerators, which XLA writes on any machine: what they contain."""

import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jvae_jax import PRESETS, TrainConfig
from jvae_jax.generation.characters import decode
from jvae_jax.objectives import CVAE, Objective
from jvae_jax.training import parallel
from jvae_jax.training.step import state_shape
from jvae_jax.types import Batch

EXAMPLES = 640


def programs(traced):
    """StableHLO of the TPU and of CUDA."""
    return [traced.lower(lowering_platforms=(name,)).as_text() for name in ("tpu", "cuda")]


def trace_training(objective: Objective):
    config = TrainConfig(objective=objective.resolve(10.0, 1))
    network = config.make_network(image_shape=(32, 32, 1), classes=10)
    optimizer = optax.adam(1e-3)
    devices = jax.devices()
    train_steps = parallel.make_train_steps(
        config.objective,
        network,
        optimizer,
        batch_size=64,
        devices=devices,
        mapping="shard_map",
    )
    state = state_shape(network, optimizer)
    state = state._replace(multipliers=config.objective.initial_multipliers() or None)
    data = Batch(
        jax.ShapeDtypeStruct((len(devices), EXAMPLES, 32, 32, 1), np.uint8),
        jax.ShapeDtypeStruct((len(devices), EXAMPLES), np.int32),
    )
    order = jax.ShapeDtypeStruct((EXAMPLES,), np.int32)
    return train_steps.trace(state, data, order, jax.random.key(0), jnp.int32(5))


def assert_runs_on_accelerators(program):
    """No double precision, no call of the host, no library that only one machine has."""
    assert "f64" not in program
    assert "custom_call" not in program
    assert "callback" not in program


@pytest.mark.parametrize(
    "objective",
    [
        PRESETS["paper"],
        pytest.param(PRESETS["best"], marks=pytest.mark.long),
        pytest.param(CVAE(), marks=pytest.mark.long),
    ],
    ids=["paper", "best", "cvae"],
)
def test_training_runs_on_accelerators(objective):
    traced = trace_training(objective)
    for program in programs(traced):
        assert_runs_on_accelerators(program)
        assert "stablehlo.convolution" in program
    # The matrix products in place of convolutions are the CPU's alone.
    assert "stablehlo.convolution" not in traced.lower(lowering_platforms=("cpu",)).as_text()


def test_training_on_accelerators_by_hand():
    """Convolutions and collectives of a step of the paper's networks."""
    for program in programs(trace_training(PRESETS["paper"])):
        # Forward 3 and, transposed, 3; the gradients of 6 kernels, and of all inputs but the image.
        assert len(re.findall(r"stablehlo\.convolution", program)) == 6 + 6 + 5
        sizes = Counter(
            re.findall(r'stablehlo\.all_reduce".*?\}\) : \(tensor<(\d+)xf32>\)', program, re.S)
        )
        # Each batch normalisation averages two moments, two sums of its gradient, and the gradients
        # of scale and bias. It follows five convolutions and three linear layers, of 256, 256 and
        # 512 units.
        assert (sizes["32"], sizes["256"], sizes["512"]) == (6 * 5, 6 * 2, 6)
        assert "all_gather" not in program


def test_decoder_runs_on_accelerators():
    network = TrainConfig().make_network(image_shape=(32, 32, 1), classes=10)
    variables = state_shape(network, optax.adam(1e-3)).variables
    traced = jax.jit(decode, static_argnums=0).trace(
        network,
        variables,
        jax.ShapeDtypeStruct((8, 10), np.float32),
        jax.ShapeDtypeStruct((8,), np.int32),
    )
    for program in programs(traced):
        assert_runs_on_accelerators(program)
        assert len(re.findall(r"stablehlo\.convolution", program)) == 3
        assert "all_reduce" not in program
