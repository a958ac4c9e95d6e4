"""Data-parallel training: the only pmap.

The state has no device axis, going in or coming out, so checkpoints and evaluation don't know how
many devices trained it. The data set lies on every device, and each takes its own share of every
global batch.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import jax_utils
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jvae_jax.networks import Autoencoder
from jvae_jax.objectives import Objective
from jvae_jax.training import Progress, TrainState, epoch_order, example_keys, train_step
from jvae_jax.types import Batch, Devices

AXIS = "devices"

TrainSteps = Callable[[TrainState, Batch, Array, Array], tuple[TrainState, Progress]]


def replicate(batch: Batch, devices: Devices) -> Batch:
    """Puts the training data on every device, once."""
    return jax_utils.replicate(batch, list(devices))


def place(state: TrainState, devices: Devices) -> TrainState:
    """Puts a state on the devices as ``train_steps`` returns it, so that it compiles only once."""
    mesh = Mesh(np.array(devices), (AXIS,))
    return jax.device_put(state, NamedSharding(mesh, PartitionSpec()))


def check_batch(batch_size: int, examples: int, devices: int) -> None:
    """Raises ValueError if the devices can't share a batch equally, or the data don't fill one."""
    if batch_size % devices:
        raise ValueError(f"a batch of {batch_size} can't be shared equally by {devices} devices")
    if examples < batch_size:
        raise ValueError(f"{examples} training examples don't fill one batch of {batch_size}")


def make_train_steps(
    objective: Objective,
    model: Autoencoder,
    optimizer: optax.GradientTransformation,
    *,
    batch_size: int,
    examples: int,
    devices: Devices,
) -> TrainSteps:
    """Makes ``train_steps(state, data, key, stop)``: many steps in one dispatch.

    Args:
        objective, model, optimizer: as in :func:`~jvae_jax.training.train_step`.
        batch_size: examples of a global batch.
        examples: size of the training set; what doesn't fill a batch is left out of an epoch.
        devices: where to train.

    Returns:
        A function from a state, replicated data, the run's key and the step to stop before, in the
        same epoch, to the state after and the steps' metrics. It compiles once, whatever ``stop``.

    Raises:
        ValueError: if the devices can't share a batch equally, or the data don't fill one.
    """
    check_batch(batch_size, examples, len(devices))
    share = batch_size // len(devices)
    steps_per_epoch = examples // batch_size

    @partial(
        jax.pmap,
        axis_name=AXIS,
        in_axes=(None, 0, None, None),
        out_axes=None,
        devices=list(devices),
    )
    def train_steps(
        state: TrainState, data: Batch, key: Array, stop: Array
    ) -> tuple[TrainState, Progress]:
        noise_key, order_key = jax.random.split(key)
        epoch = state.step // steps_per_epoch
        order = epoch_order(order_key, epoch, examples)
        mine = lax.axis_index(AXIS) * share + jnp.arange(share)

        def one_step(
            step: Array, carry: tuple[TrainState, Progress]
        ) -> tuple[TrainState, Progress]:
            state, progress = carry
            chosen = order[(step - epoch * steps_per_epoch) * batch_size + mine]
            batch = jax.tree.map(lambda array: array[chosen], data)
            keys = example_keys(noise_key, step, mine)
            state, metrics = train_step(objective, model, optimizer, state, batch, keys, AXIS)
            return state, progress.add(step, metrics)

        return lax.fori_loop(state.step, stop, one_step, (state, Progress.empty(objective)))

    return train_steps
