from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import make_dataset

from jvae_jax.generation import characters
from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.training.step import init_state

SHAPE = (8, 16, 1)
MODEL = Autoencoder(SHAPE, 2, 3)
CONTINUOUS = Autoencoder(SHAPE, 2, 0)


def init(model):
    return jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, *SHAPE)))


def test_sample_grid_has_one_label_per_row_and_one_z_per_column(key):
    variables = init(MODEL)
    images = characters.sample(MODEL, variables, key, labels=jnp.array([2, 0]), columns=4)
    assert images.shape == (2, 4, *SHAPE)
    assert 0 <= images.min() <= images.max() <= 1
    z = jax.random.normal(key, (4, 2))
    single = characters.decode(MODEL, variables, z[3:], jnp.array([2]))
    np.testing.assert_allclose(images[0, 3], single[0], rtol=1e-5)
    logits = MODEL.apply(variables, jnp.array([[*z[3], 0.0, 0.0, 1.0]]), method="decode")
    np.testing.assert_allclose(single, jax.nn.sigmoid(logits), rtol=1e-5)


def test_accepts_labels_as_lists(key):
    variables, images = init(MODEL), np.zeros((2, *SHAPE), np.uint8)
    z, labels = jax.random.normal(key, (2, 2)), [2, 0]
    for function in (
        lambda labels: characters.decode(MODEL, variables, z, labels),
        lambda labels: characters.sample(MODEL, variables, key, labels=labels, columns=2),
        lambda labels: characters.restyle(MODEL, variables, images, labels),
        lambda labels: characters.interpolate(MODEL, variables, z, labels, steps=3),
    ):
        np.testing.assert_array_equal(function(labels), function(jnp.array(labels)))


def test_sample_without_classes(key):
    variables = init(CONTINUOUS)
    images = characters.sample(CONTINUOUS, variables, key, rows=3, columns=4)
    assert images.shape == (3, 4, *SHAPE)
    assert len(np.unique(np.asarray(images).reshape(12, -1), axis=0)) == 12


def test_rejects_missing_or_unexpected_labels(key):
    with pytest.raises(ValueError, match="3 classes requires labels"):
        characters.decode(MODEL, init(MODEL), jnp.zeros((1, 2)))
    with pytest.raises(ValueError, match="without classes takes no labels"):
        characters.sample(CONTINUOUS, init(CONTINUOUS), key, labels=jnp.array([0]), columns=1)


def test_reconstruct_decodes_posterior_mean_and_most_probable_label():
    dataset = make_dataset(size=8)
    model = Autoencoder((8, 8, 1), 2, 3)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    result = characters.reconstruct(model, variables, dataset.test_images)
    posterior = model.apply(variables, jnp.array(dataset.test_images / 255.0), method="infer")
    labels = jnp.argmax(posterior.logits, axis=1)
    expected = characters.decode(model, variables, posterior.mean, labels)
    np.testing.assert_allclose(result, expected, rtol=1e-4)


def test_traverse_changes_one_dimension_at_a_time():
    variables = init(MODEL)
    z, values = jnp.array([0.5, -0.5]), jnp.array([-2.0, 0.0, 2.0])
    images = characters.traverse(MODEL, variables, z, values, label=1)
    assert images.shape == (2, 3, *SHAPE)
    expected = characters.decode(MODEL, variables, jnp.array([[0.5, 2.0]]), jnp.array([1]))
    np.testing.assert_allclose(images[1, 2], expected[0], rtol=1e-5)


def test_decode_is_independent_of_batching(key):
    """450 examples are two and a quarter batches."""
    variables = init(MODEL)
    z = jax.random.normal(key, (450, 2))
    labels = jnp.arange(450) % 3
    images = characters.decode(MODEL, variables, z, labels)
    for start in range(0, 450, 150):
        part = slice(start, start + 150)
        np.testing.assert_allclose(
            images[part], characters.decode(MODEL, variables, z[part], labels[part]), atol=1e-6
        )


