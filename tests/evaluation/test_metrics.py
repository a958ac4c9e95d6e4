"""Metrics against NumPy in float64, one image at a time."""

import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TinyAutoencoder, make_dataset
from scipy.special import expit, log_expit

from jvae_jax.evaluation import format_table, metrics
from jvae_jax.models import inference
from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.objectives import OBJECTIVES
from jvae_jax.sampling import example_keys
from jvae_jax.types import Batch, LossTerms


def perturbed_variables(model):
    """Variables unlike the initial ones, so that batch statistics and biases matter."""
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, *model.image_shape)))
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(9), len(leaves))
    return tree.unflatten(
        leaf + 0.01 * jnp.abs(jax.random.normal(key, leaf.shape))
        for leaf, key in zip(leaves, keys, strict=True)
    )


@pytest.fixture
def split():
    dataset = make_dataset(test=23)
    return Batch(dataset.test_images, dataset.test_labels)


@pytest.mark.parametrize("kind", ["joint", "continuous", "conditional"])
def test_metrics_match_numpy(split, kind, monkeypatch, key):
    monkeypatch.setattr(metrics, "EVAL_BATCH_SIZE", 5)
    monkeypatch.setattr(inference, "EVAL_BATCH_SIZE", 10)
    monkeypatch.setattr(inference, "CHUNK_BYTES", 1)
    model = Autoencoder((8, 8, 1), 2, 0 if kind == "continuous" else 3, kind == "conditional")
    variables = perturbed_variables(model)
    evaluation = metrics.evaluate(model, variables, split, key)
    images = np.asarray(split.images, np.float64) / 255
    infer = jax.jit(partial(model.apply, method="infer"))
    decode = jax.jit(partial(model.apply, method="decode"))
    keys = example_keys(key, 0, jnp.arange(23))
    noise = jax.vmap(lambda key: jax.random.normal(key, (2,)))(keys.gaussian)
    gumbel = jax.vmap(lambda key: jax.random.gumbel(key, (3,)))(keys.gumbel)
    errors, nlls, kls, uniform, label_kls, hits = [], [], [], [], [], []
    sampled_errors, sampled_nlls = [], []
    for index, (image, label) in enumerate(zip(images, split.labels, strict=True)):
        one = jnp.array(image[None], jnp.float32)
        posterior = infer(variables, one)
        latents = np.asarray(posterior.mean, np.float64)
        sampled = latents + np.exp(np.asarray(posterior.logvar) / 2) * noise[index]
        if posterior.logits is not None:
            q = np.exp(np.asarray(jax.nn.log_softmax(posterior.logits), np.float64))[0]
            latents = np.concatenate([latents, np.eye(3)[[q.argmax()]]], axis=1)
            # A CVAE draws no label, but takes the most probable one.
            scores = np.log(q) + (0 if kind == "conditional" else gumbel[index])
            sampled = np.concatenate([sampled, np.eye(3)[[scores.argmax()]]], axis=1)
            uniform.append(np.log(3) + (q * np.log(q)).sum())
            label_kls.append(-np.log(q[label]))
            hits.append(q.argmax() == label)
        logits = decode(variables, jnp.array(latents, jnp.float32))
        logits = np.asarray(logits, np.float64)[0]
        errors.append(((expit(logits) - image) ** 2).mean())
        nlls.append(-(image * log_expit(logits) + (1 - image) * log_expit(-logits)).sum())
        logits = decode(variables, jnp.array(sampled, jnp.float32))
        logits = np.asarray(logits, np.float64)[0]
        sampled_errors.append(((expit(logits) - image) ** 2).mean())
        sampled_nlls.append(-(image * log_expit(logits) + (1 - image) * log_expit(-logits)).sum())
        mean, logvar = np.asarray(posterior.mean[0]), np.asarray(posterior.logvar[0])
        kls.append(0.5 * (mean**2 + np.exp(logvar) - 1 - logvar))
    assert evaluation["examples"] == 23
    np.testing.assert_allclose(evaluation["mse"], np.mean(errors), rtol=1e-4)
    np.testing.assert_allclose(evaluation["reconstruction_nll"], np.mean(nlls), rtol=1e-4)
    np.testing.assert_allclose(evaluation["kl_z_per_latent"], np.mean(kls, 0), rtol=1e-4)
    np.testing.assert_allclose(evaluation["kl_z"], np.sum(np.mean(kls, 0)), rtol=1e-4)
    np.testing.assert_allclose(evaluation["mse_sampled"], np.mean(sampled_errors), rtol=1e-4)
    nll_sampled = evaluation["reconstruction_nll_sampled"]
    np.testing.assert_allclose(nll_sampled, np.mean(sampled_nlls), rtol=1e-4)
    assert evaluation["mse_sampled"] != evaluation["mse"]
    assert ("accuracy" in evaluation) == (kind != "continuous")
    if hits:
        np.testing.assert_allclose(evaluation["kl_c_uniform"], np.mean(uniform), rtol=1e-3)
        np.testing.assert_allclose(evaluation["kl_c_label"], np.mean(label_kls), rtol=1e-3)
        assert evaluation["accuracy"] == np.mean(hits)


