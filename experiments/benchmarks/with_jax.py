"""This library's training, with its own layers or with linen's."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from benchmarks import TEST_IMAGES, TRAIN_IMAGES, Task, noise
from benchmarks.with_linen import LinenAutoencoder
from jvae_jax import PRESETS, Autoencoder, Batch, Objective
from jvae_jax.evaluation.metrics import mean_test_terms
from jvae_jax.generation import characters
from jvae_jax.sampling import example_keys
from jvae_jax.training import parallel
from jvae_jax.training.batching import epoch_order
from jvae_jax.training.feeding import STEPS_PER_DISPATCH, DataPlace, make_feed
from jvae_jax.training.provenance import environment
from jvae_jax.training.step import TrainState, init_state, train_step

_HOST_IMAGES = 5120
"""Images of a dispatch that sends them, about as many as are timed at a time."""


class JaxImplementation:
    def __init__(
        self,
        *,
        linen: bool = False,
        loop: bool = True,
        devices: int | None = None,
        data_on: DataPlace = "device",
        objective: Objective = PRESETS["paper"],
    ):
        """Builds the model and its optimiser.

        Args:
            linen: use linen's layers.
            loop: many steps per dispatch, as in the library; else one jitted step per dispatch.
            devices: number of devices; default: all.
            data_on: where training images lie.
            objective: the training objective; linen's layers have the paper's network only.

        Raises:
            LookupError: if there are fewer devices.
        """
        self.linen, self.loop = linen, loop
        self.data_on: DataPlace = data_on
        self.devices = jax.devices()[:devices]
        if len(self.devices) < (devices or 1):
            raise LookupError(f"there are fewer than {devices} devices")
        self.objective = objective
        self.model: Any = LinenAutoencoder((32, 32, 1))
        if not linen:
            self.model = Autoencoder((32, 32, 1), conditional=objective.conditional)
        self.optimizer = optax.adam(1e-3)
        self.key = jax.random.key(0)

    def facts(self) -> dict[str, str]:
        current = environment()
        device = ", ".join(current.pop("devices"))
        return {**current, "device": device}

    def sgemm(self, size: int) -> Task:
        matrix = jnp.ones((size, size))
        product = jax.jit(jnp.matmul)

        def products(count: int) -> None:
            for _ in range(count):
                product(matrix, matrix).block_until_ready()

        return products

    def train(self, batch_size: int) -> Task:
        state = self._state()
        data = Batch(*noise(TRAIN_IMAGES))
        if not self.loop:
            return self._single_steps(state, jax.tree.map(jnp.asarray, data), batch_size)
        per_dispatch = min(STEPS_PER_DISPATCH, TRAIN_IMAGES // batch_size)
        if self.data_on == "host":
            per_dispatch = min(per_dispatch, max(1, _HOST_IMAGES // batch_size))
        feed = make_feed(
            data, self.devices, self.data_on, "pmap", batch_size=batch_size, steps=per_dispatch
        )
        order = epoch_order(self.key, 0, TRAIN_IMAGES)
        neighbours = np.asarray(order) if self.objective.neighbour_count() else None
        feed.start_epoch(order, neighbours)
        state = parallel.place(state, self.devices)
        train_steps = parallel.make_train_steps(
            self.objective,
            self.model,
            self.optimizer,
            batch_size=batch_size,
            devices=self.devices,
        )

        examples = feed.load(0, per_dispatch)

        def steps(count: int) -> None:
            nonlocal state, examples
            step = int(state.step)
            end = step + count
            while step < end:
                step = min(step + per_dispatch, end)
                state, _ = train_steps(state, *examples, self.key, jnp.int32(step))
                examples = feed.load(step, step + per_dispatch)  # while the devices train
            jax.block_until_ready(state)

        return steps

    def _single_steps(self, state: TrainState, data: Batch, batch_size: int) -> Task:
        examples = jnp.arange(batch_size)

        @jax.jit
        def step(state: TrainState, data: Batch) -> TrainState:
            start = state.step * batch_size % (TRAIN_IMAGES - batch_size)
            batch = jax.tree.map(
                lambda leaf: lax.dynamic_slice_in_dim(leaf, start, batch_size), data
            )
            keys = example_keys(self.key, state.step, examples)
            return train_step(self.objective, self.model, self.optimizer, state, batch, keys)[0]

        def steps(count: int) -> None:
            nonlocal state
            for _ in range(count):
                state = step(state, data)
            jax.block_until_ready(state)

        return steps

    def step_memory(self, batch_size: int) -> float:
        """Temporary memory of a step in MiB, besides its inputs and outputs, as planned by XLA."""
        step, arguments = self.step(batch_size)
        planned: Any = step.lower(*arguments).compile().memory_analysis()
        return planned.temp_size_in_bytes / 2**20

    def step(self, batch_size: int) -> tuple[Any, tuple[Any, ...]]:
        """A jitted training step and its arguments, of which the first three are static."""
        batch = Batch(*noise(batch_size))
        keys = example_keys(self.key, 0, jnp.arange(batch_size))
        arguments = self.objective, self.model, self.optimizer, self._state(), batch, keys
        return jax.jit(train_step, static_argnums=(0, 1, 2)), arguments

    def sample(self, batch_size: int) -> Task:
        variables = self._state().variables
        labels = jnp.arange(batch_size) % 10
        decode = partial(_decode if self.linen else characters.decode, self.model, variables)

        def samples(count: int) -> None:
            for _ in range(count):
                z = jax.random.normal(self.key, (batch_size, 10))
                decode(z, labels).block_until_ready()

        return samples

    def evaluate(self, batch_size: int) -> Task:  # noqa: ARG002  # the library fixes it
        variables = self._state().variables
        split = Batch(*noise(TEST_IMAGES))

        def evaluations(count: int) -> None:
            for _ in range(count):
                mean_test_terms(self.objective, self.model, variables, 0, split, self.key)

        return evaluations

    def _state(self) -> TrainState:
        state = init_state(self.model, self.optimizer, self.key)
        return state._replace(multipliers=self.objective.initial_multipliers() or None)


@partial(jax.jit, static_argnums=0)
def _decode(model: LinenAutoencoder, variables: Any, z: jax.Array, labels: jax.Array) -> jax.Array:
    """``characters.decode`` for linen's layers."""
    latents = jnp.concatenate([z, jax.nn.one_hot(labels, 10)], axis=-1)
    logits: Any = model.apply(variables, latents, method="decode")
    return jax.nn.sigmoid(logits)