def test_encode_matches_infer():
    dataset = make_dataset(size=8)
    model = Autoencoder((8, 8, 1), 2, 3)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    result = characters.encode(model, variables, dataset.test_images)
    expected = model.apply(variables, jnp.array(dataset.test_images / 255.0), method="infer")
    for name in ("mean", "logvar", "logits"):
        np.testing.assert_allclose(
            getattr(result, name), getattr(expected, name), rtol=1e-3, atol=1e-6
        )


@pytest.mark.parametrize("conditional", [False, True])
def test_restyle_decodes_each_label_with_each_style(conditional):
    dataset = make_dataset(size=8)
    model = Autoencoder((8, 8, 1), 2, 3, conditional)
    variables = init_state(model, optax.sgd(0.1), jax.random.key(0)).average
    images = dataset.test_images[:4]
    result = characters.restyle(model, variables, images, jnp.array([2, 0]))
    assert result.shape == (4, 2, 8, 8, 1)
    z = characters.encode(model, variables, images).mean
    single = characters.decode(model, variables, z[3:], jnp.array([0]))
    np.testing.assert_allclose(result[3, 1], single[0], rtol=1e-5)


def test_restyle_requires_classes():
    with pytest.raises(ValueError, match="without classes takes no labels"):
        images = np.zeros((1, *SHAPE), np.uint8)
        characters.restyle(CONTINUOUS, init(CONTINUOUS), images, jnp.array([0]))


def test_interpolation_includes_waypoints_and_midpoints():
    variables = init(MODEL)
    z, labels = jnp.array([[0.0, 1.0], [2.0, -1.0], [2.0, 3.0]]), jnp.array([1, 1, 2])
    images = characters.interpolate(MODEL, variables, z, labels, steps=5)
    np.testing.assert_allclose(
        images[::2], characters.decode(MODEL, variables, z, labels), rtol=1e-5
    )
    midpoint = characters.decode(MODEL, variables, jnp.array([[1.0, 0.0]]), jnp.array([1]))
    np.testing.assert_allclose(images[1], midpoint[0], rtol=1e-5)
    mixed = characters._decode_latents(MODEL, variables, jnp.array([[2.0, 1.0, 0.0, 0.5, 0.5]]))
    np.testing.assert_allclose(images[3], mixed[0], rtol=1e-5)


def test_interpolation_without_classes(key):
    z = jax.random.normal(key, (2, 2))
    variables = init(CONTINUOUS)
    images = characters.interpolate(CONTINUOUS, variables, z, steps=3)
    middle = characters.decode(CONTINUOUS, variables, z.mean(axis=0, keepdims=True))
    np.testing.assert_allclose(images[1], middle[0], rtol=1e-5)
    with pytest.raises(ValueError, match="3 classes requires labels"):
        characters.interpolate(MODEL, init(MODEL), z, steps=3)


Z = np.zeros((2, 2), np.float32)
PIXELS = np.zeros((2, *SHAPE), np.uint8)


@pytest.mark.usefixtures("without_jaxtyping")
@pytest.mark.parametrize("convert", [jnp.asarray, lambda array: np.asarray(array).tolist()])
def test_takes_lists_and_arrays(convert):
    variables = init(MODEL)
    images = np.random.default_rng(0).integers(0, 256, (2, *SHAPE), np.uint8)
    z, labels, values = Z + 0.5, np.array([0, 2]), np.array([0.0, 1.0])
    for function, *arguments in (
        (characters.encode, images),
        (characters.reconstruct, images),
        (characters.restyle, images, labels),
        (characters.decode, z, labels),
        (partial(characters.interpolate, steps=3), z, labels),
        (partial(characters.traverse, label=2), z[0], values),
    ):
        expected = function(MODEL, variables, *arguments)
        result = function(MODEL, variables, *map(convert, arguments))
        jax.tree.map(np.testing.assert_array_equal, result, expected)


