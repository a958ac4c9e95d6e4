"""Epoch orders with balanced classes."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from helpers import SMALL, make_dataset

from jvae_jax.objectives import JointVAE
from jvae_jax.training import loop
from jvae_jax.training.batching import (
    balanced_order,
    epoch_order,
    mixed_order,
    random_neighbours,
)
from jvae_jax.training.config import TrainConfig
from jvae_jax.training.loop import fit


def test_balanced_order_samples_classes_and_images_uniformly(key):
    """10,000 draws of 4 classes that have 9,900, 60, 30 and 10 images."""
    labels = np.repeat(np.arange(4), [9900, 60, 30, 10])
    order = np.asarray(balanced_order(key, 1, labels))
    assert order.shape == labels.shape
    class_counts = np.bincount(labels[order])
    # Five standard deviations of a binomial.
    assert np.abs(class_counts - 2500).max() < 5 * np.sqrt(10_000 * 0.25 * 0.75)
    image_counts = np.bincount(order, minlength=10_000)[-10:]
    assert np.abs(image_counts - 250).max() < 5 * np.sqrt(10_000 * 0.025 * 0.975)


def test_balanced_order_depends_on_epoch_and_is_reproducible(key):
    labels = np.arange(48) % 3
    orders = [np.asarray(balanced_order(key, epoch, labels)) for epoch in (1, 2, 1)]
    assert not np.array_equal(orders[0], orders[1])
    np.testing.assert_array_equal(orders[0], orders[2])


def test_epoch_order_is_a_permutation_for_the_epoch(key):
    expected = jax.random.permutation(jax.random.fold_in(key, 3), 10)
    np.testing.assert_array_equal(epoch_order(key, 3, 10), expected)


@pytest.mark.parametrize(("few", "per_batch", "steps"), [(3, 2, 5), (5, 1, 5), (2, 3, 5)])
def test_mixed_order_visits_all_labelled_examples_before_any_again(key, few, per_batch, steps):
    """40 examples fill five batches of eight; each round of the labelled ones is another order."""
    examples = np.random.default_rng(0).permutation(40)
    order = mixed_order(
        key, 1, examples[:few], examples[few:], batch_size=8, labelled_per_batch=per_batch
    )
    batches = np.asarray(order).reshape(steps, 8)
    visits = batches[:, :per_batch].ravel()
    rounds = [visits[start : start + few] for start in range(0, len(visits), few)]
    for each in rounds:
        assert len(set(each)) == len(each)
        assert set(each) <= set(examples[:few])
    assert len({tuple(each) for each in rounds}) > 1 or len(rounds) == 1
    unlabelled = batches[:, per_batch:].ravel()
    assert len(set(unlabelled)) == len(unlabelled)
    assert set(unlabelled) <= set(examples[few:])


def test_random_neighbours_are_uniform_and_differ_between_epochs(key):
    nearest = np.arange(8000).reshape(2000, 4)
    chosen = [np.asarray(random_neighbours(key, epoch, nearest)) for epoch in (1, 2)]
    for each in chosen:
        np.testing.assert_array_equal(each // 4, np.arange(2000))
        # Five standard deviations of a binomial.
        counts = np.bincount(each % 4)
        assert np.abs(counts - 500).max() < 5 * np.sqrt(2000 * 0.25 * 0.75)
    assert 0.7 < np.mean(chosen[0] != chosen[1]) < 0.8


@pytest.mark.long
def test_run_uses_balanced_order(tmp_path, monkeypatch):
    """Class b has 2 of 48 images, but about a third of the draws."""
    dataset = make_dataset()
    labels = np.where(dataset.train_labels == 1, 0, dataset.train_labels)
    labels[[1, 4]] = 1
    class_counts = []
    original = loop.balanced_order

    def recording(key, epoch, labels):
        order = original(key, epoch, labels)
        class_counts.append(np.bincount(np.asarray(labels)[order]))
        return order

    monkeypatch.setattr(loop, "balanced_order", recording)
    config = replace(SMALL, workdir=str(tmp_path / "run"), balance_classes=True, epochs=2)
    run = fit(config, replace(dataset, train_labels=labels.astype(np.int32)))
    assert run.config.balance_classes
    assert len(class_counts) == 2
    assert min(counts[1] for counts in class_counts) > 5


def test_rejects_balancing_without_all_labels():
    with pytest.raises(ValueError, match="joint_vae uses no labels, so it can't balance classes"):
        TrainConfig(objective=JointVAE(), balance_classes=True)
    with pytest.raises(ValueError, match="num_labels must be all, got 6"):
        TrainConfig(balance_classes=True, num_labels=6)
    dataset = make_dataset()
    partly_labelled = replace(dataset, train_labels=dataset.train_labels.copy())
    partly_labelled.train_labels[:5] = -1
    with pytest.raises(ValueError, match="5 of 48 training images have none"):
        TrainConfig(balance_classes=True).resolve(partly_labelled)
