"""Architecture of the paper, PyTorch's defaults, and the methods of the autoencoder."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jvae_jax import losses
from jvae_jax.models.autoencoder import Autoencoder, Decoder, Encoder


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def apply(model, variables, *inputs, method="__call__"):
    """Compiled as a whole, which is faster than one operation at a time."""
    return jax.jit(partial(model.apply, method=method))(variables, *inputs)


def variables_of(model, size=32, channels=1):
    return jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, size, size, channels)))


@pytest.mark.parametrize(
    ("size", "channels", "latents", "classes"), [(32, 1, 10, 10), (64, 3, 4, 73), (8, 2, 1, 2)]
)
def test_parameter_counts(size, channels, latents, classes):
    model = Autoencoder((size, size, channels), latents, classes)
    variables = jax.eval_shape(partial(variables_of, model, size, channels))
    flat = (size // 8) ** 2 * 32
    norm = lambda features: 2 * features  # noqa: E731
    convolutions = 16 * channels * 32 + 2 * 16 * 32 * 32 + 3 * norm(32)
    heads = (2 * latents + classes) * (256 + 1)
    encoder = convolutions + flat * 256 + norm(256) + heads
    linear = (latents + classes) * 256 + norm(256) + 256 * flat + norm(flat)
    transposed = 2 * (16 * 32 * 32 + norm(32)) + 16 * 32 * channels + channels
    assert count(variables["params"]["encoder"]) == encoder
    assert count(variables["params"]["decoder"]) == linear + transposed
    # Batch normalisation has a mean and a variance per feature.
    assert count(variables["batch_stats"]) == 3 * 64 + 2 * 256 + 2 * 256 + 2 * flat + 2 * 64


@pytest.mark.parametrize("shape", [(32, 32, 1), (8, 24, 3), (64, 16, 2)])
def test_output_shapes(shape):
    model = Autoencoder(shape, latents=4, classes=5)
    images = jnp.zeros((2, *shape))
    variables = jax.jit(model.init)(jax.random.key(0), images)
    posterior = jax.eval_shape(partial(model.apply, method="encode"), variables, images)
    assert posterior.mean.shape == posterior.logvar.shape == (2, 4)
    assert posterior.logits is not None
    assert posterior.logits.shape == (2, 5)
    decode = partial(model.apply, method="decode")
    assert jax.eval_shape(decode, variables, jnp.zeros((2, 9))).shape == images.shape


def test_continuous_model_has_no_classes():
    model = Autoencoder((8, 8, 1), latents=4, classes=0)
    images = jnp.zeros((2, 8, 8, 1))
    variables = jax.jit(model.init)(jax.random.key(0), images)
    assert apply(model, variables, images, method="encode").logits is None
    assert apply(model, variables, images).shape == images.shape


@pytest.mark.parametrize("conditional", [False, True])
def test_fixed_latents_are_zero(conditional):
    model = Autoencoder((8, 8, 1), 4, classes=3, conditional=conditional, fixed_latents=2)
    images = jax.random.uniform(jax.random.key(1), (2, 8, 8, 1))
    variables = jax.jit(model.init)(jax.random.key(0), images)
    posterior = apply(model, variables, images, method="infer")
    assert (np.asarray(posterior.mean)[:, 2:] == 0).all()
    kl = losses.gaussian_kl(posterior.mean[:, 2:], posterior.logvar[:, 2:])
    assert (np.asarray(kl) == 0).all()
    assert (np.asarray(posterior.mean)[:, :2] != 0).all()
    latents = jnp.ones((1, 7))
    decode = lambda latents: apply(model, variables, latents, method="decode")  # noqa: E731
    np.testing.assert_array_equal(decode(latents), decode(latents.at[:, 2:4].set(9)))
    for free in (1, 4):
        assert not np.allclose(decode(latents), decode(latents.at[:, free].set(9)))


def test_conditional_model_takes_labels():
    model = Autoencoder((8, 8, 1), latents=4, classes=3, conditional=True)
    images = jax.random.uniform(jax.random.key(1), (2, 8, 8, 1))
    variables = jax.jit(model.init)(jax.random.key(0), images)
    assert apply(model, variables, images, method="classify").shape == (2, 3)
    encode = lambda labels: model.apply(  # noqa: E731
        variables, images, jnp.eye(3)[jnp.array(labels)], method="encode"
    )
    assert encode([0, 1]).logits is None
    assert not np.allclose(encode([0, 1]).mean, encode([1, 2]).mean)
    repeated = encode([0, 1, 2, 0])
    np.testing.assert_allclose(repeated.mean[::2], encode([0, 2]).mean, rtol=1e-6)
    np.testing.assert_allclose(repeated.mean[1::2], encode([1, 0]).mean, rtol=1e-6)
    posterior = apply(model, variables, images, method="infer")
    labels = np.argmax(posterior.logits, axis=1)
    np.testing.assert_allclose(posterior.mean, encode(labels).mean, rtol=1e-6)


@pytest.mark.parametrize("conditional", [False, True])
def test_pads_images_and_crops_logits(conditional):
    """Images of 5 x 10 pixels equal those of 8 x 16 with 1 and 3 rows and columns of 0 around."""
    small = Autoencoder((5, 10, 2), latents=4, classes=3, conditional=conditional)
    large = Autoencoder((8, 16, 2), latents=4, classes=3, conditional=conditional)
    images = jax.random.uniform(jax.random.key(1), (2, 5, 10, 2))
    padded = jnp.zeros((2, 8, 16, 2)).at[:, 1:6, 3:13].set(images)
    variables = jax.jit(small.init)(jax.random.key(0), images)
    logits = apply(small, variables, images)
    assert logits.shape == (2, 5, 10, 2)
    np.testing.assert_array_equal(logits, apply(large, variables, padded)[:, 1:6, 3:13])


@pytest.mark.parametrize("depth", [1, 4])
def test_depth_is_the_number_of_halvings(depth):
    """The last convolution has 1 / 2^depth of the padded height and width of 16 x 32 pixels."""
    model = Autoencoder((10, 20, 1), latents=2, classes=3, conditional=True, depth=depth)
    images = jax.random.uniform(jax.random.key(1), (2, 10, 20, 1))
    variables = jax.jit(model.init)(jax.random.key(0), images)
    rows, columns = {1: (5, 10), 4: (1, 2)}[depth]
    for network, other_inputs in (("encoder", 3), ("classifier", 0)):
        trunk = variables["params"][network]["Trunk_0"]
        assert sum(name.startswith("Conv_") for name in trunk) == depth
        assert trunk["Dense_0"]["kernel"].shape == (rows * columns * 32 + other_inputs, 256)
    decoder = variables["params"]["decoder"]
    assert sum(name.startswith("ConvTranspose_") for name in decoder) == depth
    assert decoder["Dense_1"]["kernel"].shape == (256, rows * columns * 32)
    assert apply(model, variables, images).shape == images.shape


@pytest.mark.parametrize("conditional", [pytest.param(False, marks=pytest.mark.long), True])
def test_classifies_decoded_images(conditional):
    """With the running statistics, which it leaves alone, and gradients of the decoder only."""
    model = Autoencoder((8, 8, 1), latents=2, classes=3, conditional=conditional, train=True)
    images = jax.random.uniform(jax.random.key(1), (4, 8, 8, 1))
    variables = jax.jit(model.init)(jax.random.key(0), images)
    latents = jax.random.normal(jax.random.key(2), (4, 5))

    @jax.jit
    def logits_of(params, classifier_params=None):
        apply = partial(model.apply, mutable=["batch_stats"])
        given = {**variables, "params": params}
        if classifier_params is None:
            return apply(given, latents, method="classify_decoded")
        decoded, _ = apply(given, latents, method="decode")
        evaluated = {**variables, "params": classifier_params}
        evaluation = model.clone(train=False)
        return evaluation.apply(evaluated, jax.nn.sigmoid(decoded), method="infer").logits

    logits, updates = logits_of(variables["params"])
    jax.tree.map(np.testing.assert_array_equal, updates["batch_stats"], variables["batch_stats"])
    np.testing.assert_allclose(logits, logits_of(variables["params"], variables["params"]), 1e-5)
    loss = lambda params: jnp.sum(logits_of(params)[0][:, 0])  # noqa: E731
    gradients = jax.jit(jax.grad(loss))(variables["params"])
    logit = lambda params: jnp.sum(logits_of(params, variables["params"])[:, 0])  # noqa: E731
    expected = jax.jit(jax.grad(logit))
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
        gradients,
        expected(variables["params"]),
    )
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradients["encoder"]))
    assert all(leaf.any() for leaf in jax.tree.leaves(gradients["decoder"]["bias"]))


def test_initialisation_matches_pytorch():
    """U(-b, b), b = 1 / sqrt(fan_in), where ConvTranspose2d counts fan_in over output channels."""
    params = variables_of(Autoencoder((32, 32, 1)))["params"]
    encoder, decoder = params["encoder"], params["decoder"]
    for weights, fan_in in (
        (encoder["Trunk_0"]["Conv_0"]["kernel"], 16),
        (encoder["Trunk_0"]["Conv_1"]["kernel"], 16 * 32),
        (encoder["Trunk_0"]["Dense_0"]["kernel"], 512),
        (encoder["mean"]["Dense_0"]["kernel"], 256),
        (encoder["logits"]["Dense_0"]["bias"], 256),
        (decoder["Dense_0"]["kernel"], 20),
        (decoder["ConvTranspose_0"]["kernel"], 16 * 32),
        (decoder["ConvTranspose_2"]["kernel"], 16),
    ):
        bound = fan_in**-0.5
        assert np.abs(weights).max() <= bound
        if weights.size > 500:
            assert np.abs(weights).max() > 0.98 * bound
            assert abs(np.std(weights) - bound / 3**0.5) < 0.06 * bound
    assert np.abs(decoder["bias"]).max() <= 1 / 4


def test_batch_normalisation_matches_pytorch():
    """Statistics of the first convolution are updated with PyTorch's momentum of 0.1."""
    model = Autoencoder((8, 8, 1), latents=2, classes=2, train=True)
    images = jax.random.uniform(jax.random.key(1), (16, 8, 8, 1))
    variables = jax.jit(model.init)(jax.random.key(0), images)
    _, updates = jax.jit(partial(model.apply, mutable=["batch_stats"]))(variables, images)
    kernel = variables["params"]["encoder"]["Trunk_0"]["Conv_0"]["kernel"]
    convolved = jax.lax.conv_general_dilated(
        images, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    result = updates["batch_stats"]["encoder"]["Trunk_0"]["NormReLU_0"]
    np.testing.assert_allclose(result["mean"], 0.1 * convolved.mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(result["var"], 0.9 + 0.1 * convolved.var((0, 1, 2)), rtol=1e-4)


def test_encoder_matches_lax():
    """The encoder in evaluation mode equals an implementation without linen."""
    encoder = Encoder(latents=2, classes=3)
    images = jax.random.uniform(jax.random.key(1), (4, 16, 16, 1))
    variables = jax.jit(encoder.init)(jax.random.key(0), images)
    # Initial statistics would hide errors in their use.
    stats = jax.tree.map(lambda leaf: leaf + 0.1, variables["batch_stats"])["Trunk_0"]
    params = variables["params"]

    def norm_relu(x, index):
        mean, var = (stats[f"NormReLU_{index}"][name] for name in ("mean", "var"))
        return jnp.maximum((x - mean) / jnp.sqrt(var + 1e-5), 0)

    x = images
    for index in range(3):
        x = jax.lax.conv_general_dilated(
            x,
            params["Trunk_0"][f"Conv_{index}"]["kernel"],
            (2, 2),
            ((1, 1), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        x = norm_relu(x, index)
    x = norm_relu(x.reshape(4, -1) @ params["Trunk_0"]["Dense_0"]["kernel"], 3)
    result = jax.jit(encoder.apply)({"params": params, "batch_stats": {"Trunk_0": stats}}, images)
    for name in ("mean", "logvar", "logits"):
        head = params[name]["Dense_0"]
        np.testing.assert_allclose(
            getattr(result, name), x @ head["kernel"] + head["bias"], rtol=1e-4, atol=1e-5
        )


def test_decoder_returns_logits():
    decoder = Decoder((8, 8, 1))
    latents = 50 * jax.random.normal(jax.random.key(1), (4, 3))
    logits, _ = decoder.init_with_output(jax.random.key(0), latents)
    assert np.min(logits) < 0 or np.max(logits) > 1


def test_tabulate_lists_layers():
    images = jnp.zeros((1, 32, 32, 1))
    table = Autoencoder((32, 32, 1)).tabulate(
        jax.random.key(0), images, console_kwargs={"width": 200}
    )
    assert "ConvTranspose_2" in table
