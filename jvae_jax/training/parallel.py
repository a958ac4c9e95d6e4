"""Data-parallel training: the only ``pmap``.

The state has no device axis, neither as input nor as output, so checkpoints and evaluation don't
depend on the number of devices. Each device holds the whole dataset and takes its part of every
global batch from it.
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
from jvae_jax.training.step import EMA_DECAY, StepMetrics, TrainState, train_step
from jvae_jax.types import Batch, Devices, LabelInfo

AXIS = "devices"
"""Name of the device axis."""

Tree = TypeVar("Tree")
TrainSteps = Callable[[TrainState, Batch, Array, Array, Array], tuple[TrainState, StepMetrics]]


def replicate(batch: Batch, devices: Devices) -> Batch:
    """Copies the training data to every device of this process."""
    return jax_utils.replicate(batch, local_devices(devices))


def local_devices(devices: Devices) -> list[Any]:
    """Returns the devices of this process."""
    return [device for device in devices if device.process_index == jax.process_index()]


def place(tree: Tree, devices: Devices) -> Tree:
    """Puts a tree on this process's devices, replicated.

    Matches the sharding of ``train_steps``'s outputs, so that it is compiled once.
    """
    mesh = Mesh(np.array(local_devices(devices)), (AXIS,))
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def check_batch(batch_size: int, examples: int, devices: int) -> None:
    """Raises ValueError unless the batch is divisible by the devices and the data fill one."""
    if devices == 0:
        raise ValueError("devices must not be empty")
    if batch_size % devices:
        raise ValueError(f"batch_size must be divisible by the {devices} devices, got {batch_size}")
    if examples < batch_size:
        raise ValueError(
            f"batch_size must be at most the {examples} training examples, got {batch_size}; "
            "choose a smaller --batch_size"
        )


def make_train_steps(
    objective: Objective,
    model: Autoencoder,
    optimizer: optax.GradientTransformation,
    *,
    batch_size: int,
    label_info: LabelInfo = LabelInfo(),
    ema_decay: float = EMA_DECAY,
    devices: Devices,
) -> TrainSteps:
    """Makes ``train_steps(state, data, order, key, stop)``: many steps in one dispatch.

    Args:
        objective: see :func:`~jvae_jax.training.step.train_step`, as for ``model``, ``optimizer``,
            ``label_info`` and ``ema_decay``.
        model: unbound linen module.
        optimizer: an optax transformation.
        batch_size: examples of a global batch.
        label_info: properties of the dataset's labels.
        ema_decay: decay of the moving average of the variables.
        devices: devices of all processes.

    Returns:
        A function of the state, the replicated data, the epoch's order, the random key and the step
        at which to stop (exclusive, in the same epoch). It returns the new state and the metrics of
        the steps. The state is donated. One compilation serves all values of ``stop``. Incomplete
        batches are dropped. Raises ValueError as :func:`check_batch`.
    """
    examples_per_device = batch_size // len(devices)

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
    ) -> tuple[TrainState, StepMetrics]:
        check_batch(batch_size, len(order), len(devices))
        first = lax.axis_index(AXIS) * examples_per_device
        # Positions of this device's examples in the global batch.
        positions = first + jnp.arange(examples_per_device)
        steps_per_epoch = len(order) // batch_size

        def one_step(
            step: Array, carry: tuple[TrainState, StepMetrics]
        ) -> tuple[TrainState, StepMetrics]:
            state, totals = carry
            indices = order[step % steps_per_epoch * batch_size + positions]
            batch = jax.tree.map(lambda array: array[indices], data)
            keys = example_keys(key, step, positions)
            state, metrics = train_step(
                objective,
                model,
                optimizer,
                state,
                batch,
                keys,
                label_info=label_info,
                ema_decay=ema_decay,
                axis_name=AXIS,
            )
            return state, totals.add(step, metrics)

        return lax.fori_loop(state.step, stop, one_step, (state, StepMetrics.empty(objective)))

    return train_steps
