"""The six objectives: hyperparameters, capacity schedule and the loss they weigh.

The objective is the configuration: hashable (static under jit), printable, ``asdict``-able. Field
defaults are the paper's values; the Joint-VAE code's where the paper gives none.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jax import Array

from jvae_jax import losses
from jvae_jax.augmentation import random_affine
from jvae_jax.types import Images, Keys, Labels, LossTerms, Model, ReconstructionLoss, Scalar

CAPACITY_STEPS = 25_000
"""Iterations over which the paper raises the capacities..."""
PAPER_STEPS = 93_750
"""...of the 100 epochs x 60,000 images / 64 that it trains for."""

RECONSTRUCTION_LOSSES: dict[str, ReconstructionLoss] = {
    "bernoulli_nll": losses.bernoulli_nll,
    "squared_error": losses.squared_error,
}


def default_capacity_steps(total_steps: float) -> int:
    """The paper's ramp, or the same share of a run shorter than the paper's."""
    return min(CAPACITY_STEPS, round(total_steps * CAPACITY_STEPS / PAPER_STEPS))


def ramp(step: int | Array, final: float, steps: int) -> Scalar:
    """A capacity in nats: from 0 in a straight line to ``final`` at ``steps``, then constant."""
    return final * jnp.minimum(step / max(steps, 1), 1.0)


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What the six have in common."""

    discrete: ClassVar[bool] = False
    """Whether the model has a categorical latent c."""
    conditional: ClassVar[bool] = False
    """Whether labels enter the encoder and the decoder."""
    terms: ClassVar[tuple[str, ...]] = ("reconstruction", "kl_z")
    """The fields of ``LossTerms`` that it fills."""
    reconstruction_loss: str = "bernoulli_nll"
    """One of ``RECONSTRUCTION_LOSSES``. The paper doesn't say which."""

    @property
    def _reconstruction_loss(self) -> ReconstructionLoss:
        return RECONSTRUCTION_LOSSES[self.reconstruction_loss]

    def loss(
        self,
        model: Model,
        images: Images,
        labels: Labels,
        *,
        step: int | Array,
        keys: Keys,
        axis_name: str | None = None,
    ) -> tuple[Scalar, LossTerms]:
        """The loss at an iteration, in nats per image, and its terms for each example."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class VAE(Objective):
    """Eq. 1."""

    def loss(self, model, images, labels, *, step, keys, axis_name=None):
        return losses.vae(
            model.encode,
            model.decode,
            images,
            gaussian_key=keys.gaussian,
            reconstruction_loss=self._reconstruction_loss,
        )


@dataclass(frozen=True, kw_only=True)
class CVAE(Objective):
    """Eq. 5. The paper gives no alpha."""

    conditional: ClassVar[bool] = True
    terms: ClassVar[tuple[str, ...]] = ("reconstruction", "kl_z", "kl_c", "cross_entropy")
    alpha: float = 1.0
    """Weight of the classifier's cross-entropy."""
    all_labelled: bool = False
    """Promises that no label is -1, and saves the sum over classes."""
    labelled_fraction: float | None = None
    """The share of the data set that is labelled, where batches hold another share."""

    def loss(self, model, images, labels, *, step, keys, axis_name=None):
        return losses.cvae(
            model.encode,
            model.decode,
            model.classify,
            images,
            labels,
            gaussian_key=keys.gaussian,
            alpha=self.alpha,
            all_labelled=self.all_labelled,
            labelled_fraction=self.labelled_fraction,
            reconstruction_loss=self._reconstruction_loss,
            axis_name=axis_name,
        )


@dataclass(frozen=True, kw_only=True)
class BetaVAE(Objective):
    """Eq. 6."""

    beta: float = 30.0
    """Weight of KL(z)."""

    def loss(self, model, images, labels, *, step, keys, axis_name=None):
        return losses.beta_vae(
            model.encode,
            model.decode,
            images,
            gaussian_key=keys.gaussian,
            beta=self.beta,
            reconstruction_loss=self._reconstruction_loss,
        )


