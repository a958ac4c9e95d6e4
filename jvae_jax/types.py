"""Array types, their axis names, and the tuples and callables that modules exchange.

Axis names: ``batch height width channels`` for images, ``latents`` for the continuous z,
``classes`` for the categorical c. Losses and networks take float images in [0, 1], datasets hold
uint8; the ink is bright on a dark background.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jax import Array
from jaxtyping import Float, Int, Key, UInt8

Images = Float[Array, "batch height width channels"]
"""Images with values in [0, 1], or their logits."""
Pixels = UInt8[Array | np.ndarray, "batch height width channels"]
"""Images of a dataset, with values from 0 to 255."""
Labels = Int[Array, "batch"]
"""Class indices; -1 means unlabelled."""
PixelsLike = Pixels | Sequence[Any]
"""Images of a dataset, as an array or nested lists."""
LatentsLike = Float[Array | np.ndarray, "batch latents"] | Sequence[Any]
"""Continuous latents z, as an array or nested lists."""
LabelsLike = Int[Array | np.ndarray, "labels"] | Sequence[int]
"""Class indices, as an array or a list."""
PerExample = Float[Array, "batch"]
"""One value per example."""
Scalar = Float[Array, ""]
"""A single value."""
PRNGKey = Key[Array, ""] | Key[Array, "batch"]
"""A single key, or one per example, which makes noise independent of how a batch is sharded."""
Variables = dict[str, Any]
"""Linen variables, ``{"params": ..., "batch_stats": ...}``."""
Devices = Sequence[Any]
"""A sequence of ``jax.Device``."""


class Posterior(NamedTuple):
    """Parameters of the approximate posteriors q(z|x) and q(c|x) of a batch."""

    mean: Float[Array, "batch latents"]
    """Mean of q(z|x)."""
    logvar: Float[Array, "batch latents"]
    """Log-variance of q(z|x)."""
    logits: Float[Array, "batch classes"] | None = None
    """Unnormalised log-probabilities of q(c|x); None for a model without classes."""


class LossTerms(NamedTuple):
    """Terms of a loss, in nats per image; None for terms that the objective doesn't have."""

    reconstruction: PerExample
    """-log p(x|z,c), summed over pixels and channels."""
    kl_z: PerExample
    """KL(q(z|x) || p(z)), summed over latents."""
    kl_c: PerExample | None = None
    """KL divergence between the categorical posterior and its prior."""
    cross_entropy: PerExample | None = None
    """-log q(y|x) of the CVAE's classifier; 0 if unlabelled."""
    consistency: PerExample | None = None
    """Cross-entropy of q(c|x') to the label, or to q(c|x) if unlabelled, where x' is an
    augmentation of x or of an image near it."""
    marginal_kl: PerExample | None = None
    """Share of an image in KL(q(c) || p(c)), where q(c) is the mean of q(c|x) over the batch."""
    information: PerExample | None = None
    """-log q(c|x) of an image x decoded from z and c that are drawn from their priors."""


Multipliers = Mapping[str, Scalar]
"""Multipliers of KL - C by the name of their argument, such as ``multiplier_z``."""


class Batch(NamedTuple):
    """Images and labels of a dataset, and images near them."""

    images: Pixels
    labels: Int[Array | np.ndarray, "batch"]
    neighbours: Pixels | None = None
    """For each image, a training image that is near it."""


class Keys(NamedTuple):
    """Random keys of one training step, one for each source of noise."""

    gaussian: PRNGKey
    """Key of the Gaussian noise of z."""
    gumbel: PRNGKey
    """Key of the Gumbel noise of c."""
    augmentation: PRNGKey
    """Key of the random transforms of images."""
    prior: PRNGKey
    """Key of z and c drawn from their priors."""


class LabelInfo(NamedTuple):
    """Properties of a dataset's labels, known before training; hashable, so static under jit.

    Attributes:
        all_labelled: no label is -1. The CVAE then skips the sum over classes.
        labelled_fraction: labelled fraction of the dataset, if batches contain another fraction;
            None if they are drawn uniformly.
    """

    all_labelled: bool = False
    labelled_fraction: float | None = None


Encode = Callable[..., Posterior]
"""Maps images to a posterior: ``encode(images)``, or ``encode(images, one_hot_labels)`` for
:func:`losses.cvae`."""
Decode = Callable[[Array], Array]
"""Maps latents, (batch, latents [+ classes]), to image logits."""
Classify = Callable[[Array], Array]
"""Maps images to class logits."""
ReconstructionLoss = Callable[[Array, Array], Array]
"""Maps image logits and images to -log p(x|z) up to a constant, one value per example."""


@runtime_checkable
class Model(Protocol):
    """Interface that objectives require, which a bound linen ``Autoencoder`` satisfies."""

    classes: int
    encode: Encode
    decode: Decode
    classify: Classify
