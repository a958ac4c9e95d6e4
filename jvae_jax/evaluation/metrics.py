"""Metrics over a whole split, averaged in float64 on the host."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Int
from scipy.optimize import linear_sum_assignment

from jvae_jax import losses, sampling
from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.models.inference import BATCH, Results, map_batches, scale
from jvae_jax.objectives import Objective
from jvae_jax.sampling import example_keys
from jvae_jax.types import Batch, Keys, LossTerms, Posterior, Variables

_LISTED = 20
"""So many classes fit into a line."""

Evaluation = dict[str, Any]
"""Named metrics, ready for JSON: floats, and lists of them."""


def mean_test_terms(
    objective: Objective,
    model: Autoencoder,
    variables: Variables,
    step: int,
    split: Batch,
    key: Array,
) -> dict[str, float]:
    """The mean over a split of each of the objective's terms, in nats per image."""
    terms = over_split(_terms, (objective, model), (variables, step, key), split)
    return {
        name: float(np.mean(term, dtype=np.float64))
        for name, term in terms._asdict().items()
        if term is not None
    }


def evaluate(
    model: Autoencoder,
    variables: Variables,
    split: Batch,
    key: Array,
    *,
    unlabelled_classes: Sequence[int] = (),
) -> Evaluation:
    """What a trained model makes of a split.

    Args:
        model: any of the six objectives' models.
        variables: its parameters and statistics.
        split: uint8 images and their labels; -1 doesn't count towards accuracy.
        key: noise of the sampled figures.
        unlabelled_classes: of which training saw no label. Their values of c may mean any of them,
            so they are read through the best one-to-one category_to_class.

    Returns:
        - ``examples``
        - ``mse``, ``mse_sampled``: squared error per pixel and channel of the reconstruction from
          the mean z and the likeliest c, and from one draw of both.
        - ``reconstruction_nll``, ``reconstruction_nll_sampled``: their Bernoulli -log p(x|z,c), nats per image.
        - ``kl_z``, ``kl_z_per_latent``: KL(q(z|x) || N(0, 1)), nats per image.
        - where there are classes: ``kl_c_uniform`` (eq. 9) and ``kl_c_label`` (eq. 11), nats per
          image; ``accuracy``, the share of labels read, and ``accuracy_per_class``, None where the
          split has none.
        - with unlabelled classes: ``category_to_class``, the label of each c; and, if other classes have
          labels, ``accuracy_unlabelled``, the share of labels read of those that have none.
    """
    pixels = int(np.prod(split.images.shape[1:]))
    outputs: dict[str, Any] = over_split(_measure, (model,), (variables, key), split)
    likeliest = outputs.pop("likeliest", None)
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
    if likeliest is None:
        return metrics
    metrics["kl_c_uniform"] = float(means["kl_c_uniform"])
    labels = np.asarray(split.labels)
    labelled = labels >= 0
    if not labelled.any():
        return metrics
    read, labels = likeliest[labelled], labels[labelled]
    metrics["kl_c_label"] = float(outputs["kl_c_label"][labelled].mean(dtype=np.float64))
    if unlabelled_classes:
        category_to_class = match_categories(read, labels, model.classes, unlabelled_classes)
        metrics["category_to_class"] = category_to_class.tolist()
        read = category_to_class[read]
    right = read == labels
    metrics["accuracy"] = float(np.mean(right))
    members = [right[labels == label] for label in range(model.classes)]
    metrics["accuracy_per_class"] = [float(own.mean()) if len(own) else None for own in members]
    without = np.isin(labels, unlabelled_classes)
    if without.any() and not without.all():
        metrics["accuracy_unlabelled"] = float(right[without].mean())
    return metrics


def format_table(evaluation: Evaluation) -> str:
    """The metrics for reading: a line for each."""
    lines = [
        (name, f"{evaluation[name]:.{digits}f}", unit)
        for name, digits, unit in (
            ("mse", 4, "per pixel, from the mean z and the likeliest c"),
            ("mse_sampled", 4, "per pixel, from one draw of z and c"),
            ("reconstruction_nll", 2, "nats per image, from the mean z and the likeliest c"),
            ("reconstruction_nll_sampled", 2, "nats per image, from one draw of z and c"),
            ("kl_z", 3, "nats per image"),
            ("kl_c_uniform", 4, "nats per image, to the uniform prior"),
            ("kl_c_label", 4, "nats per image, to the label's prior"),
            ("accuracy", 4, "of the labels it reads"),
            ("accuracy_unlabelled", 4, "of those of classes that had no label in training"),
            ("mutual_information", 4, "nats, of c and the label"),
            ("label_entropy", 4, "nats, the most that this can be"),
            ("linear_probe_accuracy", 4, "of the labels that a linear probe reads from z alone"),
            ("majority_class_accuracy", 4, "of the labels, by naming the most frequent"),
            ("eval_classifier_accuracy", 4, "of the test images' labels that the judge reads"),
            (
                "conditional_accuracy",
                4,
                "of the characters, which the judge reads as what was asked for",
            ),
            (
                "style_transfer_accuracy",
                4,
                "of test images redrawn as each class, which the judge reads as that",
            ),
            ("style_r2", 4, "R^2 of the z read from them and the z they were drawn with"),
            ("style_r2_shuffled", 4, "the same of pairs that don't belong together"),
            ("frechet_distance", 2, "from characters to test images, in the judge's features"),
            ("frechet_distance_real", 2, "from training images to test images"),
            ("intra_class_frechet_distance", 2, "the same two within classes:"),
            ("intra_class_frechet_distance_real", 2, "characters, and training images"),
        )
        if name in evaluation
    ]
    for name, of, what in (
        ("kl_z_per_latent", "kl_z", "by dimension"),
        ("class_flip_rate_per_latent", "verdicts", "changed by each dimension from -2 to 2"),
        ("style_r2_per_latent", "style_r2", "by dimension, where it holds a style"),
    ):
        if name in evaluation:
            values = ["-" if value is None else f"{value:.2f}" for value in evaluation[name]]
            lines.append((of, " ".join(values), what))
    if 0 < len(evaluation.get("category_to_class", ())) <= _LISTED:
        lines.append(
            (
                "category_to_class",
                " ".join(map(str, evaluation["category_to_class"])),
                "the label of each c",
            )
        )
    width = max(13, *(len(name) for name, *_ in lines))
    return "\n".join(f"{name:{width}} {value:>8}  {unit}" for name, value, unit in lines)


