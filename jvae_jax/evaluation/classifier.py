"""The evaluation classifier, a CNN that classifies generated characters.

It is trained on augmented training images of the dataset, never on generated ones. Its accuracy on
the test split is reported beside the metrics that depend on it.
"""

import logging
import math
import time
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array, lax
from jaxtyping import Float, Int
from tqdm import tqdm

from jvae_jax import pretrained
from jvae_jax.augmentation import random_deformation
from jvae_jax.data import DATA_DIR, Dataset
from jvae_jax.files import load_arrays, save_arrays
from jvae_jax.models import layers
from jvae_jax.models.autoencoder import pad_to_stride
from jvae_jax.models.inference import (
    CHUNK_BYTES,
    EVAL_BATCH_SIZE,
    in_chunks,
    map_batches,
    scale_pixels,
)
from jvae_jax.numerics import default_numerics
from jvae_jax.types import Batch, Images, Pixels, PRNGKey, Scalar, Variables
from jvae_jax.validation import as_images

logger = logging.getLogger(__name__)

FEATURES = 256
"""Number of features per image."""
_FILTERS = (32, 64, 128)
STEPS = 7000
"""Number of optimizer steps."""
_STEPS_PER_DISPATCH = 100
_BATCH_SIZE = 128
_LEARNING_RATE = 3e-3
_DROPOUT, _SMOOTHING = 0.3, 0.05
_VERSION = 2
"""Version of the architecture and training procedure; cached classifiers of others are ignored."""

_FOLDER = "eval_classifiers"

_State = tuple[Variables, optax.OptState]


class Network(nn.Module):
    """Three stride-2 convolutions, a dense feature layer and a linear layer of class logits."""

    classes: int
    train: bool = False

    @nn.compact
    def __call__(
        self, images: Images
    ) -> tuple[Float[Array, "batch features"], Float[Array, "batch classes"]]:
        activations = pad_to_stride(images, len(_FILTERS))
        for filters in _FILTERS:
            activations = layers.Conv(filters, nn.initializers.he_normal())(activations)
            activations = layers.NormReLU(self.train, None)(activations)
        hidden = activations.reshape(len(images), -1)
        hidden = nn.Dropout(_DROPOUT, deterministic=not self.train)(hidden)
        hidden = nn.Dense(FEATURES, use_bias=False)(hidden)
        features = layers.NormReLU(self.train, None)(hidden)
        return features, nn.Dense(self.classes)(features)


@dataclass(frozen=True, eq=False)
class EvalClassifier:
    """A trained classifier.

    Attributes:
        classes: number of classes.
        variables: parameters and batch statistics.
        accuracy: accuracy on the labelled images of the test split.
        image_shape: height, width and channels of its images; None doesn't check them.
    """

    classes: int
    variables: Variables = field(repr=False)
    accuracy: float
    image_shape: tuple[int, int, int] | None = None

    @default_numerics()
    def __call__(
        self, images: Images
    ) -> tuple[Int[Array, "batch"], Float[Array, "batch features"]]:
        """Classifies images.

        Args:
            images: floats in [0, 1], (batch, height, width, channels).

        Returns:
            The predicted class of each image, (batch,), and the features of the last hidden layer,
            (batch, features).

        Raises:
            ValueError: if the images aren't floats or have another shape.
        """
        logits, features = self._logits_and_features(images)
        return jnp.argmax(logits, axis=-1), features

    @default_numerics()
    def probabilities(self, images: Images) -> Float[Array, "batch classes"]:
        """Class probabilities of images with values in [0, 1]."""
        return jax.nn.softmax(self._logits_and_features(images)[0])

    def _logits_and_features(self, images: Images) -> tuple[Array, Array]:
        images = as_images(images, image_shape=self.image_shape)
        return _apply(Network(self.classes), self.variables, images)


def classify_split(
    classifier: EvalClassifier, images: Pixels
) -> tuple[Int[np.ndarray, "examples"], Float[np.ndarray, "examples features"]]:
    """Classifies the images of a split, uint8, a part of them on the device at a time.

    Args:
        classifier: evaluation classifier.
        images: uint8, (examples, height, width, channels), which may be memory-mapped.

    Returns:
        Class indices, (examples,), and features, (examples, features).
    """
    predicted, features = in_chunks(
        lambda chunk: classifier(scale_pixels(chunk)), np.asarray(images)
    )
    return np.asarray(predicted), np.asarray(features)


def load_or_train(dataset: Dataset, directory: str | Path = DATA_DIR) -> EvalClassifier:
    """Loads the evaluation classifier of a dataset, or trains and caches it.

    That of MNIST at 32 x 32 pixels comes with the package.

    Args:
        dataset: training and test images with labels.
        directory: parent of the cache folder, ``eval_classifiers``. A damaged cache file is
            replaced.

    Raises:
        ValueError: if no training or no test image has a label.
        OSError: if the classifier can't be cached.
    """
    name = f"{dataset.fingerprint}_{_VERSION}.safetensors"
    path = Path(directory).expanduser() / _FOLDER / name
    for cached in (pretrained.PACKAGED / _FOLDER / name, path):
        classifier = _load_cached(cached, dataset)
        if classifier is not None:
            break
    else:
        logger.info("training the evaluation classifier, once for this dataset")
        classifier = train(dataset)
        path.parent.mkdir(parents=True, exist_ok=True)
        _save(classifier, path)
    return classifier


