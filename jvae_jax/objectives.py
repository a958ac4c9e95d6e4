"""The six training objectives: hyperparameters, capacity schedule and loss.

An objective is a frozen, keyword-only dataclass whose fields are its hyperparameters. It is
hashable, and so static under ``jit``. Defaults are the paper's values; where the paper gives none,
those of the Joint-VAE's published code. The docstring of a field is its help on the command line:
``jvae train --objective=ours --help``.

A new objective is a subclass of :class:`Objective` that implements ``_loss`` and is listed in
:data:`OBJECTIVES`.
"""

import math
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, NamedTuple, cast

import jax.numpy as jnp
import optax
from jax import Array

from jvae_jax import losses, sampling
from jvae_jax.augmentation import random_deformation
from jvae_jax.types import (
    Images,
    Keys,
    LabelInfo,
    Labels,
    LossTerms,
    Model,
    Multipliers,
    ReconstructionLoss,
    Scalar,
)
from jvae_jax.validation import check_types, require

CAPACITY_STEPS = 25_000
"""Steps over which the paper increases the capacities."""
PAPER_STEPS = 93_750
"""Steps of the paper's training: 100 epochs x 60,000 images / 64."""


def default_capacity_steps(total_steps: float) -> int:
    """Number of steps of the capacity ramp: the paper's, scaled down for shorter runs.

    Args:
        total_steps: training steps of the run.

    Returns:
        Steps of the ramp, at most 25,000.
    """
    return min(CAPACITY_STEPS, round(total_steps * CAPACITY_STEPS / PAPER_STEPS))


def ramp(step: int | Array, final: float, steps: int) -> Scalar:
    """Linear capacity schedule from 0 to ``final`` over ``steps`` steps, then constant, in nats."""
    schedule = optax.linear_schedule(0.0, final, max(steps, 1))
    return jnp.asarray(schedule(jnp.asarray(step, jnp.float32)), jnp.float32)


class _Context(NamedTuple):
    """Arguments of :meth:`Objective.loss` beside the model and the batch."""

    step: int | Array
    keys: Keys
    multipliers: Multipliers
    neighbours: Images | None
    label_info: LabelInfo
    axis_name: str | None


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Base class of the objectives.

    Raises:
        ValueError: if a hyperparameter has the wrong type or is out of range.
    """

    name: ClassVar[str]
    """Key in :data:`OBJECTIVES`, on the command line and in config.json."""
    has_categorical: ClassVar[bool] = False
    """Whether the model has a categorical latent c."""
    conditional: ClassVar[bool] = False
    """Whether the label or c is an input of the encoder too, and a classifier predicts it."""
    uses_labels: ClassVar[bool] = False
    """Whether training uses labels."""
    terms: ClassVar[tuple[str, ...]] = ("reconstruction", "kl_z")
    """Fields of ``LossTerms`` that the loss returns."""

    reconstruction_loss: Literal["bernoulli_nll", "squared_error"] = "bernoulli_nll"
    """Reconstruction loss, -log p(x|z,c) up to a constant; not specified in the paper."""

    def __post_init__(self) -> None:
        check_types(self)

    @property
    def _reconstruction_loss(self) -> ReconstructionLoss:
        return getattr(losses, self.reconstruction_loss)

    def changes(self) -> dict[str, Any]:
        """Returns the hyperparameters that differ from their defaults, which are the paper's."""
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) != field.default
        }

    def flags(self) -> list[str]:
        """Returns the command-line flags of :meth:`changes`."""
        changes = self.changes().items()
        return [f"--{name}" if value is True else f"--{name}={value}" for name, value in changes]

    def resolve(self, total_steps: float, epochs: int) -> "Objective":
        """Returns the objective with defaults that depend on the length of the run filled in.

        Args:
            total_steps: training steps of the run; 0 if it starts from a trained model.
            epochs: its epochs, likewise.
        """
        del total_steps, epochs
        return self

    def initial_multipliers(self) -> Multipliers:
        """Returns the multipliers before the first step, by their names in the loss function; empty
        unless the objective has ``penalty="multiplier"``.
        """
        return {}

    def neighbour_count(self) -> int:
        """Returns the number of nearest training images of each one that the loss needs."""
        return 0

    def final_unlabelled_capacity_c(self, label_info: LabelInfo) -> float:
        """Returns the final C_c of examples with the uniform prior, in nats, before it is capped at
        log K; 0 if there are none.
        """
        del label_info
        return 0.0

    def loss(
        self,
        model: Model,
        images: Images,
        labels: Labels,
        *,
        step: int | Array,
        keys: Keys,
        multipliers: Multipliers | None = None,
        neighbours: Images | None = None,
        label_info: LabelInfo = LabelInfo(),
        axis_name: str | None = None,
    ) -> tuple[Scalar, LossTerms]:
        """Computes the loss at a training step.

        Args:
            model: anything with ``encode``, ``decode`` and, if conditional, ``classify``; a linen
                :class:`~jvae_jax.Autoencoder` bound to its variables is one. ``information_weight``
                requires ``latents`` and ``classify_decoded`` too.
            images: (batch, height, width, channels) in [0, 1].
            labels: (batch,) class indices; -1 means unlabelled.
            step: training step, on which the capacities depend.
            keys: random keys by purpose; each a single key or one per example.
            multipliers: multipliers of KL - C. Without them, the loss is that of
                ``penalty="absolute"``.
            neighbours: a training image near each of ``images``, of their shape, for objectives
                with ``neighbours``. Without them, an image is its own neighbour.
            label_info: properties of the dataset's labels.
            axis_name: name of the device axis, if any.

        Returns:
            The loss in nats per image, averaged over the batch, and its terms for each example.
        """
        context = _Context(step, keys, multipliers or {}, neighbours, label_info, axis_name)
        return self._loss(model, images, labels, context)

    def _loss(
        self, model: Model, images: Images, labels: Labels, context: _Context
    ) -> tuple[Scalar, LossTerms]:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class VAE(Objective):
    """Variational autoencoder, eq. 1."""

    name: ClassVar[str] = "vae"

    def _loss(
        self, model: Model, images: Images, labels: Labels, context: _Context
    ) -> tuple[Scalar, LossTerms]:
        return losses.vae(
            model.encode,
            model.decode,
            images,
            gaussian_key=context.keys.gaussian,
            reconstruction_loss=self._reconstruction_loss,
        )


