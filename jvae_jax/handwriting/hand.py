"""A hand: the style of one writer, estimated from pictures of characters."""

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array
from jaxtyping import Float

from jvae_jax.files import array_digest, write_json
from jvae_jax.models.inference import to_pixels
from jvae_jax.trained_model import TrainedModel
from jvae_jax.types import PixelsLike

logger = logging.getLogger(__name__)

_MAX_VALUE = 100
"""Absolute value of z, in standard deviations of the prior, beyond which it isn't a style."""
_MAX_BYTES = 1_000_000
"""Size of a file beyond which it isn't one of a hand."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Hand:
    """The style of a writer: a normal distribution of z.

    Attributes:
        z: mean.
        standard_deviation: standard deviation of each dimension from character to character.
        pictures: number of pictures from which it was estimated; 0 if it was sampled.
        model: name of the model to whose z it belongs.
        fingerprint: digest of the model's variables; empty if it isn't known.
    """

    z: Float[np.ndarray, "latents"]
    standard_deviation: Float[np.ndarray, "latents"]
    pictures: int
    model: str = ""
    fingerprint: str = ""

    def styles(
        self, count: int, key: Array, variation: float = 1.0
    ) -> Float[np.ndarray, "count latents"]:
        """Samples a style for each character.

        Args:
            count: number of styles.
            key: random key.
            variation: factor of the standard deviation; 0 for the mean.
        """
        noise = np.asarray(jax.random.normal(key, (count, len(self.z)), np.float32))
        return self.z + np.float32(variation) * self.standard_deviation * noise

    def save(self, path: str | Path) -> None:
        """Writes the hand as JSON.

        Raises:
            FileExistsError: if something other than a regular file is in the way.
            OSError: if it can't be written.
        """
        contents = {
            "model": self.model,
            "fingerprint": self.fingerprint,
            "pictures": self.pictures,
            "z": self.z.tolist(),
            "standard_deviation": self.standard_deviation.tolist(),
        }
        write_json(Path(path), contents)


def estimate_hand(model: TrainedModel, images: PixelsLike) -> Hand:
    """Estimates a hand from pictures of any characters that it wrote.

    The posteriors q(z|x) are averaged, weighted by their precision in each dimension: a picture
    from which a dimension can't be read counts little there. The variance is that of the weighted
    mixture of the posteriors, and of a single picture that of its posterior.

    Args:
        model: the model in whose z the hand is expressed.
        images: uint8, (pictures, height, width, channels).

    Raises:
        ValueError: if the images aren't uint8, don't have the model's shape, or there are none.
    """
    if not len(images):
        raise ValueError("a hand needs one picture or more, got none")
    posterior = model.encode(images)
    means, variances = np.asarray(posterior.mean), np.exp(np.asarray(posterior.logvar))
    z, variance = combine(means, variances)
    return Hand(
        z=z,
        standard_deviation=np.sqrt(variance),
        pictures=len(means),
        model=model.name,
        fingerprint=fingerprint(model),
    )


def combine(
    means: Float[np.ndarray, "pictures latents"], variances: Float[np.ndarray, "pictures latents"]
) -> tuple[Float[np.ndarray, "latents"], Float[np.ndarray, "latents"]]:
    """Returns the mean and variance of a mixture of posteriors, weighted by their precision."""
    weights = 1 / variances
    weights /= weights.sum(axis=0)
    mean = (weights * means).sum(axis=0)
    return mean, (weights * (variances + (means - mean) ** 2)).sum(axis=0)


def sample_hand(model: TrainedModel, key: Array) -> Hand:
    """Samples a hand from the prior of z, with the spread of the characters drawn in its style.

    Args:
        model: the model.
        key: random key.
    """
    z = np.asarray(jax.random.normal(key, (model.network.latents,), np.float32))
    classes = np.arange(model.network.classes) if model.has_classes else None
    count = 1 if classes is None else len(classes)
    characters = model.decode(z[None].repeat(count, axis=0), classes)
    return replace(estimate_hand(model, to_pixels(np.asarray(characters))), z=z, pictures=0)


def load_hand(path: str | Path, model: TrainedModel) -> Hand:
    """Loads a hand for a model, from a file of :meth:`Hand.save` or a style that the page saved.

    Args:
        path: path of the file.
        model: the model that is to write in the hand.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it isn't the file of a hand, or the hand is one of another model.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no hand {path}; `jvae hand` makes one")
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"{path} isn't a hand: it has {path.stat().st_size:,} bytes")
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} isn't a hand: it isn't a JSON file ({error})") from error
    if not isinstance(contents, dict) or "z" not in contents:
        raise ValueError(f"{path} isn't a hand: it holds no style z")
    latents = model.network.latents
    z = _numbers(contents["z"], path, "z")
    deviation = _numbers(
        contents.get("standard_deviation", [0.0] * len(z)), path, "standard_deviation"
    )
    if len(z) != latents or len(deviation) != latents:
        raise ValueError(
            f"{path} is of another model: its z and standard_deviation have {len(z)} and "
            f"{len(deviation)} dimensions, z of {model.name or 'this model'} has {latents}"
        )
    if (deviation < 0).any():
        raise ValueError(f"{path} isn't a hand: a standard deviation is below 0")
    name, digest = contents.get("model", ""), contents.get("fingerprint", "")
    if digest != fingerprint(model) if digest else name not in ("", model.name):
        other = f"{name}, in another training" if name == model.name else repr(name)
        raise ValueError(
            f"{path} is of another model, {other}; its z means another style to "
            f"{model.name or 'this model'}"
        )
    factors = contents.get("factors")
    if isinstance(factors, dict) and factors:
        names = ", ".join(map(str, factors))
        logger.warning("%s also sets %s, which a hand doesn't keep; z alone is used", path, names)
    pictures = contents.get("pictures")
    return Hand(
        z=z,
        standard_deviation=deviation,
        pictures=pictures if type(pictures) is int and pictures > 0 else 0,
        model=model.name,
        fingerprint=fingerprint(model),
    )


def fingerprint(model: TrainedModel) -> str:
    """Returns a digest of the model's variables."""
    return array_digest(jax.tree.leaves(model.variables))[:16]


def _numbers(values: Any, path: Path, name: str) -> Float[np.ndarray, "values"]:
    if not isinstance(values, list) or not all(
        type(value) in (int, float) and abs(value) <= _MAX_VALUE for value in values
    ):
        raise ValueError(
            f"{path} isn't a hand: its {name} isn't a list of numbers up to {_MAX_VALUE}"
        )
    return np.array(values, np.float32)
