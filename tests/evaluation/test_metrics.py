"""Metrics against NumPy in float64, one image at a time."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import make_dataset
from scipy.special import expit, log_expit

from jvae_jax.evaluation import format_table, metrics
from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.objectives import OBJECTIVES
from jvae_jax.types import Batch


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
    model = Autoencoder((8, 8, 1), 2, 0 if kind == "continuous" else 3, kind == "conditional")
    variables = perturbed_variables(model)
    evaluation = metrics.evaluate(model, variables, split, key)
    images = np.asarray(split.images, np.float64) / 255
    infer = jax.jit(partial(model.apply, method="infer"))
    decode = jax.jit(partial(model.apply, method="decode"))
    errors, nlls, kls, uniform, label_kls, hits = [], [], [], [], [], []
    for image, label in zip(images, split.labels, strict=True):
        one = jnp.array(image[None], jnp.float32)
        posterior = infer(variables, one)
        latents = np.asarray(posterior.mean, np.float64)
        if posterior.logits is not None:
            q = np.exp(np.asarray(jax.nn.log_softmax(posterior.logits), np.float64))[0]
            latents = np.concatenate([latents, np.eye(3)[[q.argmax()]]], axis=1)
            uniform.append(np.log(3) + (q * np.log(q)).sum())
            label_kls.append(-np.log(q[label]))
            hits.append(q.argmax() == label)
        logits = decode(variables, jnp.array(latents, jnp.float32))
        logits = np.asarray(logits, np.float64)[0]
        errors.append(((expit(logits) - image) ** 2).mean())
        nlls.append(-(image * log_expit(logits) + (1 - image) * log_expit(-logits)).sum())
        mean, logvar = np.asarray(posterior.mean[0]), np.asarray(posterior.logvar[0])
        kls.append(0.5 * (mean**2 + np.exp(logvar) - 1 - logvar))
    assert evaluation["examples"] == 23
    np.testing.assert_allclose(evaluation["mse"], np.mean(errors), rtol=1e-4)
    np.testing.assert_allclose(evaluation["reconstruction_nll"], np.mean(nlls), rtol=1e-4)
    np.testing.assert_allclose(evaluation["kl_z_per_latent"], np.mean(kls, 0), rtol=1e-4)
    np.testing.assert_allclose(evaluation["kl_z"], np.sum(np.mean(kls, 0)), rtol=1e-4)
    assert evaluation["mse_sampled"] != evaluation["mse"]
    assert ("accuracy" in evaluation) == (kind != "continuous")
    if hits:
        np.testing.assert_allclose(evaluation["kl_c_uniform"], np.mean(uniform), rtol=1e-3)
        np.testing.assert_allclose(evaluation["kl_c_label"], np.mean(label_kls), rtol=1e-3)
        assert evaluation["accuracy"] == np.mean(hits)


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
