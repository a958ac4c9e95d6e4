"""Data-parallel training: the only ``pmap``, and ``shard_map`` in its place.

The state has no device axis, neither as input nor as output, so checkpoints and evaluation don't
depend on the number of devices. Each device holds the whole dataset, or the examples of a dispatch
(see :mod:`~jvae_jax.training.feeding`), and takes its part of every global batch from it.

All arrays here are of this process's devices. ``shard_map`` takes arrays of all processes' devices,
which :func:`_shard_map` makes from the same buffers.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.objectives import Objective
from jvae_jax.sampling import example_keys
from jvae_jax.training.step import EMA_DECAY, StepMetrics, TrainState, train_step
from jvae_jax.types import Batch, Devices, LabelInfo

AXIS = "devices"
"""Name of the device axis."""

DeviceMapping = Literal["pmap", "shard_map"]
"""The transformation that runs a function on each device."""
Tree = TypeVar("Tree")
TrainSteps = Callable[[TrainState, Batch, Array, Array, Array], tuple[TrainState, StepMetrics]]


def replicate(batch: Batch, devices: Devices, mapping: DeviceMapping = "pmap") -> Batch:
    """Copies the training data to every device of this process, along a new first axis."""
    copies = len(local_devices(devices))
    copied = jax.tree.map(lambda array: np.broadcast_to(array, (copies, *array.shape)), batch)
    return shard(copied, devices, mapping)


def shard(batch: Batch, devices: Devices, mapping: DeviceMapping = "pmap") -> Batch:
    """Puts an entry of the first axis on each device of this process."""

    def sharding(array: np.ndarray) -> Sharding:
        if mapping == "pmap" and not getattr(jax.config, "jax_pmap_shmap_merge", True):
            # By default before jax 0.8, pmap isn't shard_map, and copies in each call what has
            # another sharding than its own.
            own: Any = getattr(jax.sharding, "PmapSharding")  # noqa: B009
            return own.default(array.shape, 0, local_devices(devices))
        return NamedSharding(_local_mesh(devices), PartitionSpec(AXIS))

    return jax.tree.map(lambda array: jax.device_put(array, sharding(array)), batch)


def local_devices(devices: Devices) -> list[Any]:
    """Returns the devices of this process."""
    return [device for device in devices if device.process_index == jax.process_index()]


def place(tree: Tree, devices: Devices) -> Tree:
    """Puts a tree on this process's devices, replicated.

    Matches the sharding of ``train_steps``'s outputs, so that it is compiled once.
    """
    return jax.device_put(tree, NamedSharding(_local_mesh(devices), PartitionSpec()))


def _local_mesh(devices: Devices) -> Mesh:
    return Mesh(np.array(local_devices(devices)), (AXIS,))


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
    mapping: DeviceMapping = "pmap",
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
        mapping: ``"pmap"``, or ``"shard_map"`` for the day when JAX drops the former; results are
            the same.

    Returns:
        A function of the state, the data on each device, the order in which its entries are used,
        the random key and the step at which to stop (exclusive, in the same epoch). It returns the
        new state and the metrics of the steps. The state is donated. One compilation serves all
        values of ``stop``. Incomplete batches are dropped. Raises ValueError as
        :func:`check_batch`.
    """
    examples_per_device = batch_size // len(devices)

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

    if mapping == "shard_map":
        return _shard_map(train_steps, devices)
    return jax.pmap(
        train_steps,
        axis_name=AXIS,
        in_axes=(None, 0, None, None, None),
        out_axes=None,
        devices=list(devices),
        donate_argnums=0,
    )


def _shard_map(train_steps: TrainSteps, devices: Devices) -> TrainSteps:
    """Maps steps over devices by ``shard_map``, as ``pmap`` does."""
    mesh = Mesh(np.array(devices), (AXIS,))
    replicated, sharded = PartitionSpec(), PartitionSpec(AXIS)
    in_specs = (replicated, sharded, replicated, replicated, replicated)

    @partial(jax.jit, donate_argnums=0)
    @partial(jax.shard_map, mesh=mesh, in_specs=in_specs, out_specs=replicated, check_vma=False)
    def mapped(
        state: TrainState, data: Batch, order: Array, key: Array, stop: Array
    ) -> tuple[TrainState, StepMetrics]:
        return train_steps(state, jax.tree.map(lambda array: array[0], data), order, key, stop)

    local_mesh = _local_mesh(devices)
    if local_mesh == mesh:
        return mapped

    def on_mesh(tree: Tree, mesh: Mesh, spec: PartitionSpec) -> Tree:
        """The same buffers as arrays of the devices of a mesh."""

        def convert(array: Array) -> Array:
            axes = array.shape[:1] if spec == replicated else (mesh.size,)
            shards = [shard.data for shard in array.addressable_shards]
            return jax.make_array_from_single_device_arrays(
                (*axes, *array.shape[1:]), NamedSharding(mesh, spec), shards
            )

        return jax.tree.map(convert, tree)

    def of_all_processes(
        state: TrainState, data: Batch, order: Array, key: Array, stop: Array
    ) -> tuple[TrainState, StepMetrics]:
        shared = on_mesh(place((state, order, key, stop), devices), mesh, replicated)
        state, order, key, stop = shared
        return on_mesh(
            mapped(state, on_mesh(data, mesh, sharded), order, key, stop), local_mesh, replicated
        )

    return of_all_processes
