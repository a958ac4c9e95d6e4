from dataclasses import replace

import numpy as np
import pytest
from helpers import SMALL, make_dataset

from jvae_jax.training import loop
from jvae_jax.training.batching import balanced_order
from jvae_jax.training.config import TrainConfig
from jvae_jax.training.loop import fit


def test_every_class_is_as_likely_and_within_it_every_image(key):
    """10,000 draws of 4 classes that have 9,900, 60, 30 and 10 images."""
    labels = np.repeat(np.arange(4), [9900, 60, 30, 10])
    order = np.asarray(balanced_order(key, 1, labels))
    assert order.shape == labels.shape
    of_class = np.bincount(labels[order])
    # Five standard deviations of a binomial.
    assert np.abs(of_class - 2500).max() < 5 * np.sqrt(10_000 * 0.25 * 0.75)
    of_image = np.bincount(order, minlength=10_000)[-10:]
    assert np.abs(of_image - 250).max() < 5 * np.sqrt(10_000 * 0.025 * 0.975)


def test_epochs_differ_and_repeat(key):
    labels = np.arange(48) % 3
    orders = [np.asarray(balanced_order(key, epoch, labels)) for epoch in (1, 2, 1)]
    assert not np.array_equal(orders[0], orders[1])
    np.testing.assert_array_equal(orders[0], orders[2])


@pytest.mark.long
def test_a_run_draws_them_so(tmp_path, monkeypatch):
    """Of two images of class b among 48, with as many of the others, every batch sees some."""
    dataset = make_dataset()
    labels = np.where(dataset.train_labels == 1, 0, dataset.train_labels)
    labels[[1, 4]] = 1
    seen = []
    real = loop.balanced_order

    def watched(key, epoch, labels):
        seen.append(np.bincount(np.asarray(labels)[real(key, epoch, labels)]))
        return real(key, epoch, labels)

    monkeypatch.setattr(loop, "balanced_order", watched)
    config = replace(SMALL, workdir=str(tmp_path / "run"), balance_classes=True, epochs=2)
    run = fit(config, replace(dataset, train_labels=labels.astype(np.int32)))
    assert run.config.balance_classes
    assert len(seen) == 2
    assert min(counts[1] for counts in seen) > 5


def test_what_it_cannot_balance_is_refused():
    with pytest.raises(ValueError, match="joint_vae reads no labels, so it can't balance classes"):
        TrainConfig(objective="joint_vae", balance_classes=True)
    with pytest.raises(ValueError, match="num_labels must be all, got 6"):
        TrainConfig(balance_classes=True, num_labels=6)
    dataset = make_dataset()
    hidden = replace(dataset, train_labels=dataset.train_labels.copy())
    hidden.train_labels[:5] = -1
    with pytest.raises(ValueError, match="5 of 48 training images have none"):
        TrainConfig(balance_classes=True).resolve(hidden)
