import jax
import numpy as np
import pytest
from helpers import make_dataset

from jvae_jax import Autoencoder
from jvae_jax.data import Dataset
from jvae_jax.evaluation import disentanglement as disentanglement_module
from jvae_jax.evaluation.disentanglement import (
    disentanglement,
    linear_probe_accuracy,
    morphology_metrics,
)
from jvae_jax.evaluation.morphology import measure
from jvae_jax.models.inference import scale_pixels
from jvae_jax.types import Posterior


def test_linear_probe_accuracy_of_informative_and_random_z():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 4000).astype(np.int32)
    noise = rng.standard_normal((4000, 3)).astype(np.float32)
    informative = noise.copy()
    informative[:, 1] = 0.01 * labels + 5  # another scale than the noise
    for z, low, high in ((informative, 0.99, 1.0), (noise, 0.2, 0.3)):
        accuracy = linear_probe_accuracy(z[:2000], labels[:2000], z[2000:], labels[2000:])
        assert low <= accuracy <= high


@pytest.mark.usefixtures("without_jaxtyping")
@pytest.mark.parametrize("has_classes", [True, False])
def test_metrics_by_hand(monkeypatch, has_classes):
    """z tells class 0 from the others; c is the class, but for two of the twelve test images."""
    dataset = make_dataset(train=30, test=16)
    dataset.test_labels[:] = np.repeat([0, 1, 2, -1], [6, 3, 3, 4])
    dataset.train_labels[3:9] = -1
    categories = np.repeat([0, 1, 2], [6, 4, 2])
    categories[0] = 1

    def encode(_model, _variables, images):
        is_test = len(images) == 16
        split = "test" if is_test else "train"
        np.testing.assert_array_equal(images, getattr(dataset, f"{split}_images"))
        labels = getattr(dataset, f"{split}_labels")
        # What is encoded of unlabelled images isn't used.
        mean = np.select([labels == 0, labels > 0], [5.0, -5.0], np.nan)[:, None]
        logits = np.eye(3)[np.pad(categories, (0, 4)) if is_test else np.zeros(30, int)]
        return Posterior(mean, np.zeros_like(mean), logits if has_classes else None)

    monkeypatch.setattr("jvae_jax.evaluation.disentanglement.encode", encode)
    metrics = disentanglement(None, {}, dataset)
    # All of class 0, and all of one of the two others.
    assert metrics.pop("linear_probe_accuracy") == 9 / 12
    assert metrics.pop("majority_class_accuracy") == 6 / 12
    if has_classes:
        joint = np.array([[5, 1, 0], [0, 3, 0], [0, 1, 2]]) / 12
        p = joint[joint > 0]
        products = np.outer(joint.sum(axis=1), joint.sum(axis=0))[joint > 0]
        assert metrics.pop("mutual_information") == pytest.approx((p * np.log(p / products)).sum())
        y = np.array([6, 3, 3]) / 12
        assert metrics.pop("label_entropy") == pytest.approx(-(y * np.log(y)).sum())
    assert metrics == {}


@pytest.fixture
def compute_metrics():
    def compute(classes, dataset):
        model = Autoencoder((8, 8, 1), 2, classes)
        variables = model.init(jax.random.key(0), scale_pixels(dataset.train_images[:1]))
        return disentanglement(model, variables, dataset)

    return compute


@pytest.mark.long
def test_label_entropy_and_majority_class_of_test_split(compute_metrics):
    dataset = make_dataset(test=21)
    metrics = compute_metrics(3, dataset)
    assert metrics["label_entropy"] == pytest.approx(np.log(3))
    assert metrics["majority_class_accuracy"] == pytest.approx(1 / 3)
    assert 0 <= metrics["mutual_information"] <= np.log(3) + 1e-9


@pytest.mark.long
def test_unlabelled_images_are_ignored(compute_metrics):
    dataset = make_dataset(test=30)
    dataset.test_labels[dataset.test_labels == 2] = -1
    dataset.train_labels[::2] = -1
    assert compute_metrics(3, dataset)["label_entropy"] == pytest.approx(np.log(2))


def test_metrics_without_classes(compute_metrics):
    metrics = compute_metrics(0, make_dataset())
    assert metrics.keys() == {"linear_probe_accuracy", "majority_class_accuracy"}


def test_morphology_metrics_find_factors_within_classes(monkeypatch, without_jaxtyping):
    """z is slant and thickness, moved by the class, and noise; c is the class."""
    del without_jaxtyping
    rng = np.random.default_rng(0)

    def strokes(count):
        y, x = np.mgrid[:16, :16] - 7.5
        slants, widths = rng.uniform(-0.5, 0.5, count), rng.uniform(1, 2.5, count)
        across = np.abs(x + slants[:, None, None] * y) - widths[:, None, None]
        ink = np.clip(0.5 - across, 0, 1) * (np.abs(y) < 6)
        return (255 * ink).round().astype(np.uint8)[..., None], rng.integers(0, 3, count)

    (train_images, train_labels), (test_images, test_labels) = strokes(300), strokes(200)
    test_images[0] = 0  # no ink, which is ignored
    train_labels[:9] = -1
    dataset = Dataset(
        name="strokes",
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        class_names=("a", "b", "c"),
    )
    label_of = {
        image.tobytes(): label
        for image, label in zip(
            [*train_images, *test_images], [*train_labels, *test_labels], strict=True
        )
    }

    def encode(_model, _variables, images):
        labels = np.array([label_of[image.tobytes()] for image in images])
        measures = measure(images)
        mean = np.stack([measures.slant, measures.thickness, rng.normal(size=len(images))], 1)
        mean[:, :2] += np.array([40, 3]) * labels[:, None]
        return Posterior(mean, np.zeros_like(mean), np.eye(3)[labels])

    monkeypatch.setattr(disentanglement_module, "encode", encode)
    metrics = morphology_metrics(None, {}, dataset, jax.random.key(0))
    for name in ("slant", "thickness"):
        assert metrics["factor_r2_within_classes"][name] == pytest.approx(1, abs=1e-6)
        assert metrics["factor_r2"][name] < 0.9
    assert metrics["sap_within_classes"] > metrics["sap"] + 0.1
    assert max(metrics["factor_c_information"].values()) < 0.2
    assert np.shape(list(metrics["factor_information"].values())) == (6, 3)