def classifying_variables():
    """The class scores are ten times the first three pixels, the mean of z is the last pixel."""
    kernel = np.zeros((4, 5), np.float32)
    kernel[3, 0] = 1
    kernel[:3, 2:] = 10 * np.eye(3)
    norm = {"scale": np.ones(4, np.float32), "bias": np.zeros(4, np.float32)}
    params = {
        "encoder": {"kernel": kernel, "bias": np.zeros(5, np.float32)},
        "decoder": {"kernel": np.zeros((4, 4), np.float32), "bias": np.zeros(4, np.float32)},
        "norm": norm,
    }
    statistics = {"mean": np.zeros(4, np.float32), "var": np.ones(4, np.float32)}
    return {"params": params, "batch_stats": {"norm": statistics}}


LABELS = np.array([0, 0, 1, 1, 1, 2, -1])
CATEGORIES = np.array([0, 1, 2, 2, 1, 1, 0])
"""Most probable category of each image."""


def images_of(categories):
    images = np.zeros((len(categories), 2, 2, 1), np.uint8)
    images.reshape(-1, 4)[np.arange(len(categories)), categories] = 255
    return images


def classification_metrics(key, labels=LABELS, **options):
    return metrics.evaluate(
        TinyAutoencoder(),
        classifying_variables(),
        Batch(images_of(CATEGORIES), labels),
        key,
        **options,
    )


@pytest.mark.usefixtures("without_jaxtyping")
def test_classification_metrics_by_hand(key):
    evaluation = classification_metrics(key)
    log_sum = np.log(np.exp(10) + 2)
    # Images 0 and 4 are classified correctly, the last has no label.
    assert evaluation["accuracy"] == pytest.approx(2 / 6)
    assert evaluation["accuracy_per_class"] == pytest.approx([1 / 2, 1 / 3, 0])
    assert evaluation["kl_c_label"] == pytest.approx(log_sum - 10 * 2 / 6, rel=1e-4)
    q = np.exp([10 - log_sum, -log_sum, -log_sum])
    assert evaluation["kl_c_uniform"] == pytest.approx(np.log(3) + (q * np.log(q)).sum(), rel=1e-4)
    assert evaluation["mse"] == pytest.approx((3 * 0.25 + 0.25) / 4)
    assert not evaluation.keys() & {"category_to_class", "accuracy_unlabelled"}


@pytest.mark.usefixtures("without_jaxtyping")
def test_categories_of_unlabelled_classes_are_matched_by_hand(key):
    """Of the images of category 2, both are of class 1; of category 1, one is of each class."""
    evaluation = classification_metrics(key, unlabelled_classes=(1, 2))
    assert evaluation["category_to_class"] == [0, 2, 1]
    # The classes are then 0, 2, 1, 1, 2, 2.
    assert evaluation["accuracy"] == pytest.approx(4 / 6)
    assert evaluation["accuracy_per_class"] == pytest.approx([1 / 2, 2 / 3, 1])
    assert evaluation["accuracy_unlabelled"] == pytest.approx(3 / 4)
    unsupervised = classification_metrics(key, unlabelled_classes=(0, 1, 2))
    assert "accuracy_unlabelled" not in unsupervised
    assert unsupervised["category_to_class"] == [0, 2, 1]


@pytest.mark.usefixtures("without_jaxtyping")
def test_class_without_test_labels_has_no_accuracy(key):
    labels = np.where(LABELS == 2, -1, LABELS)
    evaluation = classification_metrics(key, labels, unlabelled_classes=(2,))
    assert evaluation["accuracy_per_class"] == [1 / 2, pytest.approx(1 / 3), None]
    assert "accuracy_unlabelled" not in evaluation


@pytest.mark.usefixtures("without_jaxtyping")
@pytest.mark.parametrize("name", OBJECTIVES)
def test_mean_terms_are_those_of_the_loss(name, key):
    """With the running statistics of batch normalisation, and noise of each example's index."""
    objective = OBJECTIVES[name]()
    has_classes = objective.has_categorical or objective.conditional
    model = TinyAutoencoder(3 if has_classes else 0, objective.conditional)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (7, 2, 2, 1), np.uint8), LABELS
    variables = model.init(jax.random.key(1), jnp.zeros((1, 2, 2, 1)))
    statistics = jax.tree.map(lambda leaf: leaf + 0.3, variables["batch_stats"])
    variables = {**variables, "batch_stats": statistics}
    means = metrics.mean_test_terms(objective, model, variables, 5, Batch(images, labels), key)
    _, terms = objective.loss(
        model.bind(variables),
        jnp.asarray(images, jnp.float32) / 255,
        jnp.asarray(labels),
        step=5,
        keys=example_keys(key, 0, jnp.arange(7)),
    )
    expected = {
        name: float(term.mean()) for name, term in terms._asdict().items() if term is not None
    }
    assert means == pytest.approx(expected, rel=1e-5)


