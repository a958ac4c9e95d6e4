"""Where training images lie: on each device, or on the host, which sends them ahead."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jvae_jax import memory
from jvae_jax.training import parallel
from jvae_jax.types import Batch, Devices

DataPlace = Literal["auto", "device", "host"]
"""Where training images lie; ``"auto"`` is the host for more than ``memory.LARGE_BYTES``."""


STEPS_PER_DISPATCH = 100
"""Maximum number of steps of a dispatch."""


def lies_on_host(place: DataPlace, images: np.ndarray) -> bool:
    """Whether training images lie on the host."""
    return images.nbytes > memory.LARGE_BYTES if place == "auto" else place == "host"


class DeviceFeed:
    """All training images on each device: data and order as ``train_steps`` takes them."""

    def __init__(
        self, batch: Batch, devices: Devices, mapping: parallel.DeviceMapping = "pmap"
    ) -> None:
        self._batch, self._devices = batch, devices
        self._mapping: parallel.DeviceMapping = mapping
        self._data = parallel.replicate(batch, devices, mapping)

    def start_epoch(self, order: Array, neighbours: np.ndarray | None = None) -> None:
        """Sets the order in which the epoch visits the examples, (examples,), and their neighbours
        in the epoch, (training images,), if any.
        """
        self._order = parallel.place(order, self._devices)
        if neighbours is not None:
            self._data = self._data._replace(neighbours=None)  # frees those of the last epoch
            near = self._batch._replace(images=np.asarray(self._batch.images)[neighbours])
            near = parallel.replicate(near, self._devices, self._mapping)
            self._data = self._data._replace(neighbours=near.images)

    def load(self, start: int, stop: int) -> tuple[Batch, Array]:  # noqa: ARG002
        """Returns data and order for any steps: the same for all."""
        return self._data, self._order


class HostFeed:
    """Training images on the host; those of each dispatch are sent to the devices that need them.

    The examples of step s are block s % steps of what is sent, so the program that trains finds
    them by the same order in each dispatch, and computes bit for bit what it does with all images
    on the device.
    """

    def __init__(
        self,
        batch: Batch,
        devices: Devices,
        mapping: parallel.DeviceMapping = "pmap",
        *,
        batch_size: int,
        steps: int,
    ) -> None:
        """Prepares the order that all dispatches share.

        Args:
            batch: the training images, which may be memory-mapped, and labels.
            devices: devices of all processes.
            mapping: transformation that runs the steps.
            batch_size: examples of a global batch.
            steps: maximum number of steps of a dispatch, and at most those of an epoch.
        """
        self._batch, self._devices = batch, devices
        self._mapping: parallel.DeviceMapping = mapping
        self._batch_size, self._steps = batch_size, steps
        self._per_device = batch_size // len(devices)
        blocks, positions = np.divmod(np.arange(steps * batch_size, dtype=np.int32), batch_size)
        order = blocks * self._per_device + positions % self._per_device
        self._order = parallel.place(jnp.asarray(order), devices)

    def start_epoch(self, order: Array, neighbours: np.ndarray | None = None) -> None:
        """Sets the order of the epoch's examples and their neighbours, as :class:`DeviceFeed`."""
        self._neighbours = neighbours
        steps = len(order) // self._batch_size
        self._visits = np.asarray(order)[: steps * self._batch_size].reshape(steps, -1)

    def load(self, start: int, stop: int) -> tuple[Batch, Array]:
        """Returns data and order for the steps from start to stop (exclusive) of the run."""
        run_steps = np.arange(start, stop)
        visits = np.zeros((self._steps, self._batch_size), self._visits.dtype)
        visits[run_steps % self._steps] = self._visits[run_steps % len(self._visits)]
        # A device's part of each batch, as in train_steps.
        parts = np.split(visits, len(self._devices), axis=1)
        local = [
            part.reshape(-1)
            for part, device in zip(parts, self._devices, strict=True)
            if device.process_index == jax.process_index()
        ]
        examples = np.stack(local)
        gathered = jax.tree.map(lambda array: array[examples], self._batch)
        if self._neighbours is not None:
            images = np.asarray(self._batch.images[self._neighbours[examples]])
            gathered = gathered._replace(neighbours=images)
        return parallel.shard(gathered, self._devices, self._mapping), self._order


def make_feed(
    batch: Batch,
    devices: Devices,
    place: DataPlace,
    mapping: parallel.DeviceMapping,
    *,
    batch_size: int,
    steps: int,
) -> DeviceFeed | HostFeed:
    """Makes the feed of a run; arguments as of :class:`HostFeed`."""
    if lies_on_host(place, np.asarray(batch.images)):
        return HostFeed(batch, devices, mapping, batch_size=batch_size, steps=steps)
    return DeviceFeed(batch, devices, mapping)
