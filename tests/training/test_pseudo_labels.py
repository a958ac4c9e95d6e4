"""Labels of unlabelled images by a trained model or by label propagation."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from helpers import SMALL, assert_same_result, log_messages, make_dataset

from jvae_jax.data.neighbours import nearest_images
from jvae_jax.objectives import OBJECTIVES, Ours
from jvae_jax.training import loop
from jvae_jax.training.loop import fit
from jvae_jax.training.pseudo_labels import (
    most_probable_categories,
    propagated_labels,
    propagation_errors,
    pseudo_labels,
)


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [
        (1.0, [7, 7, -1, 4, -1, 4, 7, 4]),
        (0.7, [-1, 7, -1, 4, -1, -1, 7, 4]),
        (0.3, [-1, -1, -1, -1, -1, -1, -1, -1]),
        (0.34, [-1, 7, -1, -1, -1, -1, -1, 4]),
    ],
)
def test_labels_the_most_certain_images_of_each_category(fraction, expected):
    logits = np.zeros((8, 3), np.float32)
    logits[[0, 1, 6], 0] = 3, 9, 4
    logits[[2, 4], 1] = 30, 40
    logits[[3, 5, 7], 2] = 2, 1, 3
    labels = pseudo_labels(*most_probable_categories(logits), [7, None, 4], fraction=fraction)
    np.testing.assert_array_equal(labels, expected)
    assert labels.dtype == np.int32


def test_certainties_that_round_to_1_are_ordered():
    logits = np.array([[30, 0, 0], [60, 0, 0], [45, 0, 0], [0, 0, 5]], np.float32)
    probabilities = np.exp(logits[:3, 0]) / np.exp(logits[:3]).sum(axis=-1)
    assert (probabilities == 1).all()
    categories, odds = most_probable_categories(logits)
    np.testing.assert_allclose(odds, [2 * np.exp(-k) for k in (30, 60, 45, 5)], rtol=1e-6)
    labels = pseudo_labels(categories, odds, [0, 1, 2], fraction=0.4)
    np.testing.assert_array_equal(labels, [-1, 0, -1, -1])


def test_equally_certain_images_are_taken_in_their_order():
    labels = pseudo_labels(np.zeros(5, np.int64), np.ones(5), [0, 1])
    np.testing.assert_array_equal(labels, [0, 0, -1, -1, -1])


def test_labels_spread_over_the_graph():
    """By the solution of linear equations, eq. 4 of Zhou et al., on three clusters of points."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(300, 2)) + np.repeat([[0, 0], [3, 0], [0, 3]], 100, axis=0)
    distances = np.linalg.norm(points[:, None] - points, axis=-1)
    nearest = np.argsort(distances, axis=1)[:, 1:6].astype(np.int32)
    labels = np.full(300, -1)
    labels[[1, 2, 3, 4]] = 4, 4, 4, 0
    labels[[110, 120, 130, 210, 220, 230]] = 0, 0, 0, 9, 9, 9
    adjacency = np.zeros((300, 300))
    for image, others in enumerate(nearest):
        adjacency[image, others] += 1
        adjacency[others, image] += 1
    degrees = adjacency.sum(axis=1)
    similarities = adjacency / np.sqrt(np.outer(degrees, degrees))
    one_hot = (labels[:, None] == [0, 4, 9]).astype(float)

    def solution(alpha):
        values = np.linalg.solve(np.eye(300) - alpha * similarities, one_hot)
        return np.array([0, 4, 9])[values.argmax(axis=1)]

    propagated = propagated_labels(labels, nearest)
    np.testing.assert_array_equal(propagated, solution(0.995))
    assert (propagated != solution(0.9)).any()
    assert propagated.dtype == np.int32


def test_propagation_is_validated_on_the_other_half_of_the_labels():
    """On two chains of images: 0 to 3 and 4 to 7.

    First 0, 3 and 5 are hidden: only 3 gets another label, from 1. Then 1, 4 and 6 are, of which
    6 isn't compared, as its class has no other label.
    """
    nearest = np.array([[1], [0], [1], [2], [5], [4], [5], [6]], np.int32)
    labels = np.array([0, 0, -1, 1, 1, 1, 2, -1])
    assert propagation_errors(labels, nearest) == (1, 5)
    assert propagation_errors(np.where(np.arange(8) % 4 == 0, labels, -1), nearest) == (0, 0)


def test_images_that_no_label_reaches_stay_unlabelled():
    nearest = np.array([[1], [0], [1], [4], [3]], np.int32)
    labels = np.array([-1, -1, 2, -1, -1])
    np.testing.assert_array_equal(propagated_labels(labels, nearest), [2, 2, 2, -1, -1])