@default_numerics()
def train(dataset: Dataset, *, steps: int = STEPS) -> EvalClassifier:
    """Trains an evaluation classifier on the labelled training images.

    Args:
        dataset: training and test images with labels.
        steps: number of optimizer steps, of 128 images each.

    Raises:
        ValueError: if no training or no test image has a label.
    """
    labelled = _find_labelled(dataset.train_labels, "train")
    test = _find_labelled(dataset.test_labels, "test")
    classes = len(dataset.class_names)
    init_key, train_key = jax.random.split(jax.random.key(0))
    optimizer = optax.adam(optax.cosine_onecycle_schedule(steps, _LEARNING_RATE))
    variables: Any = Network(classes).init(init_key, scale_pixels(dataset.test_images[:1]))
    state = dict(variables), optimizer.init(variables["params"])
    # The images may be memory-mapped: those of a dispatch are read and sent to the device.
    batch_bytes = _BATCH_SIZE * math.prod(dataset.image_shape)
    at_a_time = max(1, min(_STEPS_PER_DISPATCH, CHUNK_BYTES // batch_bytes))
    starts = range(0, steps, at_a_time)
    for start in tqdm(starts, desc="classifier", disable=None):
        started = time.monotonic()
        chunk = jnp.arange(start, min(start + at_a_time, steps))
        examples = labelled[_draw_examples(train_key, chunk, len(labelled))]
        batches = Batch(dataset.train_images[examples], dataset.train_labels[examples])
        network = Network(classes, train=True)
        state = jax.block_until_ready(
            _train_steps(network, optimizer, state, batches, train_key, chunk)
        )
        done = start + at_a_time
        if start == at_a_time and done < steps:  # the first dispatch includes compilation
            seconds = (time.monotonic() - started) / at_a_time * (steps - done)
            left = timedelta(seconds=round(seconds))
            logger.info("evaluation classifier: %d of %d steps, %s left", done, steps, left)
    predicted = in_chunks(
        lambda images: np.argmax(_apply(Network(classes), state[0], scale_pixels(images))[0], -1),
        dataset.test_images,
    )
    accuracy = float(np.mean(predicted[test] == dataset.test_labels[test]))
    return EvalClassifier(classes, jax.device_get(state[0]), accuracy, dataset.image_shape)


def _step_keys(key: PRNGKey, step: Array) -> PRNGKey:
    """Keys of a step: for its examples, their augmentation and dropout."""
    return jax.random.split(jax.random.fold_in(key, step), 3)


@partial(jax.jit, static_argnums=2)
def _draw_examples(
    key: PRNGKey, steps: Int[Array, "steps"], count: int
) -> Int[Array, "steps batch"]:
    """Examples of each step, drawn with replacement from ``count``."""
    return jax.vmap(
        lambda step: jax.random.randint(_step_keys(key, step)[0], (_BATCH_SIZE,), 0, count)
    )(steps)


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def _train_steps(
    network: Network,
    optimizer: optax.GradientTransformation,
    state: _State,
    batches: Batch,
    key: PRNGKey,
    steps: Int[Array, "steps"],
) -> _State:
    def loss(
        params: Any, statistics: Any, images: Array, labels: Array, key: PRNGKey
    ) -> tuple[Scalar, Any]:
        apply = nn.apply(Network.__call__, network, mutable=["batch_stats"])
        variables = {"params": params, **statistics}
        (_, logits), updates = apply(variables, images, rngs={"dropout": key})
        targets = optax.smooth_labels(jax.nn.one_hot(labels, network.classes), _SMOOTHING)
        return optax.softmax_cross_entropy(logits, targets).mean(), updates

    def train_step(state: _State, inputs: tuple[Batch, Array]) -> tuple[_State, None]:
        variables, opt_state = state
        batch, step = inputs
        _, augmentation_key, dropout_key = _step_keys(key, step)
        augmented = random_deformation(augmentation_key, scale_pixels(batch.images))
        params, statistics = variables["params"], {"batch_stats": variables["batch_stats"]}
        gradients, statistics = jax.grad(loss, has_aux=True)(
            params, statistics, augmented, jnp.asarray(batch.labels), dropout_key
        )
        updates, opt_state = optimizer.update(gradients, opt_state)
        return ({"params": optax.apply_updates(params, updates), **statistics}, opt_state), None

    state, _ = lax.scan(train_step, state, (batches, steps))
    return state


@partial(jax.jit, static_argnums=0)
def _apply(network: Network, variables: Variables, images: Images) -> tuple[Array, Array]:
    def apply_batch(images: Array) -> tuple[Array, Array]:
        features, logits = nn.apply(Network.__call__, network)(variables, images)
        return logits, features

    return map_batches(apply_batch, EVAL_BATCH_SIZE, images)


def _find_labelled(labels: np.ndarray, split: str) -> np.ndarray:
    labelled = np.flatnonzero(labels >= 0)
    if not len(labelled):
        raise ValueError(f"the evaluation classifier needs labels, but no {split} image has one")
    return labelled


def _save(classifier: EvalClassifier, path: Path) -> None:
    arrays: Any = flatten_dict(classifier.variables, sep="/")
    save_arrays(path, {**arrays, "accuracy": np.array(classifier.accuracy)})


def _load_cached(path: Path, dataset: Dataset) -> EvalClassifier | None:
    """Loads a cached classifier; None if the file is missing or damaged."""
    try:
        arrays = load_arrays(path)
        accuracy = float(arrays.pop("accuracy"))
    except (OSError, KeyError, ValueError):
        return None
    variables = unflatten_dict(arrays, sep="/")
    return EvalClassifier(len(dataset.class_names), variables, accuracy, dataset.image_shape)
