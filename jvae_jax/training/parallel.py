"""Data-parallel training: the only pmap.

The state has no device axis, going in or coming out, so checkpoints and evaluation don't know how
many devices trained it. The data set lies on every device, and each takes its own share of every
global batch.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import jax_utils
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.objectives import Objective
from jvae_jax.sampling import example_keys
from jvae_jax.training.step import EMA_DECAY, Progress, TrainState, train_step
from jvae_jax.types import Batch, Devices

AXIS = "devices"

Tree = TypeVar("Tree")
TrainSteps = Callable[[TrainState, Batch, Array, Array, Array], tuple[TrainState, Progress]]


def replicate(batch: Batch, devices: Devices) -> Batch:
    """Puts the training data on every device of this process, once."""
    return jax_utils.replicate(batch, local(devices))


def local(devices: Devices) -> list[Any]:
    """Those of this process."""
    return [device for device in devices if device.process_index == jax.process_index()]


def place(tree: Tree, devices: Devices) -> Tree:
    """Puts a state or an order on this process's devices as ``train_steps`` has them.

    So it compiles once.
    """
    mesh = Mesh(np.array(local(devices)), (AXIS,))
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


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
    ema_decay: float = EMA_DECAY,
    devices: Devices,
) -> TrainSteps:
    """Makes ``train_steps(state, data, order, key, stop)``: many steps in one dispatch.

    Args:
        objective, model, optimizer, ema_decay: as in :func:`~jvae_jax.training.step.train_step`.
        batch_size: examples of a global batch.
        devices: where to train, all processes' together.

    Returns:
        A function of a state, replicated data, the order in which the epoch visits them, the
        noise's key and the step to stop before, in the same epoch. It returns the state after and
        the steps' metrics, compiles once, whatever ``stop``, and works in place: the state that
        went in can't be used again. What doesn't fill a batch is left out of an epoch. At its first
        call it raises ValueError as :func:`check_batch` does.
    """
    share = batch_size // len(devices)

    @partial(
        jax.pmap,
        axis_name=AXIS,
        in_axes=(None, 0, None, None, None),
        out_axes=None,
        devices=list(devices),
        donate_argnums=0,
    )
    def train_steps(
        state: TrainState, data: Batch, order: Array, key: Array, stop: Array
    ) -> tuple[TrainState, Progress]:
        check_batch(batch_size, len(order), len(devices))
        mine = lax.axis_index(AXIS) * share + jnp.arange(share)
        steps_per_epoch = len(order) // batch_size

        def one_step(
            step: Array, carry: tuple[TrainState, Progress]
        ) -> tuple[TrainState, Progress]:
            state, progress = carry
            chosen = order[step % steps_per_epoch * batch_size + mine]
            batch = jax.tree.map(lambda array: array[chosen], data)
            keys = example_keys(key, step, mine)
            state, metrics = train_step(
                objective,
                model,
                optimizer,
                state,
                batch,
                keys,
                ema_decay=ema_decay,
                axis_name=AXIS,
            )
            return state, progress.add(step, metrics)

        return lax.fori_loop(state.step, stop, one_step, (state, Progress.empty(objective)))

    return train_steps
