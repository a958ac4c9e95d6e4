"""One step of training and of testing: plain functions of a state, under jit or pmap alike."""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from jaxtyping import Int

from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.models.inference import scale
from jvae_jax.objectives import Objective
from jvae_jax.types import Batch, Keys, LossTerms, Scalar, Variables

EMA_DECAY = 0.999
"""The share of the moving average of the variables that a step keeps."""


class TrainState(NamedTuple):
    """All that a checkpoint holds. No leaf has a device axis."""

    step: Int[Array, ""]
    variables: Variables
    average: Variables
    """The moving average of ``variables`` over steps: what is evaluated, and what draws."""
    opt_state: optax.OptState


def init_state(
    model: Autoencoder, optimizer: optax.GradientTransformation, key: Array
) -> TrainState:
    """A fresh model and optimiser."""
    # It runs once, so compiling fast matters more than running fast.
    fast = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(_init, static_argnums=(0, 1), compiler_options=fast)(model, optimizer, key)


def state_shape(model: Autoencoder, optimizer: optax.GradientTransformation) -> TrainState:
    """The shapes and types of a state's arrays."""
    return jax.eval_shape(partial(_init, model, optimizer), jax.random.key(0))


def _init(model: Autoencoder, optimizer: optax.GradientTransformation, key: Array) -> TrainState:
    variables: Variables = dict(model.init(key, jnp.zeros((1, *model.image_shape))))
    return TrainState(jnp.int32(0), variables, variables, optimizer.init(variables["params"]))


def metric_names(objective: Objective) -> tuple[str, ...]:
    """The metrics of a step, in the order to show them."""
    return ("loss", *objective.terms, "gradient_norm")


def mean_terms(terms: LossTerms) -> dict[str, Scalar]:
    """The batch mean of every term that the objective has."""
    return {name: jnp.mean(term) for name, term in terms._asdict().items() if term is not None}


def train_step(
    objective: Objective,
    model: Autoencoder,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    batch: Batch,
    keys: Keys,
    *,
    ema_decay: float = EMA_DECAY,
    axis_name: str | None = None,
) -> tuple[TrainState, dict[str, Scalar]]:
    """One update of the parameters.

    Args:
        objective: the loss and its schedule.
        model: unbound; its own ``train`` and ``axis_name`` don't matter here.
        optimizer: an optax transformation.
        state: the state before.
        batch: this device's examples.
        keys: one key for each of them.
        ema_decay: the share of the moving average that a step keeps; 0: the average is the last
            variables.
        axis_name: the device axis, if any; gradients and statistics are averaged over it.

    Returns:
        The state after, and the mean over the global batch of the loss, of each of its terms and
        of the gradient's norm.
    """
    model = model.clone(train=True, axis_name=axis_name)
    images, labels = scale(batch.images), jnp.asarray(batch.labels)

    def loss_fn(params: Any) -> tuple[Scalar, tuple[LossTerms, Variables]]:
        def bound_loss(model: Autoencoder) -> tuple[Scalar, LossTerms]:
            return objective.loss(
                model, images, labels, step=state.step, keys=keys, axis_name=axis_name
            )

        run = nn.apply(bound_loss, model, mutable=["batch_stats"])
        (loss, terms), updates = run({**state.variables, "params": params})
        return loss, (terms, updates)

    (loss, (terms, updates)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
        state.variables["params"]
    )
    metrics = {"loss": loss, **mean_terms(terms)}
    if axis_name is not None:
        grads, metrics = lax.pmean((grads, metrics), axis_name)
    metrics["gradient_norm"] = optax.tree.norm(grads)
    steps, opt_state = optimizer.update(grads, state.opt_state, state.variables["params"])
    variables = {"params": optax.apply_updates(state.variables["params"], steps), **updates}
    average = moving_average(state.step, state.average, variables, ema_decay)
    return TrainState(state.step + 1, variables, average, opt_state), metrics


def moving_average(
    step: Array, average: Variables, variables: Variables, decay: float = EMA_DECAY
) -> Variables:
    """Lets an average follow what a step gave.

    The share of it that is kept rises to ``decay`` from 0 at step 0, so that it soon forgets where
    training began.
    """
    kept = jnp.minimum(decay, step / (step + 10))
    updated: Any = optax.incremental_update(variables, average, 1 - kept)
    return updated


class Progress(NamedTuple):
    """Metrics of several steps."""

    sums: dict[str, Scalar]
    first_bad_step: dict[str, Int[Array, ""]]
    """The first step at which each metric wasn't finite, or -1."""

    @classmethod
    def empty(cls, objective: Objective) -> "Progress":
        """No steps yet."""
        names = metric_names(objective)
        return cls({name: jnp.zeros(()) for name in names}, {name: jnp.array(-1) for name in names})

    def add(self, step: Array, metrics: dict[str, Scalar]) -> "Progress":
        """Counts one more step."""

        def first_bad(so_far: Array, metric: Scalar) -> Array:
            return jnp.where((so_far < 0) & ~jnp.isfinite(metric), step, so_far)

        return Progress(
            {name: total + metrics[name] for name, total in self.sums.items()},
            {name: first_bad(bad, metrics[name]) for name, bad in self.first_bad_step.items()},
        )