def over_split(
    function: Callable[..., Results], static: tuple[Any, ...], arrays: tuple[Any, ...], split: Batch
) -> Results:
    """Applies ``function(*static, *arrays, batch, example indices)`` to a split, batch by batch.

    Args:
        function: gives per-example results; a function of a module, so that it compiles once.
        static: its hashable arguments.
        arrays: its arguments that are arrays.
        split: the examples.
    """
    return jax.device_get(_over_split(function, static, BATCH, arrays, split))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _over_split(
    function: Callable[..., Results],
    static: tuple[Any, ...],
    size: int,
    arrays: tuple[Any, ...],
    split: Batch,
) -> Results:
    def of_batch(images: Array, labels: Array, examples: Array) -> Results:
        return function(*static, *arrays, Batch(images, labels), examples)

    images, labels = jnp.asarray(split.images), jnp.asarray(split.labels)
    return map_batches(of_batch, size, images, labels, jnp.arange(len(labels)))


def _terms(
    objective: Objective,
    model: Autoencoder,
    variables: Variables,
    step: Array,
    key: Array,
    batch: Batch,
    examples: Array,
) -> LossTerms:
    return eval_step(objective, model, variables, step, batch, example_keys(key, 0, examples))


def _measure(
    model: Autoencoder, variables: Variables, key: Array, batch: Batch, examples: Array
) -> dict[str, Array]:
    """Per-example figures behind :func:`evaluate`."""
    keys = example_keys(key, 0, examples)
    images = scale(batch.images)

    def reconstruct(model: Autoencoder) -> tuple[Posterior, Array, Array]:
        posterior = model.infer(images)
        z = sampling.gaussian(keys.gaussian, posterior.mean, posterior.logvar)
        if posterior.logits is None:
            return posterior, model.decode(posterior.mean), model.decode(z)
        noisy = posterior.logits
        if not model.conditional:
            noisy = noisy + sampling.standard_gumbel(keys.gumbel, noisy.shape)
        likeliest, drawn = (sampling.one_hot_argmax(logits) for logits in (posterior.logits, noisy))
        return (
            posterior,
            model.decode(jnp.concatenate([posterior.mean, likeliest], axis=-1)),
            model.decode(jnp.concatenate([z, drawn], axis=-1)),
        )

    posterior, logits, sampled_logits = nn.apply(reconstruct, model)(variables)
    # gaussian_kl sums over latents: one latent at a time gives each dimension's share.
    kl_z = jax.vmap(losses.gaussian_kl, in_axes=-1, out_axes=-1)(
        posterior.mean[:, None], posterior.logvar[:, None]
    )
    figures = {
        "squared_error": losses.squared_error(logits, images),
        "squared_error_sampled": losses.squared_error(sampled_logits, images),
        "reconstruction_nll": losses.bernoulli_nll(logits, images),
        "reconstruction_nll_sampled": losses.bernoulli_nll(sampled_logits, images),
        "kl_z": kl_z,
    }
    if posterior.logits is not None:
        figures |= {
            "kl_c_uniform": losses.categorical_kl(posterior.logits),
            "kl_c_label": losses.label_kl(posterior.logits, jnp.asarray(batch.labels)),
            "likeliest": jnp.argmax(posterior.logits, axis=-1),
        }
    return figures


def eval_step(
    objective: Objective,
    model: Autoencoder,
    variables: Variables,
    step: int | Array,
    batch: Batch,
    keys: Keys,
) -> LossTerms:
    """The loss's terms for each example, with batch normalisation's running statistics."""
    run = nn.apply(objective.loss, model)
    images, labels = scale(batch.images), jnp.asarray(batch.labels)
    _, terms = run(variables, images, labels, step=step, keys=keys)
    return terms


def match_categories(
    categories: Int[np.ndarray, "examples"],
    labels: Int[np.ndarray, "examples"],
    classes: int,
    free: Sequence[int],
) -> Int[np.ndarray, "classes"]:
    """The one-to-one matching of categories to labels that agrees on the most examples.

    Args:
        categories, labels: of the examples.
        classes: how many there are of both.
        free: those to be matched; the others are each its own label.

    Returns:
        The label of each category.
    """
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (categories, labels), 1)
    _, matched = linear_sum_assignment(counts[np.ix_(free, free)], maximize=True)
    category_to_class = np.arange(classes)
    category_to_class[list(free)] = np.asarray(free)[matched]
    return category_to_class