@pytest.mark.fault(
    "library input",
    "images, styles or labels that don't suit the model",
    "ValueError that names the argument, its value and the model's",
)
@pytest.mark.usefixtures("without_jaxtyping")
@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda *m: characters.encode(*m, PIXELS / 255),
            "must be uint8 in 0 to 255, got float64 in 0",
        ),
        (lambda *m: characters.encode(*m, PIXELS.astype(int)), "got int64 in 0 to 0"),
        (lambda *m: characters.encode(*m, (PIXELS - 1.0).tolist()), "got float64 in -1 to -1"),
        (lambda *m: characters.encode(*m, [[[[256]]]]), "got int64 in 256 to 256"),
        (lambda *m: characters.encode(*m, [[1, 2], [3]]), "lists of equal length: "),
        (lambda *m: characters.encode(*m, PIXELS[0]), r"channels\), got shape \(8, 16, 1\)"),
        (
            lambda *m: characters.reconstruct(*m, PIXELS[:, :, :8]),
            r"the model's shape \(8, 16, 1\), got \(8, 8, 1\)",
        ),
        (lambda *m: characters.restyle(*m, PIXELS, [0, 3]), "labels must be 0 to 2, got 3"),
        (lambda *m: characters.restyle(*m, PIXELS, [-1]), "labels must be 0 to 2, got -1"),
        (lambda *m: characters.restyle(*m, PIXELS, [0.5]), "labels must be integers, got float64"),
        (lambda *m: characters.restyle(*m, PIXELS[0], [0]), "got shape"),
        (lambda *m: characters.decode(*m, Z, [0]), r"labels must have shape \(2,\), got \(1,\)"),
        (lambda *m: characters.decode(*m, Z[0], [0]), r"z must be \(batch, 2\).* got shape \(2,\)"),
        (lambda *m: characters.decode(*m, np.zeros((2, 3)), [0, 0]), r"got shape \(2, 3\)"),
        (lambda *m: characters.decode(*m, Z, np.array([0, 9])), "labels must be 0 to 2, got 9"),
        (
            lambda *m: characters.sample(*m, jax.random.key(0), labels=[3], columns=1),
            "0 to 2, got 3",
        ),
        (
            lambda *m: characters.sample(*m, jax.random.key(0), labels=[0], columns=0),
            "rows and columns must be above 0, got 1 and 0",
        ),
        (lambda *m: characters.interpolate(*m, Z[:1], [0], steps=3), "got 1 styles and 3 steps"),
        (lambda *m: characters.interpolate(*m, Z, [0, 0], steps=1), "got 2 styles and 1 steps"),
        (
            lambda *m: characters.traverse(*m, Z, [0.0], 0),
            r"z must be \(2,\) .* \(2, 2\) and \(1,\)",
        ),
        (lambda *m: characters.traverse(*m, Z[0], [0.0], 3), "labels must be 0 to 2, got 3"),
    ],
)
def test_rejects_invalid_input(function, message):
    with pytest.raises(ValueError, match=message):
        function(MODEL, init(MODEL))


@pytest.mark.usefixtures("without_jaxtyping")
def test_input_under_jit_is_checked_by_shape_and_dtype():
    variables = init(MODEL)
    decode = jax.jit(lambda z, labels: characters.decode(MODEL, variables, z, labels))
    encode = jax.jit(lambda images: characters.encode(MODEL, variables, images).mean)
    assert decode(Z, jnp.array([0, 2])).shape == (2, *SHAPE)
    assert encode(jnp.asarray(PIXELS)).shape == (2, 2)
    for call, message in (
        (lambda: decode(Z, jnp.array([0.0, 1.0])), "labels must be integers"),
        (lambda: decode(Z[:, :1], jnp.array([0, 1])), "z must be"),
        (lambda: encode(jnp.zeros((2, *SHAPE))), "must be uint8 in 0 to 255, got float32\n"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