@dataclass(frozen=True, kw_only=True)
class BetaVAE(Objective):
    """beta-VAE, eq. 6."""

    name: ClassVar[str] = "beta_vae"

    beta: float = 30.0
    """Weight of KL(z)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "beta", lambda value: value >= 0, "0 or more")

    def _loss(
        self, model: Model, images: Images, labels: Labels, context: _Context
    ) -> tuple[Scalar, LossTerms]:
        return losses.beta_vae(
            model.encode,
            model.decode,
            images,
            gaussian_key=context.keys.gaussian,
            beta=self.beta,
            reconstruction_loss=self._reconstruction_loss,
        )


@dataclass(frozen=True, kw_only=True)
class _CapacityObjective(Objective):
    """Base class of the objectives in which z may have a capacity."""

    beta: float
    """Weight of |KL(z) - C_z|."""
    penalty: Literal["absolute", "multiplier"] = "absolute"
    """Penalty of a capacity term: absolute, the paper's weight times |KL - C|, whose gradient has
    the weight's size on either side of C; or multiplier, in which a multiplier of KL - C, at most
    the weight in magnitude, integrates KL - C of the averaged network over the steps. Not in the
    paper."""
    capacity_z: float | None
    """Final capacity C_z, in nats."""
    capacity_steps: int | None = None
    """Steps over which the capacities increase from 0 to their final values. By default the
    paper's 25,000 of 93,750 steps, or the same fraction of a shorter run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "capacity_steps", lambda value: value < 2**31, "below 2,147,483,648")
        for name in ("beta", "capacity_z", "capacity_steps"):
            require(self, name, lambda value: value >= 0, "0 or more")

    def initial_multipliers(self) -> Multipliers:
        has_multipliers = self.penalty == "multiplier" and self.capacity_z is not None
        return {"multiplier_z": jnp.zeros(())} if has_multipliers else {}

    def resolve(self, total_steps: float, epochs: int) -> "Objective":
        resolved = super().resolve(total_steps, epochs)
        if self.capacity_z is None or self.capacity_steps is not None:
            return resolved
        capacity_steps: Any = default_capacity_steps(total_steps)
        return replace(resolved, capacity_steps=capacity_steps)

    def _capacity(self, final: float, step: int | Array) -> Scalar:
        steps = CAPACITY_STEPS if self.capacity_steps is None else self.capacity_steps
        return ramp(step, final, steps)


