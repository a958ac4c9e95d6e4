"""Supervised baseline: a classifier with the encoder's trunk, trained on the labelled images."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from jvae_jax import losses
from jvae_jax.data import Dataset
from jvae_jax.models.autoencoder import Classifier
from jvae_jax.models.inference import EVAL_BATCH_SIZE, map_batches, scale_pixels
from jvae_jax.training.step import update_average
from jvae_jax.types import PRNGKey, Variables

_STEPS = 5000
_BATCH_SIZE = 64

_State = tuple[Variables, Variables, optax.OptState]


def test_accuracy(dataset: Dataset, seed: int, *, steps: int = _STEPS) -> float:
    """Trains the classifier on the labelled training images and returns its test accuracy.

    Encoder, optimizer and batch size are the paper's. As for the other models, the moving average
    of the weights is evaluated.

    Args:
        dataset: images and labels; a label of -1 means unlabelled.
        seed: seed of initialization and batches.
        steps: number of training steps.
    """
    labelled = dataset.train_labels >= 0
    images = jnp.asarray(dataset.train_images[labelled])
    labels = jnp.asarray(dataset.train_labels[labelled])
    classifier = Classifier(len(dataset.class_names))
    optimizer = optax.adam(1e-3)
    init_key, order_key = jax.random.split(jax.random.key(seed))
    variables: Any = dict(classifier.init(init_key, scale_pixels(images[:1])))
    state = variables, variables, optimizer.init(variables["params"])
    _, average, _ = _train(classifier, optimizer, steps, state, images, labels, order_key)
    known = dataset.test_labels >= 0
    predicted = _predict(classifier, average, jnp.asarray(dataset.test_images[known]))
    return float(np.mean(np.asarray(predicted) == dataset.test_labels[known]))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _train(
    classifier: Classifier,
    optimizer: optax.GradientTransformation,
    steps: int,
    state: _State,
    images: Array,
    labels: Array,
    key: PRNGKey,
) -> _State:
    def loss(params: Any, statistics: Any, images: Array, labels: Array) -> tuple[Array, Any]:
        apply = nn.apply(Classifier.__call__, classifier.clone(train=True), mutable=["batch_stats"])
        logits, updates = apply({"params": params, **statistics}, images)
        return losses.label_kl(logits, labels).mean(), updates

    def step(step: Array, state: _State) -> _State:
        variables, average, opt_state = state
        batch = jax.random.randint(jax.random.fold_in(key, step), (_BATCH_SIZE,), 0, len(images))
        params, statistics = variables["params"], {"batch_stats": variables["batch_stats"]}
        gradients, statistics = jax.grad(loss, has_aux=True)(
            params, statistics, scale_pixels(images[batch]), labels[batch]
        )
        updates, opt_state = optimizer.update(gradients, opt_state)
        variables = {"params": optax.apply_updates(params, updates), **statistics}
        return variables, update_average(step, average, variables), opt_state

    return lax.fori_loop(0, steps, step, state)


@partial(jax.jit, static_argnums=0)
def _predict(classifier: Classifier, variables: Variables, images: Array) -> Array:
    def predict(images: Array) -> Array:
        logits = nn.apply(Classifier.__call__, classifier)(variables, scale_pixels(images))
        return jnp.argmax(logits, axis=-1)

    return map_batches(predict, EVAL_BATCH_SIZE, images)
