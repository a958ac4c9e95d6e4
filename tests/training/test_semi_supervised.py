"""Semi-supervised training: batches, weighted losses, and hidden labels."""

import itertools
import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import SMALL, log_messages, make_dataset

from jvae_jax import losses
from jvae_jax.data.labels import keep_labels
from jvae_jax.losses._terms import population_weights
from jvae_jax.objectives import OBJECTIVES, PRESETS, VAE, JointVAE, Ours
from jvae_jax.training import batching
from jvae_jax.training.config import TrainConfig
from jvae_jax.training.loop import fit
from jvae_jax.types import Posterior


@pytest.mark.parametrize(("few", "per_batch"), [(3, 2), (10, 4)])
def test_mixed_order_fixes_number_of_labelled_examples_per_batch(few, per_batch):
    labelled, unlabelled = np.arange(few), np.arange(few, 60)
    orders = [
        np.asarray(
            batching.mixed_order(
                jax.random.key(0),
                epoch,
                labelled,
                unlabelled,
                batch_size=8,
                labelled_per_batch=per_batch,
            )
        ).reshape(7, 8)
        for epoch in (1, 2)
    ]
    for order in orders:
        assert (order[:, :per_batch] < few).all()
        assert (order[:, per_batch:] >= few).all()
        visits = np.bincount(order[:, :per_batch].ravel(), minlength=few)
        assert np.ptp(visits) <= 1
        assert np.bincount(order[:, per_batch:].ravel()).max() == 1
    assert (orders[0] != orders[1]).any()


def test_batches_are_mixed_only_below_labelled_batch_fraction():
    config = TrainConfig(batch_size=64)
    half = np.where(np.arange(100) % 2, 1, -1)
    assert config.labelled_per_batch(np.zeros(100, int)) is None
    assert config.labelled_per_batch(half) is None
    assert config.labelled_per_batch(np.full(100, -1)) is None
    assert config.labelled_per_batch(np.where(np.arange(100) < 10, 1, -1)) == 16
    assert replace(config, labelled_batch_fraction=0.75).labelled_per_batch(half) == 48
    assert replace(config, objective=VAE()).labelled_per_batch(half) is None


def test_population_weights_make_mixed_batches_unbiased():
    """Over all batches of two of 3 labelled and three of 7 unlabelled examples."""
    values = np.random.default_rng(0).normal(size=10)
    labelled = jnp.array([True, True, False, False, False])
    weights = population_weights(labelled, 0.3, None, jnp.float32)
    means = [
        np.mean(weights * values[[*two_labelled, *three_unlabelled]])
        for two_labelled in itertools.combinations(range(3), 2)
        for three_unlabelled in itertools.combinations(range(3, 10), 3)
    ]
    assert np.mean(means) == pytest.approx(values.mean(), rel=1e-5)
    np.testing.assert_array_equal(population_weights(labelled, None, None, jnp.float32), 1)


