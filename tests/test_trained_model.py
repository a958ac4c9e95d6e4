"""TrainedModel: labels by name, equality with the pure functions, evaluation and framing."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import encode_image, make_dataset, stroke_image
from PIL import Image

import jvae_jax
from jvae_jax import TrainedModel, generation
from jvae_jax.data.framing import frame_image
from jvae_jax.evaluation import classifier, evaluate
from jvae_jax.evaluation.classifier import EvalClassifier
from jvae_jax.evaluation.conditional import conditional_metrics
from jvae_jax.evaluation.disentanglement import disentanglement
from jvae_jax.evaluation.style_transfer import style_transfer_metrics
from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.types import Batch

CLASS_NAMES = ("7", "3", "あ")
Z = np.array([[0.5, -1.0], [0.0, 2.0], [1.0, 1.0]], np.float32)


@pytest.fixture
def model(reference):
    """A trained model whose class names are not their indices."""
    return replace(reference[0].model, class_names=CLASS_NAMES)


@pytest.fixture
def images():
    return make_dataset().test_images[:3]


@pytest.fixture(scope="module")
def model_without_classes():
    network = Autoencoder((8, 8, 1), 2, 0)
    variables = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    return TrainedModel(
        network=network, variables=variables, class_names=CLASS_NAMES, name="vae, toy"
    )


def test_representations_are_short(model_without_classes):
    expected = f"(class_names={CLASS_NAMES}, unlabelled_classes=(), name='vae, toy', seed=0)"
    assert repr(model_without_classes) == f"TrainedModel{expected}"
    assert repr(make_dataset()) == "Dataset(name='toy', class_names=('a', 'b', 'c'))"
    eval_classifier = classifier.EvalClassifier(3, model_without_classes.variables, 0.5)
    assert repr(eval_classifier) == "EvalClassifier(classes=3, accuracy=0.5, image_shape=None)"


@pytest.mark.parametrize(
    ("labels", "indices"),
    [
        ("3", [1]),
        (1, [1]),
        (["3", "あ", "7"], [1, 2, 0]),
        ((2, 0, 0), [2, 0, 0]),
        (["3", 0], [1, 0]),
        (np.array([2, 1]), [2, 1]),
        (np.array(["あ", "3"]), [2, 1]),
        (jnp.array([0, 2]), [0, 2]),
        (np.array(2), [2]),
        (jnp.array(1), [1]),
        (range(3), [0, 1, 2]),
        ([], []),
    ],
)
def test_label_indices_accept_indices_and_names(labels, indices, model):
    """The name "3" is not the index 3."""
    found = model.label_indices(labels)
    assert found.dtype == np.int32
    assert found.tolist() == indices


@pytest.mark.parametrize("label", ["1", "c1", "", 3, -1])
def test_label_indices_reject_unknown_labels(label, model):
    for labels in (label, ["3", label]):
        with pytest.raises(ValueError, match=f"^unknown label {label}; there are 7, 3, あ$"):
            model.label_indices(labels)


@pytest.mark.parametrize("label", [1.0, True, None])
@pytest.mark.usefixtures("without_jaxtyping")
def test_label_indices_reject_other_types(label, model):
    with pytest.raises(ValueError, match="unknown label"):
        model.label_indices(["3", label])


def test_model_without_classes_rejects_labels(model_without_classes, images, key):
    for call in (
        lambda: model_without_classes.label_indices("3"),
        lambda: model_without_classes.sample([0], key=key),
        lambda: model_without_classes.decode(Z, [0, 1, 2]),
        lambda: model_without_classes.restyle(images),
        lambda: model_without_classes.restyle(images, ["3"]),
        lambda: model_without_classes.interpolate(Z, "3", steps=4),
        lambda: model_without_classes.traverse(Z[0], np.zeros(2, np.float32), 1),
    ):
        with pytest.raises(ValueError, match=r"^vae, toy has no classes, so it takes no labels$"):
            call()
    with pytest.raises(ValueError, match=r"^this model has no classes"):
        replace(model_without_classes, name="").label_indices("3")


def test_model_with_classes_requires_labels(model):
    for call in (
        lambda: model.decode(Z),
        lambda: model.interpolate(Z, steps=4),
        lambda: model.traverse(Z[0], np.zeros(2, np.float32)),
    ):
        with pytest.raises(ValueError, match="a model with 3 classes requires labels"):
            call()


def test_category_names_of_unlabelled_classes(model, model_without_classes):
    """A category without labels has the name of no class."""
    assert model.category_names == CLASS_NAMES
    partly_labelled = replace(model, unlabelled_classes=(1,))
    assert partly_labelled.category_names == ("7", "c1", "あ")
    assert partly_labelled.label_indices(["あ", "c1"]).tolist() == [2, 1]
    with pytest.raises(ValueError, match=r"^unknown label 3; there are 7, c1, あ$"):
        partly_labelled.label_indices("3")
    assert replace(model, unlabelled_classes=(0, 1, 2)).category_names == ("c0", "c1", "c2")
    assert model_without_classes.category_names == ()
    assert not model_without_classes.has_classes
    assert model.has_classes


def test_sample_equals_generation(model, model_without_classes, key):
    arguments = model.network, model.variables, key
    np.testing.assert_array_equal(
        model.sample(["3", "7"], key=key, columns=4),
        generation.sample(*arguments, labels=[1, 0], columns=4),
    )
    np.testing.assert_array_equal(
        model.sample(key=key, columns=2), generation.sample(*arguments, labels=[0, 1, 2], columns=2)
    )
    assert model.sample("3", key=key).shape == (1, 10, 8, 8, 1)
    network, variables = model_without_classes.network, model_without_classes.variables
    np.testing.assert_array_equal(
        model_without_classes.sample(key=key, rows=2, columns=3),
        generation.sample(network, variables, key, rows=2, columns=3),
    )


def test_encode_and_reconstruct_equal_generation(model, model_without_classes, images):
    for each in (model, model_without_classes):
        jax.tree.map(
            np.testing.assert_array_equal,
            each.encode(images),
            generation.encode(each.network, each.variables, images),
        )
        np.testing.assert_array_equal(
            each.reconstruct(images), generation.reconstruct(each.network, each.variables, images)
        )


def test_decode_equals_generation(model, model_without_classes):
    def decode(labels):
        return generation.decode(model.network, model.variables, jnp.asarray(Z), labels)

    np.testing.assert_array_equal(model.decode(Z, ["3", "3", "7"]), decode([1, 1, 0]))
    np.testing.assert_array_equal(model.decode(Z, "3"), decode([1, 1, 1]))
    np.testing.assert_array_equal(
        model_without_classes.decode(Z),
        generation.decode(
            model_without_classes.network, model_without_classes.variables, jnp.asarray(Z)
        ),
    )


def test_restyle_equals_generation(model, images):
    def restyle(labels):
        return generation.restyle(model.network, model.variables, images, jnp.array(labels))

    np.testing.assert_array_equal(model.restyle(images, ["3", "7"]), restyle([1, 0]))
    np.testing.assert_array_equal(model.restyle(images), restyle([0, 1, 2]))


def test_interpolate_equals_generation(model, model_without_classes):
    def interpolate(model, labels):
        return generation.interpolate(
            model.network, model.variables, jnp.asarray(Z), labels, steps=5
        )

    for labels, indices in ((["3", "7", "あ"], [1, 0, 2]), ("3", [1, 1, 1])):
        np.testing.assert_array_equal(
            model.interpolate(Z, labels, steps=5), interpolate(model, indices)
        )
    np.testing.assert_array_equal(
        model_without_classes.interpolate(Z, steps=5), interpolate(model_without_classes, None)
    )


def test_traverse_equals_generation(model, model_without_classes):
    values = np.linspace(-2, 2, 3, dtype=np.float32)

    def traverse(model, label):
        return generation.traverse(
            model.network, model.variables, jnp.asarray(Z[0]), jnp.asarray(values), label
        )

    for label in ("3", 1):
        np.testing.assert_array_equal(model.traverse(Z[0], values, label), traverse(model, 1))
    np.testing.assert_array_equal(
        model_without_classes.traverse(Z[0], values), traverse(model_without_classes, None)
    )


def test_loaded_model_equals_model_of_run(reference):
    run, _ = reference
    loaded = jvae_jax.load(run.workdir)
    assert loaded.network == run.model.network
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, run.model.variables)
    assert loaded.class_names == ("a", "b", "c")
    assert loaded.name == "ours, toy"
    assert loaded.metrics == run.evaluation()


def test_evaluate_equals_function_with_key_of_run(reference):
    run, _ = reference
    dataset = make_dataset()
    split = Batch(dataset.test_images, dataset.test_labels)
    metrics = run.model.evaluate(dataset)
    assert metrics == evaluate(run.network, run.model.variables, split, run.key("test"))
    assert metrics.items() <= run.evaluation().items()


def test_evaluate_matches_categories_of_unlabelled_classes(reference):
    run, _ = reference
    dataset = make_dataset()
    split = Batch(dataset.test_images, dataset.test_labels)
    model = replace(run.model, unlabelled_classes=(1, 2))
    arguments = run.network, run.model.variables, split, run.key("test")
    assert model.evaluate(dataset) == evaluate(*arguments, unlabelled_classes=(1, 2))


def test_evaluate_without_classes_has_no_accuracy(model_without_classes):
    dataset = replace(make_dataset(), class_names=CLASS_NAMES)
    model = replace(model_without_classes, unlabelled_classes=(0, 1, 2))
    metrics = model.evaluate(dataset)
    assert "mse" in metrics
    assert "accuracy" not in metrics


@pytest.mark.long
def test_evaluate_with_eval_classifier_adds_metrics_of_generated_images(reference):
    run, _ = reference
    dataset = make_dataset(test=60)
    eval_classifier = classifier.train(dataset, steps=30)
    model, key = run.model, run.key("test")
    metrics = model.evaluate(dataset, eval_classifier)
    arguments = model.network, model.variables, eval_classifier, dataset, key
    expected = {
        **model.evaluate(dataset),
        **disentanglement(model.network, model.variables, dataset),
        **conditional_metrics(*arguments, category_to_class=None),
        **style_transfer_metrics(*arguments, category_to_class=None),
    }
    assert metrics == expected


def test_evaluate_rejects_other_shapes_and_classes(reference):
    model = reference[0].model
    message = r"images must have the model's shape \(8, 8, 1\), got \(8, 8, 3\)"
    with pytest.raises(ValueError, match=message):
        model.evaluate(make_dataset(channels=3))
    message = "the dataset must have the model's classes a, b, c, got a, b, c, d"
    with pytest.raises(ValueError, match=message):
        model.evaluate(make_dataset(classes=4))
    with pytest.raises(ValueError, match="the model's classes a, b, c, got 7, 3, あ"):
        model.evaluate(replace(make_dataset(), class_names=CLASS_NAMES))


@pytest.mark.fault(
    "library input",
    "images, styles or labels that don't suit the model",
    "ValueError that names the argument, its value and the model's",
)
@pytest.mark.usefixtures("without_jaxtyping")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda model: model.encode(np.zeros((1, 8, 8, 1))),
            "must be uint8 in 0 to 255, got float64",
        ),
        (
            lambda model: model.restyle(np.zeros((1, 28, 28, 1), np.uint8)),
            r"\(8, 8, 1\), got \(28, 28",
        ),
        (lambda model: model.restyle(np.zeros((8, 8, 1), np.uint8)), r"got shape \(8, 8, 1\)"),
        (lambda model: model.reconstruct(np.zeros((1, 8, 8, 1), bool)), "got bool"),
        (lambda model: model.decode([[0.0]], "3"), r"z must be \(batch, 2\)"),
        (lambda model: model.decode(Z, ["3", "7"]), r"labels must have shape \(3,\), got \(2,\)"),
        (
            lambda model: model.evaluate(make_dataset().test_images),
            "must be a jvae_jax.Dataset, got ndarray",
        ),
        (
            lambda model: replace(model, class_names=("a", "b", "c")).evaluate(
                make_dataset(), EvalClassifier(4, {}, 1.0)
            ),
            "eval_classifier must have the model's 3 classes, got 4",
        ),
    ],
)
def test_rejects_invalid_input(call, message, model):
    with pytest.raises(ValueError, match=message):
        call(model)


def bar(size, top, left, height, width, background, ink):
    pixels = np.full((size, size), background, np.uint8)
    pixels[top : top + height, left : left + width] = ink
    return pixels


@pytest.fixture
def bar_model(monkeypatch):
    """A model whose decoder is a stub: class k is a bar of 8 + k rows; and the decoded labels."""
    decoded = []

    def decode(_network, _variables, z, labels):
        decoded.extend(np.asarray(labels).tolist())
        images = [bar(32, 12, 14, 8 + label, 4, 0, 255) for label in decoded]
        assert len(images) == len(z)
        return jnp.stack(images)[..., None] / 255

    monkeypatch.setattr(generation, "decode", decode)
    network = Autoencoder((32, 32, 1), 2, 3)
    return TrainedModel(network=network, variables={}, class_names=("a", "b", "c")), decoded


def test_framing_is_estimated_from_generated_characters(bar_model):
    """It is computed once, from samples of all classes."""
    model, decoded = bar_model
    assert model.framing[:5] == (9 / 32, 16.5 / 32, 0.5, 0.0, 255.0)
    assert model.framing.thickness == pytest.approx(4 / 32, rel=0.1)
    assert set(decoded) == {0, 1, 2}
    count = len(decoded)
    assert model.framing is model.framing
    assert len(decoded) == count


def test_load_image_applies_framing(bar_model, tmp_path):
    model, _ = bar_model
    content = encode_image(Image.fromarray(bar(120, 30, 70, 60, 20, 230, 30)))
    path = tmp_path / "bar.png"
    path.write_bytes(content)
    image = model.load_image(path)
    assert image.shape == (1, 32, 32, 1)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, frame_image(path, model.framing, (32, 32, 1)))
    np.testing.assert_array_equal(model.load_image(content), image)
    np.testing.assert_array_equal(model.load_image(str(path)), image)
    # The ink is inverted, 9 pixels high and centred, as framing has it.
    rows, columns = np.nonzero(image[0, :, :, 0] > 127)
    assert abs(np.ptp(rows) + 1 - 9) <= 1
    assert rows.mean() + 0.5 == pytest.approx(16.5, abs=0.5)
    assert columns.mean() + 0.5 == pytest.approx(16, abs=0.5)


def test_load_image_rejects_blank_and_unreadable_images(bar_model):
    model, _ = bar_model
    with pytest.raises(ValueError, match="nothing is drawn on it"):
        model.load_image(encode_image(stroke_image(ink=255)))
    with pytest.raises(ValueError, match="not an image"):
        model.load_image(b"text")


def test_framing_rejects_model_of_blank_images(monkeypatch):
    monkeypatch.setattr(generation, "decode", lambda *_: jnp.zeros((200, 32, 32, 1)))
    network = Autoencoder((32, 32, 1), 2, 0)
    model = TrainedModel(network=network, variables={}, class_names=("a", "b", "c"))
    with pytest.raises(ValueError, match="none of 200 images contains ink"):
        _ = model.framing