def test_unlabelled_images_are_ignored(split, key):
    model = Autoencoder((8, 8, 1), 2, 3)
    variables = perturbed_variables(model)
    labels = split.labels.copy()
    labels[10:] = -1
    part = metrics.evaluate(model, variables, Batch(split.images[:10], labels[:10]), key)
    whole = metrics.evaluate(model, variables, Batch(split.images, labels), key)
    assert whole["accuracy"] == part["accuracy"]
    np.testing.assert_allclose(whole["kl_c_label"], part["kl_c_label"], rtol=1e-5)
    none = metrics.evaluate(model, variables, Batch(split.images, np.full(23, -1)), key)
    assert "accuracy" not in none


def test_unlabelled_classes_are_matched(split, key):
    model = Autoencoder((8, 8, 1), 2, 3)
    variables = perturbed_variables(model)
    plain = metrics.evaluate(model, variables, split, key)
    matched = metrics.evaluate(model, variables, split, key, unlabelled_classes=[0, 1, 2])
    assert matched["accuracy"] >= plain["accuracy"]
    assert len(matched["category_to_class"]) == 3
    assert "category_to_class" in format_table(matched)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_mean_terms_do_not_depend_on_the_batch_size(name, split, key, monkeypatch):
    objective = OBJECTIVES[name]()
    classes = 3 if objective.has_categorical or objective.conditional else 0
    model = Autoencoder((8, 8, 1), 2, classes, objective.conditional)
    variables = perturbed_variables(model)
    arguments = (objective, model, variables, 7, split, key)
    whole = metrics.mean_test_terms(*arguments)
    assert tuple(whole) == objective.terms
    monkeypatch.setattr(metrics, "EVAL_BATCH_SIZE", 9)
    parts = metrics.mean_test_terms(*arguments)
    np.testing.assert_allclose(list(whole.values()), list(parts.values()), rtol=1e-5)


@pytest.mark.usefixtures("without_jaxtyping")
def test_means_are_computed_in_float64(split, key, monkeypatch):
    rng = np.random.default_rng(0)
    names = "squared_error", "reconstruction_nll", "kl_c_uniform", "kl_c_label"
    outputs = {name: rng.random(23).astype(np.float32) for name in names}
    outputs |= {f"{name}_sampled": outputs[name] for name in names[:2]}
    outputs |= {"kl_z": rng.random((23, 2)).astype(np.float32)}
    outputs |= {"most_probable": np.zeros(23, int)}
    monkeypatch.setattr(metrics, "over_split", lambda *_: dict(outputs))
    evaluation = metrics.evaluate(Autoencoder((8, 8, 1), 2, 3), {}, split, key)
    for name in ("reconstruction_nll", "reconstruction_nll_sampled", "kl_c_uniform", "kl_c_label"):
        expected = math.fsum(outputs[name].tolist()) / 23
        assert evaluation[name] == pytest.approx(expected, rel=1e-12)
    expected = math.fsum(outputs["kl_z"].ravel().tolist()) / 23
    assert evaluation["kl_z"] == pytest.approx(expected, rel=1e-12)
    terms = LossTerms(*(outputs[name] for name in names[:2]))
    monkeypatch.setattr(metrics, "over_split", lambda *_: terms)
    means = metrics.mean_test_terms(OBJECTIVES["vae"](), None, {}, 0, split, key)
    expected = math.fsum(outputs["squared_error"].tolist()) / 23
    assert means["reconstruction"] == pytest.approx(expected, rel=1e-12)


def test_categories_that_no_image_has_are_matched():
    matched = metrics.match_categories(np.array([0, 1, 1]), np.array([0, 1, 0]), 4, (1, 2, 3))
    assert matched.tolist()[:2] == [0, 1]
    assert sorted(matched) == [0, 1, 2, 3]


def test_match_categories_against_every_permutation():
    rng = np.random.default_rng(0)
    categories, labels = rng.integers(0, 5, 80), rng.integers(0, 5, 80)
    for unlabelled in (range(5), (1, 2, 4)):
        category_to_class = metrics.match_categories(categories, labels, 5, unlabelled)
        assert sorted(category_to_class) == [0, 1, 2, 3, 4]
        fixed = np.setdiff1d(np.arange(5), unlabelled)
        np.testing.assert_array_equal(category_to_class[fixed], fixed)
        accuracies = [
            np.mean(np.array(permutation)[categories] == labels)
            for permutation in itertools.permutations(range(5))
            if all(permutation[index] == index for index in fixed)
        ]
        assert np.mean(category_to_class[categories] == labels) == max(accuracies)