def encode(images, labels=None):
    flat = images.reshape(len(images), -1)
    if labels is not None:
        flat = flat.repeat(len(labels) // len(images), axis=0)
    return Posterior(flat[:, :2], flat[:, 2:4], flat[:, 4:7])


def decode(latents):
    return jnp.tile(latents.sum(axis=1)[:, None, None, None], (1, 4, 4, 1))


def test_population_weights_apply_to_all_but_label_terms():
    images = jax.random.uniform(jax.random.key(0), (4, 4, 4, 1))
    labels = jnp.array([1, 2, -1, -1])
    weights = np.array([0.1, 0.1, 1.9, 1.9])  # 5% and 95%, each divided by a half
    keys = {"gaussian_key": jax.random.key(1), "gumbel_key": jax.random.key(2)}
    options = {"capacity_z": 1.0, "capacity_c": 0.0, "unlabelled_capacity_c": 1.0}
    loss, terms = losses.ours(
        encode,
        decode,
        images,
        labels,
        **keys,
        **options,
        beta=30.0,
        gamma=20.0,
        temperature=0.67,
        labelled_fraction=0.05,
    )
    reconstruction, kl_z, kl_c = map(np.asarray, (terms.reconstruction, terms.kl_z, terms.kl_c))
    expected = (
        np.mean(weights * reconstruction)
        + 30 * abs(np.mean(weights * kl_z) - 1)
        + 20 * (0.5 * kl_c[:2].mean() + 0.5 * abs(kl_c[2:].mean() - 1))
    )
    assert float(loss) == pytest.approx(expected, rel=1e-5)

    loss, terms = losses.cvae(
        encode,
        decode,
        lambda images: images.reshape(4, -1)[:, :3],
        images,
        labels,
        gaussian_key=keys["gaussian_key"],
        alpha=3.0,
        labelled_fraction=0.05,
    )
    negative_elbo = np.asarray(terms.reconstruction + terms.kl_z + terms.kl_c)
    expected = np.mean(weights * negative_elbo) + 3 * float(terms.cross_entropy.mean())
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_consistency_is_cross_entropy_to_label_or_prediction():
    """The target of an unlabelled example is q(c|x), through which no gradient flows."""
    images, augmented = jax.random.uniform(jax.random.key(0), (2, 3, 4, 4, 1))
    labels = jnp.array([2, -1, -1])
    options = {
        "gaussian_key": jax.random.key(1),
        "gumbel_key": jax.random.key(2),
        "beta": 1.0,
        "gamma": 1.0,
        "capacity_z": 0.0,
        "capacity_c": 0.0,
        "temperature": 0.67,
    }
    loss_without_consistency, _ = losses.ours(encode, decode, images, labels, **options)

    def loss_at_scale(scale):
        scaled = lambda images: encode(images)._replace(logits=scale * encode(images).logits)  # noqa: E731
        return losses.ours(
            scaled,
            decode,
            images,
            labels,
            **options,
            augmented_images=augmented,
            consistency_weight=5.0,
        )

    loss, terms = loss_at_scale(1.0)
    log_q = np.asarray(jax.nn.log_softmax(encode(augmented).logits))
    targets = np.asarray(jax.nn.softmax(encode(images).logits))
    expected = [-log_q[0, 2], -targets[1] @ log_q[1], -targets[2] @ log_q[2]]
    np.testing.assert_allclose(terms.consistency, expected, rtol=1e-5)
    difference = float(loss - loss_without_consistency)
    assert difference == pytest.approx(5 * np.mean(expected), rel=1e-4)

    # Derivative with respect to the scale of the logits, with constant targets.
    slope = jax.grad(lambda scale: loss_at_scale(scale)[1].consistency[1])(1.0)
    logits = np.asarray(encode(augmented).logits)[1]
    assert float(slope) == pytest.approx((np.exp(log_q[1]) - targets[1]) @ logits, rel=1e-3)


@pytest.mark.long
@pytest.mark.parametrize("name", ["ours", "cvae"])
def test_hidden_labels_have_no_effect(name, tmp_path, monkeypatch):
    """Replacing the hidden labels changes neither the trained state nor any file."""
    dataset = make_dataset()
    kept = keep_labels(dataset.train_labels, 6, SMALL.seed) >= 0
    monkeypatch.setattr(
        "jvae_jax.data.dataset.keep_labels", lambda labels, *_: np.where(kept, labels, -1)
    )
    wrong = np.where(kept, dataset.train_labels, (dataset.train_labels + 1) % 3).astype(np.int32)
    config = replace(SMALL, objective=OBJECTIVES[name](), num_labels=6, epochs=2)
    runs = [
        fit(replace(config, workdir=str(tmp_path / folder)), data)
        for folder, data in (("true", dataset), ("wrong", replace(dataset, train_labels=wrong)))
    ]
    jax.tree.map(np.testing.assert_array_equal, *(run.load_state() for run in runs))
    for file in ("metrics.jsonl", "evaluation.json", "samples.png"):
        first, second = ((run.workdir / file).read_bytes() for run in runs)
        assert first == second
    assert runs[0].data == runs[1].data


@pytest.mark.long
@pytest.mark.parametrize(
    ("objective", "num_labels"),
    [
        (JointVAE(consistency_weight=3.0, neighbours=3, marginal_weight=1.0), "all"),
        (PRESETS["few_labels"], 0),
    ],
)
def test_labels_have_no_effect_without_supervision(objective, num_labels, tmp_path):
    """Nor does the test split."""
    dataset = make_dataset()
    wrong = replace(
        dataset,
        train_labels=dataset.train_labels[::-1].copy(),
        test_labels=dataset.test_labels[::-1].copy(),
        test_images=255 - dataset.test_images,
    )
    config = replace(SMALL, objective=objective, num_labels=num_labels, epochs=2)
    states = [
        fit(replace(config, workdir=str(tmp_path / name)), data).load_state()
        for name, data in (("true", dataset), ("wrong", wrong))
    ]
    jax.tree.map(np.testing.assert_array_equal, *states)


@pytest.mark.long
def test_labels_have_no_effect_in_unsupervised_epochs(tmp_path):
    """With c that is then matched to the labels."""
    dataset = make_dataset(train=120)
    rotated = ((dataset.train_labels + 1) % 3).astype(np.int32)
    objective = replace(PRESETS["few_labels"], neighbours=3)
    config = replace(SMALL, objective=objective, num_labels=3, epochs=9)
    terms, labelled = {}, {}
    for name, labels in (("true", dataset.train_labels), ("rotated", rotated)):
        data = replace(dataset, train_labels=labels)
        run = fit(replace(config, workdir=str(tmp_path / name)), data)
        terms[name] = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
        predicted = np.argmax(run.model.encode(dataset.train_images).logits, axis=-1)
        labelled[name] = predicted == labels
    assert terms["true"][:4] == terms["rotated"][:4]
    assert terms["true"][4] != terms["rotated"][4]
    assert labelled["true"].mean() > 0.95
    assert labelled["rotated"].mean() > 0.95


@pytest.mark.long
def test_trains_with_few_labels(tmp_path):
    config = replace(
        SMALL,
        objective=Ours(gamma=300.0),
        workdir=str(tmp_path / "run"),
        num_labels=6,
        epochs=20,
    )
    with log_messages() as messages:
        run = fit(config, make_dataset())
    summary = "6 of 48 training images are labelled, 2 per class, 2 of 8 in each batch"
    assert summary in messages
    assert run.data.labels_per_class == (2, 2, 2)
    assert run.evaluation()["accuracy"] > 0.9


@pytest.mark.long
def test_class_without_labels_gets_remaining_category(tmp_path):
    dataset = make_dataset(train=120)
    labels = np.where(dataset.train_labels == 1, -1, dataset.train_labels).astype(np.int32)
    config = replace(SMALL, workdir=str(tmp_path / "run"), epochs=10)
    with log_messages() as messages:
        run = fit(config, replace(dataset, train_labels=labels))
    warning = "no training image of these classes is labelled, so c is unsupervised for them: b"
    assert warning in messages
    assert run.model.category_names == ("a", "c1", "c")
    evaluation = run.evaluation()
    assert evaluation["category_to_class"] == [0, 1, 2]
    assert evaluation["accuracy_per_class"][1] == evaluation["accuracy_unlabelled"]
    assert evaluation["accuracy_per_class"][0] > 0.9


@pytest.mark.long
def test_ours_without_labels_is_unsupervised(tmp_path):
    config = replace(SMALL, workdir=str(tmp_path / "run"), num_labels=0, epochs=1)
    with log_messages() as messages:
        run = fit(config, make_dataset())
    assert "no training image is labelled, so c is unsupervised" in messages
    assert run.model.category_names == ("c0", "c1", "c2")
    assert sorted(run.evaluation()["category_to_class"]) == [0, 1, 2]
    assert "accuracy_unlabelled" not in run.evaluation()
