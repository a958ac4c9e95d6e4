"""Few labels: who keeps one, who is in a batch, and that nobody peeks."""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import SMALL, make_dataset

from jvae_jax import losses
from jvae_jax.losses._terms import population_weights
from jvae_jax.training import batching
from jvae_jax.training.config import TrainConfig
from jvae_jax.training.loop import fit
from jvae_jax.types import Posterior

LABELS = np.array([0] * 50 + [1] * 40 + [2] * 3 + [-1] * 20, np.int32)


@pytest.mark.parametrize(
    ("count", "of_each"), [(0, [0, 0, 0]), (6, [2, 2, 2]), (21, [9, 9, 3]), (93, [50, 40, 3])]
)
def test_labels_are_kept_of_each_class_alike(count, of_each):
    hidden = batching.hide_labels(LABELS, count, seed=3)
    kept = hidden >= 0
    np.testing.assert_array_equal(hidden[kept], LABELS[kept])
    np.testing.assert_array_equal(np.bincount(hidden[kept], minlength=3), of_each)


def test_the_seed_chooses_who_keeps_a_label():
    one, same, other = (batching.hide_labels(LABELS, 7, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    assert sorted(np.bincount(one[one >= 0])) == [2, 2, 3]
    seconds = {int(np.bincount(hide[hide >= 0]).argmax()) for hide in map(hidden_4, range(20))}
    assert seconds == {0, 1, 2}  # which class has one more is left to chance


def hidden_4(seed):
    return batching.hide_labels(LABELS, 4, seed)


@pytest.mark.parametrize("count", [-1, 94])
def test_more_labels_than_there_are_is_told(count):
    with pytest.raises(ValueError, match=f"must be 0 to 93, all there are, got {count}"):
        batching.hide_labels(LABELS, count, 0)


@pytest.mark.parametrize(("few", "per_batch"), [(3, 2), (10, 4)])
def test_every_batch_has_its_labelled_ones(few, per_batch):
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


def test_batches_are_mixed_only_where_labels_are_few():
    config = TrainConfig(batch_size=64)
    half = np.where(np.arange(100) % 2, 1, -1)
    assert config.labelled_per_batch(np.zeros(100, int)) is None
    assert config.labelled_per_batch(half) is None
    assert config.labelled_per_batch(np.full(100, -1)) is None
    assert config.labelled_per_batch(np.where(np.arange(100) < 10, 1, -1)) == 16
    assert replace(config, labelled_batch_fraction=0.75).labelled_per_batch(half) == 48
    assert replace(config, objective="vae").labelled_per_batch(half) is None


def test_weighted_batches_are_the_data_sets_on_average():
    """Over every batch of two of 3 labelled and three of 7 unlabelled examples."""
    values = np.random.default_rng(0).normal(size=10)
    labelled = jnp.array([True, True, False, False, False])
    weights = population_weights(labelled, 0.3, None)
    means = [
        np.mean(weights * values[[*some, *others]])
        for some in itertools.combinations(range(3), 2)
        for others in itertools.combinations(range(3, 10), 3)
    ]
    assert np.mean(means) == pytest.approx(values.mean(), rel=1e-5)
    np.testing.assert_array_equal(population_weights(labelled, None, None), 1)


def encode(images, labels=None):
    flat = images.reshape(len(images), -1)
    if labels is not None:
        flat = flat.repeat(len(labels) // len(images), axis=0)
    return Posterior(flat[:, :2], flat[:, 2:4], flat[:, 4:7])


def decode(latents):
    return jnp.tile(latents.sum(axis=1)[:, None, None, None], (1, 4, 4, 1))


def test_few_labels_are_weighted_in_all_but_the_label_terms():
    images = jax.random.uniform(jax.random.key(0), (4, 4, 4, 1))
    labels = jnp.array([1, 2, -1, -1])
    weights = np.array([0.1, 0.1, 1.9, 1.9])  # 5 and 95 per cent, each over a half
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
    bound = np.asarray(terms.reconstruction + terms.kl_z + terms.kl_c)
    expected = np.mean(weights * bound) + 3 * float(terms.cross_entropy.mean())
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_what_c_says_of_distorted_images_is_weighed():
    """The label's where there is one, else as before, which isn't moved."""
    images, distorted = jax.random.uniform(jax.random.key(0), (2, 3, 4, 4, 1))
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
    plain, _ = losses.ours(encode, decode, images, labels, **options)

    def weighed(scale):
        scaled = lambda images: encode(images)._replace(logits=scale * encode(images).logits)  # noqa: E731
        return losses.ours(
            scaled,
            decode,
            images,
            labels,
            **options,
            augmented_images=distorted,
            consistency_weight=5.0,
        )

    loss, terms = weighed(1.0)
    log_q = np.asarray(jax.nn.log_softmax(encode(distorted).logits))
    said = np.asarray(jax.nn.softmax(encode(images).logits))
    expected = [-log_q[0, 2], -said[1] @ log_q[1], -said[2] @ log_q[2]]
    np.testing.assert_allclose(terms.consistency, expected, rtol=1e-5)
    assert float(loss - plain) == pytest.approx(5 * np.mean(expected), rel=1e-4)

    # By how much it changes with the scale of the logits, where the targets stay.
    slope = jax.grad(lambda scale: weighed(scale)[1].consistency[1])(1.0)
    logits = np.asarray(encode(distorted).logits)[1]
    assert float(slope) == pytest.approx((np.exp(log_q[1]) - said[1]) @ logits, rel=1e-3)


FEW = {"num_labels": 6, "epochs": 2}


@pytest.mark.long
@pytest.mark.parametrize("objective", ["ours", "cvae"])
def test_hidden_labels_are_never_read(objective, tmp_path, monkeypatch):
    """Poisoned ones change nothing: neither what is learned nor what is found."""
    dataset = make_dataset()
    kept = batching.hide_labels(dataset.train_labels, 6, SMALL.seed) >= 0
    monkeypatch.setattr(
        "jvae_jax.data.dataset.hide_labels", lambda labels, *_: np.where(kept, labels, -1)
    )
    poison = np.where(kept, dataset.train_labels, (dataset.train_labels + 1) % 3).astype(np.int32)
    runs = [
        fit(replace(SMALL, objective=objective, workdir=str(tmp_path / name), **FEW), data)
        for name, data in (("clean", dataset), ("poisoned", replace(dataset, train_labels=poison)))
    ]
    jax.tree.map(np.testing.assert_array_equal, *(run.load_state() for run in runs))
    for name in ("metrics.jsonl", "evaluation.json", "samples.png"):
        first, second = ((run.workdir / name).read_bytes() for run in runs)
        assert first == second
    assert runs[0].data == runs[1].data


@pytest.mark.long
def test_few_labels_train_as_said(tmp_path):
    """They teach c, and what is said and kept is how many they are."""
    said = []
    config = replace(SMALL, workdir=str(tmp_path / "run"), num_labels=6, epochs=20, gamma=300.0)
    run = fit(config, make_dataset(), say=said.append)
    assert "6 of 48 training images have a label, 2 of each class, 2 of every 8 in a batch" in said
    assert run.data.labels_per_class == (2, 2, 2)
    assert run.evaluation()["accuracy"] > 0.9


@pytest.mark.long
def test_classes_without_labels(tmp_path):
    """One of three: its images get the value of c that no label has taken."""
    dataset = make_dataset(train=120)
    labels = np.where(dataset.train_labels == 1, -1, dataset.train_labels).astype(np.int32)
    said = []
    config = replace(SMALL, workdir=str(tmp_path / "run"), epochs=10)
    run = fit(config, replace(dataset, train_labels=labels), say=said.append)
    assert "no image of these has a label, so c doesn't tell them apart: b" in said
    assert run.category_names == ("a", "c1", "c")
    found = run.evaluation()
    assert found["category_to_class"] == [0, 1, 2]
    assert found["accuracy_per_class"][1] == found["accuracy_unlabelled"]
    assert found["accuracy_per_class"][0] > 0.9


@pytest.mark.long
def test_no_label_makes_ours_unsupervised(tmp_path):
    said = []
    config = replace(SMALL, workdir=str(tmp_path / "run"), num_labels=0, epochs=1)
    run = fit(config, make_dataset(), say=said.append)
    assert "no training image has a label, so c is unsupervised" in said
    assert run.category_names == ("c0", "c1", "c2")
    assert sorted(run.evaluation()["category_to_class"]) == [0, 1, 2]
    assert "accuracy_unlabelled" not in run.evaluation()


def test_matching_against_every_permutation():
    rng = np.random.default_rng(0)
    categories, labels = rng.integers(0, 5, 80), rng.integers(0, 5, 80)
    for free in (range(5), (1, 2, 4)):
        category_to_class = batching.match_categories(categories, labels, 5, free)
        assert sorted(category_to_class) == [0, 1, 2, 3, 4]
        fixed = np.setdiff1d(np.arange(5), free)
        np.testing.assert_array_equal(category_to_class[fixed], fixed)
        every = [
            np.mean(np.array(permutation)[categories] == labels)
            for permutation in itertools.permutations(range(5))
            if all(permutation[index] == index for index in fixed)
        ]
        assert np.mean(category_to_class[categories] == labels) == max(every)
