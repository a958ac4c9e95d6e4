"""The likelihood against quadrature over z, closed forms and NumPy loops in float64."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TinyAutoencoder
from scipy.special import log_expit, logsumexp
from scipy.stats import norm

from jvae_jax.evaluation.likelihood import likelihood_metrics, negative_log_likelihood
from jvae_jax.sampling import example_keys

pytestmark = pytest.mark.usefixtures("without_jaxtyping")

MODELS = {
    "continuous": TinyAutoencoder(classes=0),
    "joint": TinyAutoencoder(),
    "conditional": TinyAutoencoder(conditional=True),
}
IMAGES = np.random.default_rng(0).integers(0, 2, (5, 2, 2, 1)).astype(np.uint8) * 255


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]


def variables_of(model):
    """Random weights of size 1, so that q(z|x) is neither the prior nor the exact posterior."""
    variables = jax.tree.map(np.array, model.init(jax.random.key(0), jnp.zeros((1, 2, 2, 1))))
    rng = np.random.default_rng(1)
    for layer in ("encoder", "decoder"):
        for name, leaf in variables["params"][layer].items():
            variables["params"][layer][name] = rng.standard_normal(leaf.shape).astype(np.float32)
    kernel = variables["params"]["encoder"]["kernel"]
    # Wide enough that the weights p(z) / q(z|x) have a variance.
    kernel[:, 1] *= 0.1
    variables["params"]["encoder"]["bias"][1] = 0.2
    return variables


def posteriors_of(model, variables, image):
    """Mean and logvar of q(z|x), or q(z|x,c), for each class; one for a model without classes."""
    posteriors = []
    for label in np.eye(max(model.classes, 1), dtype=np.float32):
        labels = [label[None]] if model.conditional else []
        inputs = jnp.asarray(image[None] / 255, jnp.float32)
        posterior = model.apply(variables, inputs, *labels, method="encode")
        posteriors.append((float(posterior.mean[0, 0]), float(posterior.logvar[0, 0])))
    return posteriors


def log_p_x(variables, image, z, label):
    """log p(x|z,c) for each z; the decoder is linear."""
    kernel = np.asarray(variables["params"]["decoder"]["kernel"], np.float64)
    bias = np.asarray(variables["params"]["decoder"]["bias"], np.float64)
    logits = np.multiply.outer(z, kernel[0]) + bias
    if len(kernel) > 1:
        logits += kernel[1 + label]
    x = image.ravel() / 255
    return (x * log_expit(logits) + (1 - x) * log_expit(-logits)).sum(-1)


def exact_nll(model, variables, image):
    """-log p(x) by quadrature over z."""
    z, spacing = np.linspace(-12, 12, 4001, retstep=True)
    classes = max(model.classes, 1)
    log_joint = [
        log_p_x(variables, image, z, label) + norm.logpdf(z) + np.log(spacing)
        for label in range(classes)
    ]
    return np.log(classes) - logsumexp(log_joint)


def test_equals_quadrature(model):
    """The mean of the estimates of p(x), which are unbiased, within four standard errors."""
    variables = variables_of(model)
    estimates = np.exp(
        [
            -negative_log_likelihood(model, variables, IMAGES, jax.random.key(seed), samples=1000)
            for seed in range(20)
        ]
    )
    exact = np.exp([-exact_nll(model, variables, image) for image in IMAGES])
    standard_error = estimates.std(axis=0, ddof=1) / 20**0.5
    assert (standard_error < 0.02 * exact).all()
    assert (abs(estimates.mean(axis=0) - exact) < 4 * standard_error).all()


def test_is_exact_if_the_decoder_ignores_z(model, key):
    """With the prior as q(z|x) all weights are equal, so that one sample is enough."""
    variables = variables_of(model)
    variables["params"]["decoder"]["kernel"][0] = 0
    for array in variables["params"]["encoder"].values():
        array[..., :2] = 0
    exact = [
        np.log(max(model.classes, 1))
        - logsumexp(
            [log_p_x(variables, image, 0.0, label) for label in range(max(model.classes, 1))]
        )
        for image in IMAGES
    ]
    for samples in (1, 7):
        values = negative_log_likelihood(model, variables, IMAGES, key, samples=samples)
        assert values.dtype == np.float64
        np.testing.assert_allclose(values, exact, rtol=1e-5)


def test_equals_a_loop_over_samples_and_classes(model, key):
    """With the noise of each sample of each image, in the same class by class."""
    variables = variables_of(model)
    values = negative_log_likelihood(model, variables, IMAGES, key, samples=6, batch_size=12)
    keys = example_keys(key, 0, jnp.arange(len(IMAGES))).gaussian
    for image, image_key, value in zip(IMAGES, keys, values, strict=True):
        log_weights = []
        for sample in range(6):
            noise = float(jax.random.normal(jax.random.fold_in(image_key, sample), (1,))[0])
            for label, (mean, logvar) in enumerate(posteriors_of(model, variables, image)):
                deviation = np.exp(logvar / 2)
                z = mean + deviation * noise
                log_ratio = norm.logpdf(z) - norm.logpdf(z, mean, deviation)
                log_weights.append(log_p_x(variables, image, z, label) + log_ratio)
        assert value == pytest.approx(np.log(len(log_weights)) - logsumexp(log_weights), rel=1e-5)


@pytest.mark.long
def test_does_not_depend_on_how_samples_are_batched(model, key):
    variables = variables_of(model)
    whole = negative_log_likelihood(model, variables, IMAGES, key, samples=10, batch_size=100)
    for batch_size in (1, 12):
        parts = negative_log_likelihood(
            model, variables, IMAGES, key, samples=10, batch_size=batch_size
        )
        np.testing.assert_allclose(parts, whole, rtol=1e-5)


@pytest.mark.long
def test_does_not_depend_on_the_other_images(model, key):
    variables = variables_of(model)
    whole = negative_log_likelihood(model, variables, IMAGES, key, samples=10)
    first = negative_log_likelihood(model, variables, IMAGES[:2], key, samples=10)
    np.testing.assert_array_equal(first, whole[:2])
    others = np.concatenate([IMAGES[:2], 255 - IMAGES[2:]])
    changed = negative_log_likelihood(model, variables, others, key, samples=10)
    np.testing.assert_array_equal(changed[:2], first)
    assert (changed[2:] != whole[2:]).all()
    # Noise of its own: equal images have different values.
    same = negative_log_likelihood(model, variables, IMAGES[[0, 0]], key, samples=10)
    assert same[0] != same[1]


def test_one_sample_has_the_expectation_of_the_negative_elbo(key):
    model = MODELS["continuous"]
    variables = variables_of(model)
    values = negative_log_likelihood(model, variables, IMAGES[:1].repeat(3000, 0), key, samples=1)
    ((mean, logvar),) = posteriors_of(model, variables, IMAGES[0])
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    z = mean + np.exp(logvar / 2) * nodes
    reconstruction = -(weights * log_p_x(variables, IMAGES[0], z, 0)).sum() / weights.sum()
    elbo = reconstruction + 0.5 * (mean**2 + np.exp(logvar) - 1 - logvar)
    assert elbo > exact_nll(model, variables, IMAGES[0]) + 0.1
    assert abs(values.mean() - elbo) < 4 * values.std() / 3000**0.5


def test_more_samples_tighten_the_bound(key):
    """No bound is above the previous one, within three standard errors of their difference."""
    model = MODELS["joint"]
    variables = variables_of(model)
    images = IMAGES[:1].repeat(300, 0)
    values = [
        negative_log_likelihood(model, variables, images, key, samples=samples)
        for samples in (1, 10, 100, 1000)
    ]
    for looser, tighter in pairwise(values):
        difference = looser - tighter
        assert difference.mean() > -3 * difference.std() / 300**0.5
    assert values[0].mean() > values[-1].mean() + 0.05
    assert values[-1].mean() == pytest.approx(exact_nll(model, variables, images[0]), rel=0.01)


def test_weights_beyond_float32_are_summed(key):
    """p(x) of a thousand nats is 0 in float32."""
    model = MODELS["joint"]
    variables = variables_of(model)
    variables["params"]["decoder"]["kernel"][0] = 0
    variables["params"]["decoder"]["bias"][:] = np.where(IMAGES[0].ravel() > 0, -500, 500)
    (value,) = negative_log_likelihood(model, variables, IMAGES[:1], key, samples=900)
    assert value == pytest.approx(exact_nll(model, variables, IMAGES[0]), rel=1e-3)
    assert value > 1900


def test_metrics_by_hand(key):
    model = MODELS["joint"]
    variables = variables_of(model)
    a, b = negative_log_likelihood(model, variables, IMAGES[:2], key, samples=3)
    assert likelihood_metrics(model, variables, IMAGES[:2], key, samples=3) == {
        "nll": pytest.approx((a + b) / 2),
        "nll_standard_error": pytest.approx(abs(a - b) / 2),
        "nll_images": 2,
        "nll_samples": 3,
    }
    single = likelihood_metrics(model, variables, IMAGES[:1], key, samples=3)
    assert single == {
        "nll": a,
        "nll_standard_error": None,
        "nll_images": 1,
        "nll_samples": 3,
    }


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (IMAGES, {"samples": 0}, "samples must be 1 or more, got 0"),
        (IMAGES / 255, {"samples": 1}, "must be uint8 in 0 to 255, got float64"),
        (IMAGES[:, :1], {"samples": 1}, r"the model's shape \(2, 2, 1\), got \(1, 2, 1\)"),
        (IMAGES[:0], {"samples": 1}, "images must be one or more, got none"),
    ],
)
def test_rejects_bad_input(images, options, message, key):
    model = MODELS["joint"]
    with pytest.raises(ValueError, match=message):
        likelihood_metrics(model, variables_of(model), images, key, **options)


def test_rejects_batches_without_images(key):
    model = MODELS["joint"]
    with pytest.raises(ValueError, match="batch_size must be 1 or more, got 0"):
        negative_log_likelihood(model, variables_of(model), IMAGES, key, batch_size=0)
