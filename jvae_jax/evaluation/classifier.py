"""A classifier that marks generated characters, trained on the same data as what it marks.

It sees the training images only, slightly distorted, and never a generated one; its own accuracy on
the test split stands beside whatever it says.
"""

import zipfile
from dataclasses import dataclass
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

from jvae_jax.augmentation import random_affine
from jvae_jax.data import DATA_DIR, Dataset
from jvae_jax.files import replacing
from jvae_jax.models import layers
from jvae_jax.models.inference import BATCH, map_batches, scale
from jvae_jax.types import Images, PRNGKey, Scalar, Variables

FEATURES = 256
_FILTERS = (32, 64, 128)
_STEPS, _STEPS_PER_DISPATCH = 7000, 100
_BATCH_SIZE = 128
_LEARNING_RATE = 3e-3
_DROPOUT, _SMOOTHING = 0.3, 0.05
_VERSION = 1
"""Of all that decides what is trained; a judge of another isn't taken from the cache."""

_State = tuple[Variables, optax.OptState]


class Network(nn.Module):
    """Three stride-2 convolutions, a linear layer of features, and the class logits."""

    classes: int
    train: bool = False

    @nn.compact
    def __call__(
        self, images: Images
    ) -> tuple[Float[Array, "batch features"], Float[Array, "batch classes"]]:
        activations = images
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
        classes: how many it tells apart.
        variables: its parameters and statistics.
        accuracy: the share of the test split's labels that it reads.
    """

    classes: int
    variables: Variables
    accuracy: float

    def __call__(
        self, images: Images
    ) -> tuple[Int[Array, "batch"], Float[Array, "batch features"]]:
        """Reads characters.

        Args:
            images: floats in [0, 1].

        Returns:
            The class of each, and its features, on which the class depends linearly.
        """
        logits, features = self._logits_and_features(images)
        return jnp.argmax(logits, axis=-1), features

    def probabilities(self, images: Images) -> Float[Array, "batch classes"]:
        """How likely each character, of floats in [0, 1], is to be of each class."""
        return jax.nn.softmax(self._logits_and_features(images)[0])

    def _logits_and_features(self, images: Images) -> tuple[Array, Array]:
        return _read(Network(self.classes), self.variables, images)


def load(dataset: Dataset, directory: str | Path = DATA_DIR) -> EvalClassifier:
    """The judge of a data set, trained if there is none in ``directory`` yet.

    Training takes 7,000 steps of 128 images.

    Raises:
        ValueError: if there is no labelled image to train or to test with.
        OSError: if it can't be kept.
    """
    path = (
        Path(directory).expanduser() / "eval_classifiers" / f"{dataset.fingerprint}_{_VERSION}.npz"
    )
    classifier = _kept(path, len(dataset.class_names))
    if classifier is None:
        classifier = train(dataset)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            variables: Any = flatten_dict(classifier.variables, sep="/")
            np.savez(file, allow_pickle=False, accuracy=np.array(classifier.accuracy), **variables)
    return classifier


def train(dataset: Dataset, *, steps: int = _STEPS) -> EvalClassifier:
    """Trains a judge on the labelled training images, and tests it on the labelled test images.

    Raises:
        ValueError: if there are none of either.
    """
    images, labels = _labelled(dataset.train_images, dataset.train_labels, "train")
    test_images, test_labels = _labelled(dataset.test_images, dataset.test_labels, "test")
    classes = len(dataset.class_names)
    init_key, train_key = jax.random.split(jax.random.key(0))
    optimizer = optax.adam(optax.cosine_onecycle_schedule(steps, _LEARNING_RATE))
    variables: Any = Network(classes).init(init_key, scale(test_images[:1]))
    state = dict(variables), optimizer.init(variables["params"])
    images, labels = jnp.asarray(images), jnp.asarray(labels)
    for start in tqdm(range(0, steps, _STEPS_PER_DISPATCH), desc="judge", disable=None):
        chunk = jnp.arange(start, min(start + _STEPS_PER_DISPATCH, steps))
        network = Network(classes, train=True)
        state = _train_steps(network, optimizer, state, images, labels, train_key, chunk)
    logits, _ = _read(Network(classes), state[0], scale(test_images))
    accuracy = float(np.mean(np.argmax(logits, axis=-1) == test_labels))
    return EvalClassifier(classes, jax.device_get(state[0]), accuracy)


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def _train_steps(
    network: Network,
    optimizer: optax.GradientTransformation,
    state: _State,
    images: Array,
    labels: Array,
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

    def step(state: _State, step: Array) -> tuple[_State, None]:
        variables, opt_state = state
        choice_key, augmentation_key, dropout_key = jax.random.split(
            jax.random.fold_in(key, step), 3
        )
        chosen = jax.random.randint(choice_key, (_BATCH_SIZE,), 0, len(images))
        distorted = random_affine(augmentation_key, scale(images[chosen]))
        params, statistics = variables["params"], {"batch_stats": variables["batch_stats"]}
        gradients, statistics = jax.grad(loss, has_aux=True)(
            params, statistics, distorted, labels[chosen], dropout_key
        )
        updates, opt_state = optimizer.update(gradients, opt_state)
        return ({"params": optax.apply_updates(params, updates), **statistics}, opt_state), None

    state, _ = lax.scan(step, state, steps)
    return state


@partial(jax.jit, static_argnums=0)
def _read(network: Network, variables: Variables, images: Images) -> tuple[Array, Array]:
    def read(images: Array) -> tuple[Array, Array]:
        features, logits = nn.apply(Network.__call__, network)(variables, images)
        return logits, features

    return map_batches(read, BATCH, images)


def _labelled(images: np.ndarray, labels: np.ndarray, split: str) -> tuple[np.ndarray, np.ndarray]:
    labelled = labels >= 0
    if not labelled.any():
        raise ValueError(f"a judge needs labels, and no {split} image has one")
    return images[labelled], labels[labelled]


def _kept(path: Path, classes: int) -> EvalClassifier | None:
    """The judge that a file holds, or None if there is no whole one."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            kept = dict(arrays)
            accuracy = float(kept.pop("accuracy"))
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        return None
    return EvalClassifier(classes, unflatten_dict(kept, sep="/"), accuracy)
