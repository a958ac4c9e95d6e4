"""Metrics against numpy, one image at a time."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import make_dataset
from scipy.special import expit, log_expit

from jvae_jax.evaluation import metrics
from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.objectives import OBJECTIVES
from jvae_jax.types import Batch


def trained_like(model):
    """Variables that aren't the initial ones, so that statistics and biases matter."""
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
def test_metrics_by_hand(split, kind, monkeypatch, key):
    monkeypatch.setattr(metrics, "BATCH", 5)
    model = Autoencoder((8, 8, 1), 2, 0 if kind == "continuous" else 3, kind == "conditional")
    variables = trained_like(model)
    found = metrics.evaluate(model, variables, split, key)
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
    assert found["examples"] == 23
    np.testing.assert_allclose(found["mse"], np.mean(errors), rtol=1e-4)
    np.testing.assert_allclose(found["reconstruction_nll"], np.mean(nlls), rtol=1e-4)
    np.testing.assert_allclose(found["kl_z_per_latent"], np.mean(kls, 0), rtol=1e-4)
    np.testing.assert_allclose(found["kl_z"], np.sum(np.mean(kls, 0)), rtol=1e-4)
    assert found["mse_sampled"] != found["mse"]
    assert ("accuracy" in found) == (kind != "continuous")
    if hits:
        np.testing.assert_allclose(found["kl_c_uniform"], np.mean(uniform), rtol=1e-3)
        np.testing.assert_allclose(found["kl_c_label"], np.mean(label_kls), rtol=1e-3)
        assert found["accuracy"] == np.mean(hits)


def test_unlabelled_images_do_not_count(split, key):
    model = Autoencoder((8, 8, 1), 2, 3)
    variables = trained_like(model)
    labels = split.labels.copy()
    labels[10:] = -1
    part = metrics.evaluate(model, variables, Batch(split.images[:10], labels[:10]), key)
    whole = metrics.evaluate(model, variables, Batch(split.images, labels), key)
    assert whole["accuracy"] == part["accuracy"]
    np.testing.assert_allclose(whole["kl_c_label"], part["kl_c_label"], rtol=1e-5)
    none = metrics.evaluate(model, variables, Batch(split.images, np.full(23, -1)), key)
    assert "accuracy" not in none


def test_matching_is_used_where_asked(split, key):
    model = Autoencoder((8, 8, 1), 2, 3)
    variables = trained_like(model)
    plain = metrics.evaluate(model, variables, split, key)
    matched = metrics.evaluate(model, variables, split, key, unlabelled_classes=[0, 1, 2])
    assert matched["accuracy"] >= plain["accuracy"]
    assert len(matched["category_to_class"]) == 3
    assert "category_to_class" in metrics.format_table(matched)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_terms_of_a_split(name, split, key, monkeypatch):
    """Batch by batch or all at once, the mean is the same."""
    objective = OBJECTIVES[name]()
    classes = 3 if objective.discrete or objective.conditional else 0
    model = Autoencoder((8, 8, 1), 2, classes, objective.conditional)
    variables = trained_like(model)
    arguments = (objective, model, variables, 7, split, key)
    whole = metrics.mean_test_terms(*arguments)
    assert tuple(whole) == objective.terms
    monkeypatch.setattr(metrics, "BATCH", 9)
    parts = metrics.mean_test_terms(*arguments)
    np.testing.assert_allclose(list(whole.values()), list(parts.values()), rtol=1e-5)