@dataclass(frozen=True, kw_only=True)
class AnnealedVAE(Objective):
    """Eq. 7."""

    beta: float = 30.0
    """Weight of KL(z)'s distance from its capacity."""
    capacity_z: float = 5.0
    """C_z after the ramp, in nats."""
    capacity_steps: int = CAPACITY_STEPS
    """Iterations over which capacities rise from 0."""

    def loss(self, model, images, labels, *, step, keys, axis_name=None):
        return losses.annealed_vae(
            model.encode,
            model.decode,
            images,
            gaussian_key=keys.gaussian,
            beta=self.beta,
            capacity_z=ramp(step, self.capacity_z, self.capacity_steps),
            reconstruction_loss=self._reconstruction_loss,
            axis_name=axis_name,
        )


@dataclass(frozen=True, kw_only=True)
class JointVAE(AnnealedVAE):
    """Eq. 8."""

    discrete: ClassVar[bool] = True
    terms: ClassVar[tuple[str, ...]] = ("reconstruction", "kl_z", "kl_c")
    gamma: float = 30.0
    """Weight of KL(c)'s distance from its capacity."""
    capacity_c: float = 5.0
    """C_c after the ramp, in nats. The ramp stops at log K, all that K classes can hold."""
    temperature: float = 0.67
    """Of the Gumbel-softmax."""

    def loss(self, model, images, labels, *, step, keys, axis_name=None):
        return losses.joint_vae(
            model.encode,
            model.decode,
            images,
            gaussian_key=keys.gaussian,
            gumbel_key=keys.gumbel,
            beta=self.beta,
            gamma=self.gamma,
            capacity_z=ramp(step, self.capacity_z, self.capacity_steps),
            capacity_c=_categorical_ramp(step, self.capacity_c, self.capacity_steps, model),
            temperature=self.temperature,
            reconstruction_loss=self._reconstruction_loss,
            axis_name=axis_name,
        )


@dataclass(frozen=True, kw_only=True)
class Ours(JointVAE):
    """Eq. 10."""

    capacity_c: float = 0.0
    """C_c of labelled examples after the ramp, in nats."""
    consistency_weight: float = 0.0
    """Weight of what q(c|x) says otherwise of a slightly distorted x. Not in the paper."""
    unlabelled_capacity_c: float = 5.0
    """C_c of unlabelled examples after the ramp, in nats. The ramp stops at log K."""
    labelled_fraction: float | None = None
    """The share of the data set that is labelled, where batches hold another share."""

    @property
    def terms(self) -> tuple[str, ...]:  # type: ignore[override]
        """The fields of ``LossTerms`` that it fills."""
        return (*JointVAE.terms, *(["consistency"] if self.consistency_weight else []))

    def loss(self, model, images, labels, *, step, keys, axis_name=None):
        distorted = random_affine(keys.augmentation, images) if self.consistency_weight else None
        return losses.ours(
            model.encode,
            model.decode,
            images,
            labels,
            gaussian_key=keys.gaussian,
            gumbel_key=keys.gumbel,
            beta=self.beta,
            gamma=self.gamma,
            capacity_z=ramp(step, self.capacity_z, self.capacity_steps),
            capacity_c=ramp(step, self.capacity_c, self.capacity_steps),
            unlabelled_capacity_c=_categorical_ramp(
                step, self.unlabelled_capacity_c, self.capacity_steps, model
            ),
            labelled_fraction=self.labelled_fraction,
            augmented_images=distorted,
            consistency_weight=self.consistency_weight,
            temperature=self.temperature,
            reconstruction_loss=self._reconstruction_loss,
            axis_name=axis_name,
        )


def _categorical_ramp(step: int | Array, final: float, steps: int, model: Model) -> Scalar:
    return jnp.minimum(ramp(step, final, steps), math.log(model.classes))


OBJECTIVES: dict[str, type[Objective]] = {
    "vae": VAE,
    "cvae": CVAE,
    "beta_vae": BetaVAE,
    "annealed_vae": AnnealedVAE,
    "joint_vae": JointVAE,
    "ours": Ours,
}