@dataclass(frozen=True, kw_only=True)
class _ConsistencyObjective(Objective):
    """Base class of the objectives that can learn q(c|x) from unlabelled images."""

    consistency_weight: float = 0.0
    """Weight of the consistency loss between q(c|x) and q(c|x'), where x' is an augmentation of x
    or of an image near it, which helps if few or no images are labelled. Not in the paper, nor are
    the other options of this loss."""
    augmentation_strength: float = 1.0
    """Strength of the affine transform in the augmentation: 1 is shear, scale and rotation of up to
    15 percent, and shifts of up to a sixteenth of the side."""
    elastic_strength: float = 0.0
    """Strength of the elastic deformation in the augmentation, random displacements of 5 x 5 points
    that are interpolated in between: 1 is a standard deviation of a thirty-second of the side."""
    neighbours: int = 0
    """Number of nearest training images of each one, of which the mutual ones are kept: those that
    have it among their nearest. The consistency loss augments a random one of them, if there is
    any, in place of an unlabelled image. They are nearest up to small deformations, and are found
    first, in about two minutes for 60,000 images on two cores."""
    marginal_weight: float = 0.0
    """Weight of KL(q(c) || p(c)), where q(c) is the mean of q(c|x) over the batch, which makes all
    values of c equally frequent if few or no images are labelled. Batches should be several times
    larger than the number of classes. Not in the paper."""

    def __post_init__(self) -> None:
        super().__post_init__()
        options = ("augmentation_strength", "elastic_strength", "neighbours")
        for name in ("consistency_weight", "marginal_weight", *options):
            require(self, name, lambda value: value >= 0, "0 or more")
        unused = [name for name in options if getattr(self, name) != getattr(type(self), name)]
        if unused and not self.consistency_weight:
            have = "has" if len(unused) == 1 else "have"
            raise ValueError(
                f"{' and '.join(unused)} {have} no effect without consistency_weight; add it"
            )

    def neighbour_count(self) -> int:
        return self.neighbours

    def _consistency_terms(self) -> tuple[str, ...]:
        """Fields of ``LossTerms`` that the loss returns with these options."""
        weights = {"consistency": self.consistency_weight, "marginal_kl": self.marginal_weight}
        return tuple(name for name, weight in weights.items() if weight)

    def _consistency_options(
        self, images: Images, labels: Labels, context: _Context
    ) -> dict[str, Any]:
        """Arguments of the loss for these options."""
        options: dict[str, Any] = {"marginal_weight": self.marginal_weight}
        if self.consistency_weight:
            near = images
            if context.neighbours is not None:
                labelled = (labels >= 0)[:, None, None, None]
                near = jnp.where(labelled, images, context.neighbours)
            options["augmented_images"] = random_deformation(
                context.keys.augmentation, near, self.augmentation_strength, self.elastic_strength
            )
            options["consistency_weight"] = self.consistency_weight
        return options