@pytest.fixture
def config(reference, tmp_path):
    """Of a run with one label of each class."""
    source, _ = reference
    return replace(
        SMALL,
        epochs=2,
        num_labels=3,
        pseudo_labels_from=str(source.workdir),
        workdir=str(tmp_path / "run"),
    )


@pytest.fixture
def trained_on(monkeypatch):
    """The labels that training has seen, in a list; nothing is trained."""
    seen = []

    def train(_run, dataset, state, *_):
        seen.append(dataset.train_labels)
        return state

    monkeypatch.setattr(loop, "_train", train)
    monkeypatch.setattr(loop, "evaluate_run", lambda *_args, **_options: None)
    return seen


def test_labels_are_added_to_those_that_are_given(config, reference, trained_on):
    dataset = make_dataset()
    source, _ = reference
    with log_messages() as messages:
        fit(config, dataset)
    (labels,) = trained_on
    given = dataset.with_labels(3, 0).train_labels
    logits = np.asarray(source.model.encode(dataset.train_images).logits)
    expected = pseudo_labels(*most_probable_categories(logits), [0, 1, 2])
    assert (expected >= 0).sum() >= 15  # of 48
    np.testing.assert_array_equal(labels[given >= 0], given[given >= 0])
    np.testing.assert_array_equal(labels[given < 0], expected[given < 0])
    added = np.sum((labels >= 0) & (given < 0))
    assert f"{added} more images have labels by {source.workdir}" in messages


def test_propagated_labels_are_added_to_those_that_are_given(config, trained_on):
    dataset = make_dataset()
    given = dataset.with_labels(6, 0).train_labels
    config = replace(config, num_labels=6, pseudo_labels_from=None, label_propagation=True)
    with log_messages() as messages:
        fit(config, dataset)
    (labels,) = trained_on
    nearest = nearest_images(dataset.train_images, 5)
    expected = propagated_labels(given, nearest)
    np.testing.assert_array_equal(labels, np.where(given >= 0, given, expected))
    assert np.mean(labels == dataset.train_labels) > 0.9
    assert "42 more images have labels by label propagation" in messages
    assert "two-fold validation of label propagation: 0 of 6 labels are wrong" in messages
    kept = np.load(f"{config.workdir}/pseudo_labels.npy")
    np.testing.assert_array_equal(kept, expected)


def test_labels_propagate_among_few_images(config, trained_on):
    """Four, so each has three nearest ones."""
    dataset = make_dataset(train=4)
    config = replace(
        config, batch_size=2, num_labels=3, pseudo_labels_from=None, label_propagation=True
    )
    fit(config, dataset)
    (labels,) = trained_on
    assert (labels >= 0).all()


def test_neighbours_are_used_before_propagated_labels(config, monkeypatch):
    """In the unsupervised epochs, after which all images have labels."""
    found = []

    def train(run, dataset, state, *_):
        found.append((loop._neighbours_of_images(run, dataset), dataset.train_labels))
        return state

    monkeypatch.setattr(loop, "_train", train)
    monkeypatch.setattr(loop, "evaluate_run", lambda *_args, **_options: None)
    config = replace(config, pseudo_labels_from=None, label_propagation=True)
    objective = Ours(neighbours=3, consistency_weight=1.0, unsupervised_epochs=1)
    with log_messages() as messages:
        fit(replace(config, objective=objective), make_dataset())
        objective = replace(objective, unsupervised_epochs=0)
        fit(replace(config, objective=objective, workdir=f"{config.workdir}-0"), make_dataset())
    (first, labels), (second, _) = found
    assert (labels >= 0).all()
    assert first.shape == (48, 3)
    assert second is None
    assert messages.count("neighbours of 3 has no effect with these labels") == 1


def test_classes_are_matched_by_their_names(config, trained_on):
    dataset = make_dataset()
    fit(config, replace(dataset, class_names=("c", "a", "b")))
    (labels,) = trained_on
    added = (labels >= 0) & (dataset.with_labels(3, 0).train_labels < 0)
    expected = (dataset.train_labels[added] + 1) % 3  # the source reads almost all rightly
    assert np.mean(labels[added] == expected) > 0.9


@pytest.mark.parametrize("by_propagation", [False, True])
def test_hidden_labels_have_no_effect(config, trained_on, by_propagation):
    if by_propagation:
        config = replace(config, pseudo_labels_from=None, label_propagation=True)
    dataset = make_dataset()
    fit(config, dataset)
    given = replace(dataset, train_labels=dataset.with_labels(3, 0).train_labels)
    fit(replace(config, num_labels="all", workdir=f"{config.workdir}-given"), given)
    np.testing.assert_array_equal(*trained_on)


