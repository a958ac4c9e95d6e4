"""One training step: pure functions of a state, used under ``jit``, ``pmap`` and ``shard_map``."""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from jaxtyping import Int

from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.models.inference import scale_pixels
from jvae_jax.numerics import default_numerics
from jvae_jax.objectives import Objective
from jvae_jax.types import Batch, Keys, LabelInfo, LossTerms, Multipliers, Scalar, Variables

EMA_DECAY = 0.999
"""Decay of the exponential moving average (EMA) of the variables."""
MULTIPLIER_RATE = 0.01
"""Highest rate at which multipliers integrate KL - C, per step; at most 1 keeps them within bounds.
The rate is lower if the moving average, whose KL it is, follows the weights more slowly."""


class TrainState(NamedTuple):
    """Everything that a checkpoint contains. No leaf has a device axis."""

    step: Int[Array, ""]
    """Number of finished steps."""
    variables: Variables
    """Parameters and batch statistics."""
    average: Variables
    """Exponential moving average of ``variables``, used for evaluation and generation."""
    opt_state: optax.OptState
    """State of the optimizer."""
    multipliers: Multipliers | None = None
    """Multipliers of KL - C, if the objective has any."""


@default_numerics()
def init_state(
    model: Autoencoder, optimizer: optax.GradientTransformation, key: Array
) -> TrainState:
    """Initializes the model and the optimizer.

    Args:
        model: unbound linen module.
        optimizer: an optax transformation.
        key: random key of the initial parameters.

    Returns:
        The state before the first step.
    """
    # Runs once, so compile time matters more than run time.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(_init, static_argnums=(0, 1), compiler_options=options)(model, optimizer, key)


@default_numerics()
def state_shape(model: Autoencoder, optimizer: optax.GradientTransformation) -> TrainState:
    """Returns the state's tree of ``jax.ShapeDtypeStruct``."""
    return jax.eval_shape(partial(_init, model, optimizer), jax.random.key(0))


def _init(model: Autoencoder, optimizer: optax.GradientTransformation, key: Array) -> TrainState:
    variables: Variables = dict(model.init(key, jnp.zeros((1, *model.image_shape), jnp.float32)))
    return TrainState(jnp.int32(0), variables, variables, optimizer.init(variables["params"]))


def metric_names(objective: Objective) -> tuple[str, ...]:
    """Returns the names of a step's metrics, in display order."""
    return ("loss", *objective.terms, "gradient_norm")


def mean_terms(terms: LossTerms) -> dict[str, Scalar]:
    """Returns the batch mean of every term that the objective has, in nats per image."""
    return {name: jnp.mean(term) for name, term in terms._asdict().items() if term is not None}


def train_step(
    objective: Objective,
    model: Autoencoder,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    batch: Batch,
    keys: Keys,
    *,
    label_info: LabelInfo = LabelInfo(),
    ema_decay: float = EMA_DECAY,
    axis_name: str | None = None,
) -> tuple[TrainState, dict[str, Scalar]]:
    """Updates the parameters once.

    Args:
        objective: loss and capacity schedule.
        model: unbound linen module; its ``train`` and ``axis_name`` attributes are overridden.
        optimizer: an optax transformation.
        state: state before the step.
        batch: this device's examples: uint8 images (batch, height, width, channels), labels
            (batch,) and, if the objective uses neighbours, one of each image.
        keys: one key for each example and purpose.
        label_info: properties of the dataset's labels.
        ema_decay: decay of the moving average of the variables; 0 disables averaging.
        axis_name: name of the device axis over which gradients, metrics and batch statistics are
            averaged, if any.

    Returns:
        The state after the step, and the mean over the global batch of the loss, of each of its
        terms and of the gradient's norm.
    """
    model = model.clone(axis_name=axis_name)
    images, labels = scale_pixels(batch.images), jnp.asarray(batch.labels)
    neighbours = None if batch.neighbours is None else scale_pixels(batch.neighbours)
    multipliers: Multipliers = state.multipliers or {}

    def bound_loss(model: Autoencoder, multipliers: Multipliers) -> tuple[Scalar, LossTerms]:
        return objective.loss(
            model,
            images,
            labels,
            step=state.step,
            keys=keys,
            multipliers=multipliers,
            neighbours=neighbours,
            label_info=label_info,
            axis_name=axis_name,
        )

    def loss_fn(params: Any) -> tuple[Scalar, tuple[LossTerms, Variables]]:
        apply = nn.apply(bound_loss, model.clone(train=True), mutable=["batch_stats"])
        (loss, terms), updates = apply({**state.variables, "params": params}, multipliers)
        return loss, (terms, updates)

    def average_loss(multipliers: Multipliers) -> Scalar:
        return nn.apply(bound_loss, model.clone(train=False))(state.average, multipliers)[0]

    gradient_fn = jax.value_and_grad(loss_fn, has_aux=True)
    (loss, (terms, updates)), grads = gradient_fn(state.variables["params"])
    # Within the bounds, these derivatives are KL - C of the averaged network, which is the one that
    # is used after training; its KL isn't that of the trained one. The decoder isn't evaluated.
    differences = jax.grad(average_loss)(multipliers) if multipliers else {}
    metrics = {"loss": loss, **mean_terms(terms)}
    if axis_name is not None:
        grads, differences, metrics = lax.pmean((grads, differences, metrics), axis_name)
    metrics["gradient_norm"] = optax.tree.norm(grads)
    param_updates, opt_state = optimizer.update(grads, state.opt_state, state.variables["params"])
    params = optax.apply_updates(state.variables["params"], param_updates)
    variables = {"params": params, **updates}
    average = update_average(state.step, state.average, variables, ema_decay)
    rate = min(MULTIPLIER_RATE, 2 * (1 - ema_decay))
    integrated = jax.tree.map(lambda value, slope: value + rate * slope, multipliers, differences)
    state = TrainState(state.step + 1, variables, average, opt_state, integrated or None)
    return state, metrics


def update_average(
    step: Array, average: Variables, variables: Variables, decay: float = EMA_DECAY
) -> Variables:
    """Updates an exponential moving average of the variables.

    The decay is warmed up as min(decay, step / (step + 10)), so that the average soon forgets the
    initial values.

    Args:
        step: number of finished steps.
        average: average before the step.
        variables: variables after the step.
        decay: final decay.
    """
    effective_decay = jnp.minimum(decay, step / (step + 10))
    updated: Any = optax.incremental_update(variables, average, 1 - effective_decay)
    return updated


class StepMetrics(NamedTuple):
    """Metrics accumulated over several steps."""

    sums: dict[str, Scalar]
    """Sum of each metric over the steps."""
    first_nonfinite_step: dict[str, Int[Array, ""]]
    """First step at which each metric wasn't finite, or -1."""

    @classmethod
    def empty(cls, objective: Objective) -> "StepMetrics":
        """Returns the metrics of no steps."""
        names = metric_names(objective)
        return cls({name: jnp.zeros(()) for name in names}, {name: jnp.array(-1) for name in names})

    def add(self, step: Array, metrics: dict[str, Scalar]) -> "StepMetrics":
        """Adds the metrics of one step."""

        def first_nonfinite(previous: Array, metric: Scalar) -> Array:
            return jnp.where((previous < 0) & ~jnp.isfinite(metric), step, previous)

        return StepMetrics(
            {name: total + metrics[name] for name, total in self.sums.items()},
            {
                name: first_nonfinite(previous, metrics[name])
                for name, previous in self.first_nonfinite_step.items()
            },
        )
