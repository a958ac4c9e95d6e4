import jax
import numpy as np
import pytest
from helpers import make_dataset

from jvae_jax import Autoencoder
from jvae_jax.evaluation.disentanglement import disentanglement, linear_probe_accuracy
from jvae_jax.models.inference import scale_pixels


def test_linear_probe_accuracy_of_informative_and_random_z():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 4000).astype(np.int32)
    noise = rng.standard_normal((4000, 3)).astype(np.float32)
    informative = noise.copy()
    informative[:, 1] = 0.01 * labels + 5  # another scale than the noise
    for z, low, high in ((informative, 0.99, 1.0), (noise, 0.2, 0.3)):
        accuracy = linear_probe_accuracy(z[:2000], labels[:2000], z[2000:], labels[2000:])
        assert low <= accuracy <= high


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


def test_unlabelled_images_are_ignored(compute_metrics):
    dataset = make_dataset(test=30)
    dataset.test_labels[dataset.test_labels == 2] = -1
    dataset.train_labels[::2] = -1
    assert compute_metrics(3, dataset)["label_entropy"] == pytest.approx(np.log(2))


def test_metrics_without_classes(compute_metrics):
    metrics = compute_metrics(0, make_dataset())
    assert metrics.keys() == {"linear_probe_accuracy", "majority_class_accuracy"}