@pytest.mark.long
def test_grows_with_the_labels_that_the_folder_keeps(config, reference, tmp_path):
    """Without the model that gave them."""
    source, _ = reference
    config = replace(config, objective=Ours(capacity_steps=2))
    copied = tmp_path / "source"
    shutil.copytree(source.workdir, copied)
    changed = replace(config, pseudo_labels_from=str(copied))
    fit(replace(changed, epochs=1), make_dataset())
    shutil.rmtree(copied)
    grown = fit(changed, make_dataset())
    whole = fit(replace(config, workdir=str(tmp_path / "whole")), make_dataset())
    for path in (grown.workdir, whole.workdir):
        assert np.load(path / "pseudo_labels.npy").shape == (48,)
    assert_same_result(grown, whole)


@pytest.mark.long
def test_interrupted_before_labels_are_kept(config, tmp_path, monkeypatch):
    whole = fit(replace(config, workdir=str(tmp_path / "whole")), make_dataset())

    def interrupt(*_args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "pseudo_labels", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fit(config, make_dataset())
    assert not (tmp_path / "run" / "pseudo_labels.npy").exists()
    assert_same_result(fit(config, make_dataset()), whole)


@pytest.mark.long
@pytest.mark.parametrize("by_propagation", [False, True])
def test_lost_labels_end_training(config, tmp_path, by_propagation):
    """Others would be another run."""
    if by_propagation:
        config = replace(config, pseudo_labels_from=None, label_propagation=True)
    fit(replace(config, epochs=1), make_dataset())
    path = tmp_path / "run" / "pseudo_labels.npy"
    kept = path.read_bytes()
    for content in (b"", kept[:-4]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"pseudo_labels.npy is missing or damaged, so train"):
            fit(config, make_dataset())
        assert path.read_bytes() == content
    path.write_bytes(kept)
    assert fit(config, make_dataset()).evaluation()["step"] == 12


@pytest.mark.parametrize(
    ("changes", "dataset", "error", "message"),
    [
        (
            {},
            {"size": 16},
            ValueError,
            r"reads images of \(8, 8, 1\), not of \(16, 16, 1\); choose another model or",
        ),
        (
            {"num_labels": 2},
            {},
            ValueError,
            "needs a labelled .* of each class; none is of [abc]; label one",
        ),
        (
            {"num_labels": 2, "pseudo_labels_from": None, "label_propagation": True},
            {},
            ValueError,
            "label_propagation needs a labelled .* of each class; none is of [abc]; label one",
        ),
        (
            {"num_labels": 4},
            {"classes": 4},
            ValueError,
            "wasn't trained with labels of d, and would read these",
        ),
        ({"pseudo_labels_from": "digit"}, {}, FileNotFoundError, "digit is not a run.*packaged"),
    ],
)
def test_unsuitable_labels_leave_no_folder(config, tmp_path, changes, dataset, error, message):
    with pytest.raises(error, match=message):
        fit(replace(config, **changes), make_dataset(**dataset))
    assert list(tmp_path.iterdir()) == []


def test_objectives_without_labels_take_none(config):
    with pytest.raises(ValueError, match="vae uses no labels, so pseudo_labels_from has no effect"):
        replace(config, num_labels="all", objective=OBJECTIVES["vae"]())
    with pytest.raises(ValueError, match="vae uses no labels, so label_propagation has no effect"):
        replace(SMALL, label_propagation=True, objective=OBJECTIVES["vae"]())


def test_has_no_effect_if_all_images_are_labelled(trained_on, tmp_path):
    config = replace(SMALL, label_propagation=True, workdir=str(tmp_path / "run"))
    with log_messages() as messages:
        fit(config, make_dataset())
    assert "label_propagation of True has no effect with these labels" in messages
    np.testing.assert_array_equal(trained_on, [make_dataset().train_labels])


def test_labels_come_from_one_source(config):
    with pytest.raises(
        ValueError, match=f"pseudo_labels_from, got {config.pseudo_labels_from}, or"
    ):
        replace(config, label_propagation=True)


@pytest.mark.usefixtures("trained_on")
def test_another_source_is_another_run(config):
    fit(config, make_dataset())
    with pytest.raises(ValueError, match=r"pseudo_labels_from is '.*' there and None here"):
        fit(replace(config, pseudo_labels_from=None), make_dataset())
    with pytest.raises(ValueError, match="pseudo_labels_from must be a name or a folder, got ''"):
        replace(config, pseudo_labels_from="")


def test_unsupervised_categories_give_no_labels(config, tmp_path):
    unsupervised = replace(
        SMALL, epochs=1, num_labels=0, objective=Ours(), workdir=str(tmp_path / "source")
    )
    fit(unsupervised, make_dataset())
    with pytest.raises(ValueError, match="wasn't trained with labels of a, b, c, and"):
        fit(replace(config, pseudo_labels_from=unsupervised.workdir), make_dataset())