@dataclass(frozen=True, kw_only=True)
class _LabelObjective(Objective):
    """Base class of the objectives that use labels."""

    uses_labels: ClassVar[bool] = True

    unsupervised_epochs: int = 0
    """Epochs at the start in which no label is used, if some but not all images are labelled; -1:
    half of all epochs, rounded down, or none with --init_from. The values of c are then permuted to
    agree best with the labels, which with --neighbours count for neighbouring images too. Helps
    with one or two labels of each class, which a network may memorize. Not in the paper."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "unsupervised_epochs", lambda value: value >= -1, "-1 or more")

    def resolve(self, total_steps: float, epochs: int) -> "Objective":
        resolved = super().resolve(total_steps, epochs)
        if self.unsupervised_epochs >= 0:
            return resolved
        unsupervised_epochs: Any = epochs // 2
        return replace(resolved, unsupervised_epochs=unsupervised_epochs)


@dataclass(frozen=True, kw_only=True)
class AnnealedVAE(_CapacityObjective):
    """beta-VAE with an annealed capacity of z, eq. 7."""

    name: ClassVar[str] = "annealed_vae"

    beta: float = 30.0
    """Weight of |KL(z) - C_z|."""
    capacity_z: float = 5.0
    """Final capacity C_z, in nats."""

    def _loss(
        self, model: Model, images: Images, labels: Labels, context: _Context
    ) -> tuple[Scalar, LossTerms]:
        return losses.annealed_vae(
            model.encode,
            model.decode,
            images,
            gaussian_key=context.keys.gaussian,
            beta=self.beta,
            capacity_z=self._capacity(self.capacity_z, context.step),
            **context.multipliers,
            reconstruction_loss=self._reconstruction_loss,
            axis_name=context.axis_name,
        )


@dataclass(frozen=True, kw_only=True)
class CVAE(_LabelObjective, _ConsistencyObjective, _CapacityObjective):
    """Conditional VAE with a classifier for unlabelled images, eq. 5."""

    name: ClassVar[str] = "cvae"
    conditional: ClassVar[bool] = True

    alpha: float = 1.0
    """Weight of the classifier's cross-entropy. The paper gives no value; 1000 works well with few
    labels."""
    beta: float = 1.0
    """Weight of KL(z) or, with a capacity_z, of |KL(z) - C_z|; 1 in the paper."""
    capacity_z: float | None = None
    """Final capacity C_z, in nats, for comparison at equal KL(z). By default none, as in the
    paper."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "alpha", lambda value: value >= 0, "0 or more")
        if self.capacity_z is None:
            for name in ("penalty", "capacity_steps"):
                if getattr(self, name) != getattr(CVAE, name):
                    raise ValueError(f"{name} has no effect without capacity_z; add it")

    @property
    def terms(self) -> tuple[str, ...]:  # type: ignore[override]
        """Fields of ``LossTerms`` that the loss returns."""
        return ("reconstruction", "kl_z", "kl_c", "cross_entropy", *self._consistency_terms())

    def _loss(
        self, model: Model, images: Images, labels: Labels, context: _Context
    ) -> tuple[Scalar, LossTerms]:
        return losses.cvae(
            model.encode,
            model.decode,
            model.classify,
            images,
            labels,
            gaussian_key=context.keys.gaussian,
            alpha=self.alpha,
            beta=self.beta,
            capacity_z=(
                None if self.capacity_z is None else self._capacity(self.capacity_z, context.step)
            ),
            **context.multipliers,
            **self._consistency_options(images, labels, context),
            all_labelled=context.label_info.all_labelled,
            labelled_fraction=context.label_info.labelled_fraction,
            reconstruction_loss=self._reconstruction_loss,
            axis_name=context.axis_name,
        )


@dataclass(frozen=True, kw_only=True)
class JointVAE(_ConsistencyObjective, AnnealedVAE):
    """Joint-VAE with a uniform prior of c, eq. 8."""

    name: ClassVar[str] = "joint_vae"
    has_categorical: ClassVar[bool] = True

    gamma: float = 30.0
    """Weight of |KL(c) - C_c|."""
    capacity_c: float = 5.0
    """Final capacity C_c, in nats; capped at log K, the most that K classes can hold."""
    temperature: float = 0.67
    """Temperature of the Gumbel-softmax."""
    conditional_encoder: bool = False
    """Encode z by q(z|x,c) in place of q(z|x): the network is then the CVAE's, in which a separate
    classifier predicts c and c is an input of the encoder. Not in the paper."""
    information_weight: float = 0.0
    """Weight of the cross-entropy of q(c|x) to c, where x is decoded from z and c drawn from their
    priors, which raises the conditional accuracy. Not in the paper."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("gamma", "capacity_c", "information_weight"):
            require(self, name, lambda value: value >= 0, "0 or more")
        require(self, "temperature", lambda value: value > 0, "above 0")

    def initial_multipliers(self) -> Multipliers:
        multipliers = super().initial_multipliers()
        return {**multipliers, "multiplier_c": jnp.zeros(())} if multipliers else {}

    @property
    def conditional(self) -> bool:  # type: ignore[override]
        """Whether c is an input of the encoder too, and a classifier predicts it."""
        return self.conditional_encoder

    @property
    def terms(self) -> tuple[str, ...]:  # type: ignore[override]
        """Fields of ``LossTerms`` that the loss returns."""
        information = ["information"] if self.information_weight else []
        return ("reconstruction", "kl_z", "kl_c", *self._consistency_terms(), *information)

    def final_unlabelled_capacity_c(self, label_info: LabelInfo) -> float:
        del label_info
        return self.capacity_c

    def _options(
        self, model: Model, images: Images, labels: Labels, context: _Context
    ) -> dict[str, Any]:
        """Arguments of the loss that aren't in the paper."""
        options = self._consistency_options(images, labels, context)
        if self.conditional_encoder:
            options["classify"] = model.classify
        if self.information_weight:
            options["information_weight"] = self.information_weight
            options["prior_latents"] = sampling.prior_latents(
                context.keys.prior, len(images), cast(Any, model).latents, model.classes
            )
            options["classify_decoded"] = cast(Any, model).classify_decoded
        return options

    def _capped_capacity(self, final: float, step: int | Array, model: Model) -> Scalar:
        return jnp.minimum(self._capacity(final, step), math.log(model.classes))

    def _loss(
        self, model: Model, images: Images, labels: Labels, context: _Context
    ) -> tuple[Scalar, LossTerms]:
        return losses.joint_vae(
            model.encode,
            model.decode,
            images,
            gaussian_key=context.keys.gaussian,
            gumbel_key=context.keys.gumbel,
            beta=self.beta,
            gamma=self.gamma,
            capacity_z=self._capacity(self.capacity_z, context.step),
            **context.multipliers,
            capacity_c=self._capped_capacity(self.capacity_c, context.step, model),
            **self._options(model, images, jnp.full(len(images), -1), context),
            temperature=self.temperature,
            reconstruction_loss=self._reconstruction_loss,
            axis_name=context.axis_name,
        )


