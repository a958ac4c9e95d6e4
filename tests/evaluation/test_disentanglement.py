import jax
import numpy as np
import pytest
from helpers import make_dataset

from jvae_jax import Autoencoder
from jvae_jax.evaluation.disentanglement import disentanglement, linear_probe_accuracy
from jvae_jax.models.inference import scale


def test_a_probe_reads_what_is_there_and_no_more():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 4000).astype(np.int32)
    noise = rng.standard_normal((4000, 3)).astype(np.float32)
    knowing = noise.copy()
    knowing[:, 1] = 0.01 * labels + 5  # on a scale of its own
    for z, low, high in ((knowing, 0.99, 1.0), (noise, 0.2, 0.3)):
        assert (
            low <= linear_probe_accuracy(z[:2000], labels[:2000], z[2000:], labels[2000:]) <= high
        )


@pytest.fixture
def found():
    def of(objective_classes, dataset):
        model = Autoencoder((8, 8, 1), 2, objective_classes)
        variables = model.init(jax.random.key(0), scale(dataset.train_images[:1]))
        return disentanglement(model, variables, dataset)

    return of


@pytest.mark.long
def test_entropy_and_chance_are_those_of_the_test_split(found):
    dataset = make_dataset(test=21)
    measures = found(3, dataset)
    assert measures["label_entropy"] == pytest.approx(np.log(3))
    assert measures["majority_class_accuracy"] == pytest.approx(1 / 3)
    assert 0 <= measures["mutual_information"] <= np.log(3) + 1e-9


def test_unlabelled_images_do_not_count(found):
    dataset = make_dataset(test=30)
    dataset.test_labels[dataset.test_labels == 2] = -1
    dataset.train_labels[::2] = -1
    assert found(3, dataset)["label_entropy"] == pytest.approx(np.log(2))


def test_without_c_there_is_only_the_probe(found):
    assert found(0, make_dataset()).keys() == {"linear_probe_accuracy", "majority_class_accuracy"}
