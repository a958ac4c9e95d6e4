"""The axis vocabulary and the tuples that pass between modules.

Axes are named the same everywhere: ``batch height width channels`` for images, ``latents`` for the
continuous z, ``classes`` for the categorical c. Images are ink-on-dark floats in [0, 1] inside the
losses and networks, uint8 in data sets.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jax import Array
from jaxtyping import Float, Int, Key, UInt8

Images = Float[Array, "batch height width channels"]
Pixels = UInt8[Array | np.ndarray, "batch height width channels"]
"""Images as they lie in a data set."""
Labels = Int[Array, "batch"]
"""A class index, or -1 for an unlabelled example."""
PerExample = Float[Array, "batch"]
Scalar = Float[Array, ""]
PRNGKey = Key[Array, ""] | Key[Array, "batch"]
"""One key, or one for each example, so that noise does not depend on how a batch is sharded."""


class Posterior(NamedTuple):
    """What an encoder says of a batch: the parameters of q(z|x) and q(c|x)."""

    mean: Float[Array, "batch latents"]
    logvar: Float[Array, "batch latents"]
    logits: Float[Array, "batch classes"] | None = None
    """Unnormalised log q(c|x); None for a purely continuous model."""


class LossTerms(NamedTuple):
    """The terms of a loss, in nats, for each example. None: the objective has no such term."""

    reconstruction: PerExample
    """-log p(x|z,c), summed over pixels and channels."""
    kl_z: PerExample
    """KL(q(z|x) || p(z)), summed over latents."""
    kl_c: PerExample | None = None
    """KL of the categorical posterior to its prior."""
    cross_entropy: PerExample | None = None
    """-log q(y|x) of the CVAE's classifier; 0 where there is no label."""
    consistency: PerExample | None = None
    """Cross-entropy of q(c|distorted x) to the label, or to q(c|x) where there is none."""


class Keys(NamedTuple):
    """The noise of one step, by purpose."""

    gaussian: PRNGKey
    gumbel: PRNGKey
    augmentation: PRNGKey


class Batch(NamedTuple):
    """Examples as they lie in a data set."""

    images: Pixels
    labels: Int[Array | np.ndarray, "batch"]


Devices = Sequence[Any]
"""Of ``jax.Device``."""

Encode = Callable[..., Posterior]
"""``encode(images)``, or ``encode(images, one_hot_labels)`` as :func:`losses.cvae` says."""
Decode = Callable[[Array], Array]
"""Latents, (batch, latents [+ classes]), to image logits."""
ReconstructionLoss = Callable[[Array, Array], Array]
"""Image logits and images to -log p, up to a constant, for each example."""
Classify = Callable[[Array], Array]
"""Images to class logits."""


@runtime_checkable
class Model(Protocol):
    """What an objective asks of a model; a linen ``Autoencoder`` bound to its variables is one."""

    classes: int
    encode: Encode
    decode: Decode
    classify: Classify


Variables = dict[str, Any]
"""Linen's ``{"params": ..., "batch_stats": ...}``."""
