"""Reconstruction and classification metrics of a split, averaged in float64 on the host."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Int

from jvae_jax import losses, sampling
from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.models.inference import (
    EVAL_BATCH_SIZE,
    Results,
    in_chunks,
    map_batches,
    scale_pixels,
)
from jvae_jax.numerics import default_numerics
from jvae_jax.objectives import Objective
from jvae_jax.sampling import example_keys
from jvae_jax.types import Batch, Keys, LabelInfo, LossTerms, Posterior, Variables
from jvae_jax.validation import as_class_indices, as_pixels

Evaluation = dict[str, Any]
"""Metrics by name, JSON-serialisable: numbers, None and (nested) lists."""


@default_numerics()
def evaluate(
    model: Autoencoder,
    variables: Variables,
    split: Batch,
    key: Array,
    *,
    unlabelled_classes: Sequence[int] = (),
) -> Evaluation:
    """Computes the metrics of a trained model on a split.

    Args:
        model: an autoencoder, with or without classes.
        variables: its parameters and batch statistics.
        split: uint8 images, (examples, height, width, channels), and labels, (examples,). Accuracy
            and ``kl_c_label`` ignore images of label -1.
        key: random key of the sampled metrics.
        unlabelled_classes: classes without labels in training. Their categories c are in no
            particular order, so accuracy is computed after :func:`match_categories`.

    Returns:
        - ``examples``: number of images
        - ``mse``, ``mse_sampled``: squared error per pixel and channel of the reconstruction from
          the mean z and most probable c, and from one sample of both, or of z alone if the model is
          conditional
        - ``reconstruction_nll``, ``reconstruction_nll_sampled``: the same for the Bernoulli
          -log p(x|z,c), in nats per image
        - ``kl_z``, ``kl_z_per_latent``: KL(q(z|x) || N(0, 1)), in nats per image
        - with classes, ``kl_c_uniform`` (eq. 9) and ``kl_c_label`` (eq. 11), in nats per image
        - with classes, ``accuracy`` and ``accuracy_per_class`` of the most probable c, None for a
          class without labels in the split
        - with unlabelled classes, ``category_to_class``: class of each category c; and, if there
          are labelled ones too, ``accuracy_unlabelled``: accuracy on the unlabelled classes

    Raises:
        ValueError: if the images aren't uint8 of the model's shape, or the labels don't suit them
            or the model.
    """
    images = as_pixels(split[0], image_shape=model.image_shape)
    labels = np.asarray(
        as_class_indices(split[1], len(images), classes=model.classes or None, unlabelled=True)
    )
    split = Batch(images, labels.astype(np.int32))
    pixels = int(np.prod(images.shape[1:]))
    outputs: dict[str, Any] = over_split(_example_metrics, (model,), (variables, key), split)
    most_probable = outputs.pop("most_probable", None)
    means = {name: np.mean(values, axis=0, dtype=np.float64) for name, values in outputs.items()}
    metrics: Evaluation = {
        "examples": len(split.labels),
        "mse": float(means["squared_error"] / pixels),
        "mse_sampled": float(means["squared_error_sampled"] / pixels),
        "reconstruction_nll": float(means["reconstruction_nll"]),
        "reconstruction_nll_sampled": float(means["reconstruction_nll_sampled"]),
        "kl_z": float(means["kl_z"].sum()),
        "kl_z_per_latent": means["kl_z"].tolist(),
    }
    if most_probable is None:
        return metrics
    metrics["kl_c_uniform"] = float(means["kl_c_uniform"])
    labelled = labels >= 0
    if not labelled.any():
        return metrics
    predicted, labels = most_probable[labelled], labels[labelled]
    metrics["kl_c_label"] = float(outputs["kl_c_label"][labelled].mean(dtype=np.float64))
    if unlabelled_classes:
        category_to_class = match_categories(predicted, labels, model.classes, unlabelled_classes)
        metrics["category_to_class"] = category_to_class.tolist()
        predicted = category_to_class[predicted]
    correct = predicted == labels
    metrics["accuracy"] = float(np.mean(correct))
    per_class = [correct[labels == label] for label in range(model.classes)]
    metrics["accuracy_per_class"] = [float(own.mean()) if len(own) else None for own in per_class]
    unlabelled = np.isin(labels, unlabelled_classes)
    if unlabelled.any() and not unlabelled.all():
        metrics["accuracy_unlabelled"] = float(correct[unlabelled].mean())
    return metrics


def _example_metrics(
    model: Autoencoder, variables: Variables, key: Array, batch: Batch, examples: Array
) -> dict[str, Array]:
    """Computes the metrics of each example that :func:`evaluate` averages."""
    keys = example_keys(key, 0, examples)
    images = scale_pixels(batch.images)

    def reconstruct(model: Autoencoder) -> tuple[Posterior, Array, Array]:
        posterior = model.infer(images)
        z = sampling.gaussian(keys.gaussian, posterior.mean, posterior.logvar)
        if posterior.logits is None:
            return posterior, model.decode(posterior.mean), model.decode(z)
        noisy = posterior.logits
        if not model.conditional:
            noisy = noisy + sampling.standard_gumbel(keys.gumbel, noisy.shape)
        most_probable, sampled = (
            sampling.one_hot_argmax(logits) for logits in (posterior.logits, noisy)
        )
        return (
            posterior,
            model.decode(jnp.concatenate([posterior.mean, most_probable], axis=-1)),
            model.decode(jnp.concatenate([z, sampled], axis=-1)),
        )

    posterior, logits, sampled_logits = nn.apply(reconstruct, model)(variables)
    # gaussian_kl sums over latents, so vmap over them for the KL of each.
    kl_z = jax.vmap(losses.gaussian_kl, in_axes=-1, out_axes=-1)(
        posterior.mean[:, None], posterior.logvar[:, None]
    )
    metrics = {
        "squared_error": losses.squared_error(logits, images),
        "squared_error_sampled": losses.squared_error(sampled_logits, images),
        "reconstruction_nll": losses.bernoulli_nll(logits, images),
        "reconstruction_nll_sampled": losses.bernoulli_nll(sampled_logits, images),
        "kl_z": kl_z,
    }
    if posterior.logits is not None:
        metrics |= {
            "kl_c_uniform": losses.categorical_kl(posterior.logits),
            "kl_c_label": losses.label_kl(posterior.logits, jnp.asarray(batch.labels)),
            "most_probable": jnp.argmax(posterior.logits, axis=-1),
        }
    return metrics


def match_categories(
    categories: Int[np.ndarray, "examples"],
    labels: Int[np.ndarray, "examples"],
    classes: int,
    unlabelled_classes: Sequence[int],
) -> Int[np.ndarray, "classes"]:
    """Matches categories one-to-one to classes so that accuracy is highest (Hungarian algorithm).

    Args:
        categories: predicted category of each example, (examples,).
        labels: class index of each example, (examples,).
        classes: number of classes, which is also the number of categories.
        unlabelled_classes: classes, and categories of the same indices, to match; the others are
            matched to themselves.

    Returns:
        Class index of each category, ``category_to_class``, (classes,).
    """
    # Together they take more than a second to import.
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import confusion_matrix

    counts = confusion_matrix(categories, labels, labels=np.arange(classes))
    _, matched = linear_sum_assignment(
        counts[np.ix_(unlabelled_classes, unlabelled_classes)], maximize=True
    )
    category_to_class = np.arange(classes)
    category_to_class[list(unlabelled_classes)] = np.asarray(unlabelled_classes)[matched]
    return category_to_class


def mean_test_terms(
    objective: Objective,
    model: Autoencoder,
    variables: Variables,
    step: int,
    split: Batch,
    key: Array,
    label_info: LabelInfo = LabelInfo(),
) -> dict[str, float]:
    """Computes the mean of each of the objective's terms over a split, in nats per image.

    Args:
        objective: the objective that the model is trained with.
        model: its autoencoder.
        variables: parameters and batch statistics of the model.
        step: training step, on which the capacities depend.
        split: uint8 images, (examples, height, width, channels), and labels, (examples,).
        key: random key of the noise of z and c.
        label_info: properties of the dataset's labels.

    Returns:
        Means of the terms that the objective has, by name, but for ``marginal_kl``, which isn't a
        mean over examples: it would depend on their order. The consistency loss augments the images
        themselves, not those near them.
    """
    terms = over_split(_batch_terms, (objective, model, label_info), (variables, step, key), split)
    terms = terms._replace(marginal_kl=None)
    return {
        name: float(np.mean(term, dtype=np.float64))
        for name, term in terms._asdict().items()
        if term is not None
    }


def _batch_terms(
    objective: Objective,
    model: Autoencoder,
    label_info: LabelInfo,
    variables: Variables,
    step: Array,
    key: Array,
    batch: Batch,
    examples: Array,
) -> LossTerms:
    keys = example_keys(key, 0, examples)
    return eval_step(objective, model, variables, step, batch, keys, label_info)


def eval_step(
    objective: Objective,
    model: Autoencoder,
    variables: Variables,
    step: int | Array,
    batch: Batch,
    keys: Keys,
    label_info: LabelInfo = LabelInfo(),
) -> LossTerms:
    """Terms of the loss for each example, with the running statistics of batch normalisation."""
    loss = nn.apply(objective.loss, model)
    images, labels = scale_pixels(batch.images), jnp.asarray(batch.labels)
    _, terms = loss(variables, images, labels, step=step, keys=keys, label_info=label_info)
    return terms


def over_split(
    function: Callable[..., Results], static: tuple[Any, ...], arrays: tuple[Any, ...], split: Batch
) -> Results:
    """Applies ``function(*static, *arrays, batch, example indices)`` to a split in batches.

    Args:
        function: returns arrays with one result per example. Define it at module level, so that it
            is compiled only once.
        static: its hashable arguments.
        arrays: its array arguments.
        split: images and labels of the examples.

    Returns:
        The results of all examples, on the host.
    """
    apply_chunk = partial(_over_chunk, function, static, EVAL_BATCH_SIZE, arrays)
    images, labels = np.asarray(split.images), np.asarray(split.labels)
    return in_chunks(apply_chunk, images, labels, np.arange(len(labels), dtype=np.int32))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _over_chunk(
    function: Callable[..., Results],
    static: tuple[Any, ...],
    size: int,
    arrays: tuple[Any, ...],
    *chunk: Array,
) -> Results:
    def apply_batch(images: Array, labels: Array, examples: Array) -> Results:
        return function(*static, *arrays, Batch(images, labels), examples)

    return map_batches(apply_batch, size, *chunk)