@dataclass(frozen=True, kw_only=True)
class Ours(_LabelObjective, JointVAE):
    """Joint-VAE with a label-specific prior of c, eq. 10: the paper's objective."""

    name: ClassVar[str] = "ours"

    capacity_c: float = 0.0
    """Final capacity C_c of labelled examples, in nats."""
    unlabelled_capacity_c: float = 5.0
    """Final capacity C_c of unlabelled examples, in nats; capped at log K."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "unlabelled_capacity_c", lambda value: value >= 0, "0 or more")

    def initial_multipliers(self) -> Multipliers:
        multipliers = super().initial_multipliers()
        if not multipliers:
            return {}
        # KL(c) of labelled examples is above its capacity, which is 0 in the paper: their
        # multiplier would only rise to its bound.
        labelled, unlabelled = jnp.asarray(self.gamma, jnp.float32), multipliers["multiplier_c"]
        return {**multipliers, "multiplier_c": labelled, "unlabelled_multiplier_c": unlabelled}

    def final_unlabelled_capacity_c(self, label_info: LabelInfo) -> float:
        return 0.0 if label_info.all_labelled else self.unlabelled_capacity_c

    def _loss(
        self, model: Model, images: Images, labels: Labels, context: _Context
    ) -> tuple[Scalar, LossTerms]:
        return losses.ours(
            model.encode,
            model.decode,
            images,
            labels,
            gaussian_key=context.keys.gaussian,
            gumbel_key=context.keys.gumbel,
            beta=self.beta,
            gamma=self.gamma,
            capacity_z=self._capacity(self.capacity_z, context.step),
            **context.multipliers,
            capacity_c=self._capacity(self.capacity_c, context.step),
            unlabelled_capacity_c=self._capped_capacity(
                self.unlabelled_capacity_c, context.step, model
            ),
            labelled_fraction=context.label_info.labelled_fraction,
            **self._options(model, images, labels, context),
            temperature=self.temperature,
            reconstruction_loss=self._reconstruction_loss,
            axis_name=context.axis_name,
        )


OBJECTIVES: dict[str, type[Objective]] = {
    objective.name: objective for objective in (VAE, CVAE, BetaVAE, AnnealedVAE, JointVAE, Ours)
}
"""The objectives by name."""

PRESETS: dict[str, Objective] = {
    "paper": Ours(),
    "best": Ours(
        capacity_z=16.0, penalty="multiplier", conditional_encoder=True, information_weight=3.0
    ),
    "few_labels": Ours(
        conditional_encoder=True,
        marginal_weight=120.0,
        consistency_weight=300.0,
        augmentation_strength=2.0,
        neighbours=5,
        unsupervised_epochs=-1,
    ),
}
"""Settings of ``ours`` by name: the paper's, those with the best samples at 16 nats, and those for
a label or two of each class, or none."""
