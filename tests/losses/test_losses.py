"""Objectives compared with float64 loops over the paper's equations, limits and equinox models."""

import math
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jvae_jax import losses, numerics, sampling
from jvae_jax.losses._terms import capacity_penalty
from jvae_jax.types import Posterior

BATCH, LATENTS, CLASSES, SHAPE = 6, 3, 4, (4, 4, 1)
PIXELS = math.prod(SHAPE)


def matrices(inputs=LATENTS + CLASSES, extra=0, seed=0):
    """Weights of a linear encoder and decoder."""
    rng = np.random.default_rng(seed)
    outputs = 2 * LATENTS + CLASSES
    return (
        jnp.array(rng.normal(0, 0.3, (PIXELS + extra, outputs)), jnp.float32),
        jnp.array(rng.normal(0, 0.5, (inputs, PIXELS)), jnp.float32),
    )


def encode_with(weights, images, *labels):
    flat = images.reshape(len(images), -1)
    for one_hot_labels in labels:
        repeated = flat.repeat(len(one_hot_labels) // len(flat), axis=0)
        flat = jnp.concatenate([repeated, one_hot_labels], axis=-1)
    mean, logvar, logits = jnp.split(flat @ weights, [LATENTS, 2 * LATENTS], axis=-1)
    return Posterior(mean, logvar, logits)


def decode_with(weights, latents):
    return (latents @ weights).reshape(-1, *SHAPE)


def batch(seed=1):
    rng = np.random.default_rng(seed)
    images = jnp.array(rng.uniform(0, 1, (BATCH, *SHAPE)), jnp.float32)
    labels = jnp.array(rng.integers(0, CLASSES, BATCH), jnp.int32)
    return images, labels


def functions(inputs=LATENTS + CLASSES, extra=0):
    encoder, decoder = matrices(inputs, extra)
    return partial(encode_with, encoder), partial(decode_with, decoder)


KEYS = {"gaussian_key": jax.random.key(1), "gumbel_key": jax.random.key(2)}
JOINT = {**KEYS, "beta": 30.0, "gamma": 20.0, "capacity_z": 2.0, "temperature": 0.67}


# --- equations in float64 ---


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def encode64(weights, *inputs):
    flat = np.concatenate([np.ravel(part) for part in inputs]).astype(np.float64)
    outputs = flat @ np.asarray(weights, np.float64)
    return outputs[:LATENTS], outputs[LATENTS : 2 * LATENTS], outputs[2 * LATENTS :]


def nll64(weights, latents, image):
    p = 1 / (1 + np.exp(-(latents @ np.asarray(weights, np.float64))))
    x = np.ravel(image).astype(np.float64)
    return -sum(a * math.log(b) + (1 - a) * math.log(1 - b) for a, b in zip(x, p, strict=True))


def kl64(mean, logvar):
    return sum(-0.5 * (1 + v - m**2 - math.exp(v)) for m, v in zip(mean, logvar, strict=True))


def noise64():
    gaussian = sampling.standard_normal(KEYS["gaussian_key"], (BATCH, LATENTS))
    gumbel = sampling.standard_gumbel(KEYS["gumbel_key"], (BATCH, CLASSES))
    return np.asarray(gaussian, np.float64), np.asarray(gumbel, np.float64)


def continuous64(beta, capacity=None):
    (encoder, decoder), (images, _) = matrices(LATENTS), batch()
    epsilon, _ = noise64()
    nll, kl = [], []
    for image, e in zip(images, epsilon, strict=True):
        mean, logvar, _ = encode64(encoder, image)
        nll.append(nll64(decoder, mean + np.exp(logvar / 2) * e, image))
        kl.append(kl64(mean, logvar))
    penalty = np.mean(kl) if capacity is None else abs(np.mean(kl) - capacity)
    return np.mean(nll) + beta * penalty


def test_continuous_losses_match_equations():
    (encode, decode), (images, _) = functions(LATENTS), batch()
    key = {"gaussian_key": KEYS["gaussian_key"]}
    loss, terms = losses.vae(encode, decode, images, **key)
    np.testing.assert_allclose(loss, continuous64(1.0), rtol=1e-5)
    assert terms.reconstruction.shape == terms.kl_z.shape == (BATCH,)
    assert terms.kl_c is None
    loss, _ = losses.beta_vae(encode, decode, images, beta=7.0, **key)
    np.testing.assert_allclose(loss, continuous64(7.0), rtol=1e-5)
    for capacity in (0.0, 0.3, 25.0):
        loss, _ = losses.annealed_vae(encode, decode, images, beta=7.0, capacity_z=capacity, **key)
        np.testing.assert_allclose(loss, continuous64(7.0, capacity), rtol=1e-5)


def joint64(labels, *, beta, gamma, capacity_z, capacity_c, unlabelled_capacity_c, temperature):
    (encoder, decoder), (images, _) = matrices(), batch()
    epsilon, gumbel = noise64()
    nll, kl_z, labelled, unlabelled = [], [], [], []
    for image, label, e, g in zip(images, labels, epsilon, gumbel, strict=True):
        mean, logvar, logits = encode64(encoder, image)
        c = softmax((logits + g) / temperature)
        z = mean + np.exp(logvar / 2) * e
        nll.append(nll64(decoder, np.concatenate([z, c]), image))
        kl_z.append(kl64(mean, logvar))
        q = softmax(logits)
        if label >= 0:
            labelled.append(-math.log(q[label]))
        else:
            unlabelled.append(math.log(CLASSES) + sum(a * math.log(a) for a in q))
    loss = np.mean(nll) + beta * abs(np.mean(kl_z) - capacity_z)
    for kl, capacity in ((labelled, capacity_c), (unlabelled, unlabelled_capacity_c)):
        if kl:
            loss += gamma * len(kl) / BATCH * abs(np.mean(kl) - capacity)
    return loss


@pytest.mark.parametrize("labels", [[0, 1, 2, 3, 0, 1], [0, -1, 2, -1, -1, 3], [-1] * 6])
@pytest.mark.parametrize("capacity_c", [0.0, 0.9])
def test_joint_losses_match_equations(labels, capacity_c):
    (encode, decode), (images, _) = functions(), batch()
    weights = {name: value for name, value in JOINT.items() if not name.endswith("key")}
    capacities = {"capacity_c": capacity_c, "unlabelled_capacity_c": 1.1}
    loss, terms = losses.ours(encode, decode, images, jnp.array(labels), **capacities, **JOINT)
    np.testing.assert_allclose(loss, joint64(labels, **weights, **capacities), rtol=1e-5)
    assert terms.kl_c is not None
    assert terms.kl_c.shape == (BATCH,)
    if labels[0] == -1:
        loss, _ = losses.joint_vae(encode, decode, images, capacity_c=1.1, **JOINT)
        np.testing.assert_allclose(loss, joint64(labels, **weights, **capacities), rtol=1e-5)


def cvae64(labels, alpha):
    (encoder, decoder), (images, _) = matrices(extra=CLASSES), batch()
    classifier = matrices(seed=5)[0][:, -CLASSES:]
    epsilon, _ = noise64()
    total = 0.0
    for image, label, e in zip(images, labels, epsilon, strict=True):
        q = softmax(np.ravel(image).astype(np.float64) @ np.asarray(classifier, np.float64))

        def bound(y, image=image, e=e):
            mean, logvar, _ = encode64(encoder, image, np.eye(CLASSES)[y])
            z = np.concatenate([mean + np.exp(logvar / 2) * e, np.eye(CLASSES)[y]])
            return nll64(decoder, z, image) + kl64(mean, logvar) + math.log(CLASSES)

        if label >= 0:
            total += bound(label) - alpha * math.log(q[label])
        else:
            total += sum(q[y] * (bound(y) + math.log(q[y])) for y in range(CLASSES))
    return total / BATCH


@pytest.mark.parametrize("labels", [[0, 1, 2, 3, 0, 1], [0, -1, 2, -1, -1, 3], [-1] * 6])
def test_cvae_matches_equation(labels):
    (encode, decode), (images, _) = functions(extra=CLASSES), batch()
    classifier = matrices(seed=5)[0][:, -CLASSES:]
    classify = lambda images: images.reshape(BATCH, -1) @ classifier  # noqa: E731
    options = {"gaussian_key": KEYS["gaussian_key"], "alpha": 3.0}
    args = encode, decode, classify, images, jnp.array(labels)
    loss, terms = losses.cvae(*args, **options)
    np.testing.assert_allclose(loss, cvae64(labels, 3.0), rtol=1e-5)
    assert terms.consistency is None
    assert all(term is not None and term.shape == (BATCH,) for term in terms[:4])
    if min(labels) >= 0:
        labelled_loss, labelled_terms = losses.cvae(*args, all_labelled=True, **options)
        np.testing.assert_allclose(labelled_loss, loss, rtol=1e-6)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), labelled_terms, terms)


# --- limits ---


@pytest.mark.parametrize("multiplier", [-30.0, -0.2, 0.0, 7.0, 29.9, 30.0])
@pytest.mark.parametrize("difference", [-9.0, -0.3, 0.0, 0.3, 9.0])
def test_penalty_with_a_multiplier_is_a_maximum(multiplier, difference):
    """Against a search over m, whose derivatives follow from the value at the maximum."""
    m = np.linspace(-30.0, 30.0, 600_001)
    values = m * difference - (m - multiplier) ** 2 / 2
    best = m[values.argmax()]
    penalty = partial(capacity_penalty, weight=30.0)
    at = jnp.float32(difference), jnp.float32(multiplier)
    value, gradients = jax.value_and_grad(
        lambda difference, multiplier: penalty(difference, multiplier=multiplier), (0, 1)
    )(*at)
    np.testing.assert_allclose(value, values.max(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradients, (best, best - multiplier), rtol=1e-5, atol=2e-4)
    assert value <= penalty(at[0], multiplier=None)


def test_multipliers_change_the_penalties_only():
    """Capacities are 0.1 nats below the KL divergences, or above that of unlabelled c."""
    (encode, decode), (images, labels) = functions(), batch()
    labels = labels.at[:2].set(-1)
    posterior = encode(images)
    kl_z = losses.gaussian_kl(posterior.mean, posterior.logvar).mean()
    kl_c = losses.label_kl(posterior.logits, labels)[2:].mean()
    unlabelled_kl_c = losses.categorical_kl(posterior.logits)[:2].mean()
    options = {
        **JOINT,
        "capacity_z": kl_z - 0.1,
        "capacity_c": kl_c - 0.1,
        "unlabelled_capacity_c": unlabelled_kl_c + 0.1,
    }
    ours = partial(losses.ours, encode, decode, images, labels, **options)

    def value(multiplier_z, multiplier_c, unlabelled_multiplier_c):
        return ours(
            multiplier_z=multiplier_z,
            multiplier_c=multiplier_c,
            unlabelled_multiplier_c=unlabelled_multiplier_c,
        )[0]

    differences = 0.1, 0.1 * 4 / 6, -0.1 * 2 / 6
    multipliers = 0.3, -4.0, 5.0
    reconstruction = ours()[0] - sum(
        weight * abs(difference)
        for weight, difference in zip((30.0, 20.0, 20.0), differences, strict=True)
    )
    expected = reconstruction + sum(
        multiplier * difference + difference**2 / 2
        for multiplier, difference in zip(multipliers, differences, strict=True)
    )
    loss, gradients = jax.value_and_grad(value, argnums=(0, 1, 2))(*multipliers)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(gradients, differences, rtol=1e-3)
    # At its bound, gamma, the multiplier of labelled examples gives the paper's penalty.
    np.testing.assert_allclose(ours(multiplier_c=20.0)[0], ours()[0], rtol=1e-6)


def test_multipliers_of_annealed_vae_and_joint_vae():
    """d = KL - C gives multiplier d + d^2 / 2."""
    (encode, decode), (images, _) = functions(LATENTS), batch()
    key = {"gaussian_key": KEYS["gaussian_key"]}
    loss, terms = losses.annealed_vae(
        encode, decode, images, **key, beta=7.0, capacity_z=0.2, multiplier_z=0.5
    )
    d = float(terms.kl_z.mean()) - 0.2
    assert 0 < 0.5 + d < 7.0
    expected = continuous64(0.0) + 0.5 * d + d**2 / 2
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    encode, decode = functions()
    joint = partial(losses.joint_vae, encode, decode, images, capacity_c=0.0, **JOINT)
    labels = jnp.full(BATCH, -1)
    expected = losses.ours(
        encode,
        decode,
        images,
        labels,
        capacity_c=0.0,
        **JOINT,
        multiplier_z=2.0,
        unlabelled_multiplier_c=3.0,
    )
    actual = joint(multiplier_z=2.0, multiplier_c=3.0)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)
    assert actual[0] != joint()[0]


def test_classifier_of_the_same_logits_equals_the_posterior_s():
    """With an encoder that ignores c, q(z|x,c) is q(z|x)."""
    (encode, decode), (images, labels) = functions(), batch()
    labels = labels.at[0].set(-1)
    options = {
        **JOINT,
        "capacity_c": 0.1,
        "augmented_images": images[::-1],
        "consistency_weight": 3.0,
    }

    def encode_z(images, c):
        assert images.shape == (BATCH, *SHAPE)
        assert c.shape == (BATCH, CLASSES)
        return encode(images)._replace(logits=None)

    expected = losses.ours(encode, decode, images, labels, **options)
    actual = losses.ours(
        encode_z,
        decode,
        images,
        labels,
        classify=lambda images: encode(images).logits,
        **options,
    )
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), actual, expected)


def test_encoder_and_decoder_receive_the_same_c():
    """z is its mean plus noise, and c the Gumbel-softmax of the classifier's logits."""
    (encode, decode), (images, labels) = functions(extra=CLASSES), batch()
    classifier = matrices(seed=5)[0][:, :CLASSES]
    classify = lambda images: images.reshape(len(images), -1) @ classifier  # noqa: E731
    received = []

    def recording_decode(latents):
        received.append(latents)
        return decode(latents)

    _, terms = losses.ours(
        encode, recording_decode, images, labels, classify=classify, capacity_c=0.0, **JOINT
    )
    epsilon, gumbel = noise64()
    logits = np.asarray(classify(images), np.float64)
    for index, (image, noise, e) in enumerate(zip(images, gumbel, epsilon, strict=True)):
        c = softmax((logits[index] + noise) / 0.67)
        mean, logvar, _ = encode64(matrices(extra=CLASSES)[0], image, c)
        expected = np.concatenate([mean + np.exp(logvar / 2) * e, c])
        np.testing.assert_allclose(received[0][index], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(terms.kl_z[index], kl64(mean, logvar), rtol=1e-4)
        kl_c = -math.log(softmax(logits[index])[labels[index]])
        np.testing.assert_allclose(terms.kl_c[index], kl_c, rtol=1e-4)


def test_ours_without_labels_equals_joint_vae():
    (encode, decode), (images, _) = functions(), batch()
    unlabelled = jnp.full(BATCH, -1)
    ours = losses.ours(encode, decode, images, unlabelled, capacity_c=1.0, **JOINT)
    joint = losses.joint_vae(encode, decode, images, capacity_c=1.0, **JOINT)
    jax.tree.map(np.testing.assert_array_equal, ours, joint)


@pytest.mark.parametrize(
    ("probabilities", "kl"),
    [
        ([[1, 0], [0, 1]], 0.0),
        ([[0.5, 0.5], [0.5, 0.5]], 0.0),
        ([[1, 0], [1, 0]], math.log(2)),
        ([[0.9, 0.1], [0.5, 0.5]], 0.7 * math.log(1.4) + 0.3 * math.log(0.6)),
    ],
)
def test_marginal_kl_is_that_of_the_mean_posterior(probabilities, kl):
    logits = jnp.log(jnp.array(probabilities))
    encode = lambda _: Posterior(jnp.zeros((2, 1)), jnp.zeros((2, 1)), logits)  # noqa: E731
    decode = lambda latents: jnp.zeros((2, *SHAPE)) * latents.sum()  # noqa: E731
    images = jnp.zeros((2, *SHAPE))
    call = partial(losses.joint_vae, encode, decode, images, **JOINT, capacity_c=1.0)
    loss, terms = call(marginal_weight=3.0)
    assert float(terms.marginal_kl.mean()) == pytest.approx(kl, abs=1e-6)
    assert float(loss - call()[0]) == pytest.approx(3 * kl, abs=1e-4)


def test_kl_of_c_is_mutual_information_and_marginal_kl():
    """I(x;c) is the mean of KL(q(c|x) || q(c)), for equally probable images."""
    (encode, decode), (images, _) = functions(), batch()
    _, terms = losses.joint_vae(
        encode, decode, images, **JOINT, capacity_c=1.0, marginal_weight=1.0
    )
    posterior = np.asarray(jax.nn.softmax(encode(images).logits), np.float64)
    information = np.mean([scipy.stats.entropy(each, posterior.mean(0)) for each in posterior])
    expected = information + terms.marginal_kl.mean()
    np.testing.assert_allclose(terms.kl_c.mean(), expected, rtol=1e-5)


@pytest.mark.parametrize("all_labelled", [False, True])
def test_cvae_has_the_consistency_and_marginal_losses_of_ours(all_labelled):
    encode, decode = functions(extra=CLASSES)
    classifier = matrices(seed=5)[0][:, :CLASSES]
    classify = lambda images: images.reshape(len(images), -1) @ classifier  # noqa: E731
    images, labels = batch()
    labels = labels if all_labelled else labels.at[2:].set(-1)
    options = {"augmented_images": images[::-1], "consistency_weight": 2.0, "marginal_weight": 3.0}
    _, expected = losses.ours(
        encode, decode, images, labels, classify=classify, capacity_c=0.0, **JOINT, **options
    )
    cvae = partial(
        losses.cvae,
        lambda images, c: encode(images.repeat(len(c) // len(images), axis=0), c),
        decode,
        classify,
        images,
        labels,
        gaussian_key=KEYS["gaussian_key"],
        alpha=1.0,
        all_labelled=all_labelled,
    )
    loss, terms = cvae(**options)
    np.testing.assert_allclose(terms.consistency, expected.consistency, rtol=1e-5)
    np.testing.assert_allclose(terms.marginal_kl, expected.marginal_kl, rtol=1e-5)
    added = 2 * terms.consistency.mean() + 3 * terms.marginal_kl.mean()
    assert float(loss - cvae()[0]) == pytest.approx(float(added), rel=1e-4)


def test_marginal_kl_of_an_unused_class_is_finite():
    """Its probability underflows to 0 for all images."""
    logits = jnp.full((BATCH, CLASSES), 0.0).at[:, 1:].set(-200.0)

    def loss(logits):
        encode = lambda _: Posterior(jnp.zeros((BATCH, 1)), jnp.zeros((BATCH, 1)), logits)  # noqa: E731
        decode = lambda latents: jnp.zeros((BATCH, *SHAPE)) * latents.sum()  # noqa: E731
        return losses.joint_vae(
            encode, decode, batch()[0], **JOINT, capacity_c=1.0, marginal_weight=1.0
        )

    (_, terms), gradient = jax.value_and_grad(loss, has_aux=True)(logits)
    np.testing.assert_allclose(terms.marginal_kl, math.log(CLASSES), rtol=1e-6)
    assert np.isfinite(gradient).all()


def test_labels_have_no_effect_if_gamma_is_zero():
    (encode, decode), (images, labels) = functions(), batch()
    weights = {**JOINT, "gamma": 0.0, "capacity_c": 0.0}
    first, _ = losses.ours(encode, decode, images, labels, **weights)
    second, _ = losses.ours(encode, decode, images, (labels + 1) % CLASSES, **weights)
    joint, _ = losses.joint_vae(encode, decode, images, **weights)
    assert first == second == joint


def test_one_class_equals_annealed_vae():
    encoder, decoder = matrices(LATENTS + 1)
    encode = lambda images: encode_with(encoder, images)._replace(logits=jnp.zeros((BATCH, 1)))  # noqa: E731
    images, _ = batch()
    weights = {**JOINT, "capacity_c": 0.0}
    ours, terms = losses.ours(
        encode, partial(decode_with, decoder), images, jnp.zeros(BATCH, int), **weights
    )

    def decode_one_class(z):
        return decode_with(decoder, jnp.concatenate([z, jnp.ones((BATCH, 1))], axis=-1))

    annealed, _ = losses.annealed_vae(
        encode,
        decode_one_class,
        images,
        gaussian_key=JOINT["gaussian_key"],
        beta=30.0,
        capacity_z=2.0,
    )
    np.testing.assert_allclose(ours, annealed, rtol=1e-6)
    np.testing.assert_array_equal(terms.kl_c, 0)


def test_capacity_distance_uses_global_mean():
    """The sign of mean KL - C is that of the global batch, even if the sign of a shard differs."""
    (_, decode), (images, _) = functions(), batch()
    labels = jnp.array([0, -1, 2, -1, -1, 3])
    example_keys = {name: jax.random.split(key, BATCH) for name, key in KEYS.items()}
    options = {**JOINT, "capacity_c": 0.3, "unlabelled_capacity_c": 1.1}
    encoder, _ = matrices()

    def loss(encoder, images, labels, keys, axis_name=None):
        encode = partial(encode_with, encoder)
        value, terms = losses.ours(
            encode, decode, images, labels, **{**options, **keys}, axis_name=axis_name
        )
        return value, terms

    _, terms = loss(encoder, images, labels, example_keys)
    means = np.asarray(terms.kl_z).reshape(2, 3).mean(1)
    options["capacity_z"] = float(means.mean() + 0.25 * (means.max() - means.mean()))
    assert min(means) < options["capacity_z"] < max(means)

    expected, gradient = jax.value_and_grad(lambda *a: loss(*a)[0])(
        encoder, images, labels, example_keys
    )
    shards = jax.tree.map(lambda x: x.reshape(2, 3, *x.shape[1:]), (images, labels, example_keys))
    value, gradients = jax.pmap(
        jax.value_and_grad(lambda *a: loss(*a, axis_name="d")[0]),
        axis_name="d",
        in_axes=(None, 0, 0, 0),
    )(encoder, *shards)
    np.testing.assert_allclose(value.mean(), expected, rtol=1e-5)
    np.testing.assert_allclose(gradients.mean(0), gradient, rtol=1e-3, atol=1e-4)


def test_information_is_the_cross_entropy_of_decoded_prior_samples():
    """Against NumPy, for joint_vae too."""
    (encode, decode), (images, labels) = functions(), batch()
    weights = np.random.default_rng(3).normal(size=(LATENTS + CLASSES, CLASSES))
    seen = []

    def classify_decoded(latents):
        seen.append(np.asarray(latents))
        return latents @ jnp.asarray(weights, jnp.float32)

    options = {**JOINT, "capacity_c": 0.0}
    extra = {
        "prior_latents": sampling.prior_latents(jax.random.key(7), BATCH, LATENTS, CLASSES),
        "information_weight": 3.0,
        "classify_decoded": classify_decoded,
    }
    for loss, arguments in ((losses.ours, (labels,)), (losses.joint_vae, ())):
        compute = partial(loss, encode, decode, images, *arguments, **options)
        value, terms = compute(**extra)
        without, terms_without = compute()
        expected = [
            -np.log(softmax(latents @ weights) @ latents[LATENTS:]) for latents in seen.pop()
        ]
        np.testing.assert_allclose(terms.information, expected, rtol=1e-5)
        np.testing.assert_allclose(value, without + 3 * np.mean(expected), rtol=1e-6)
        assert terms_without.information is None


@pytest.mark.parametrize("missing", ["prior_latents", "classify_decoded"])
def test_information_requires_latents_and_classifier(missing):
    (encode, decode), (images, _) = functions(), batch()
    latents = jnp.zeros((BATCH, LATENTS + CLASSES))
    extra = {"prior_latents": latents, "classify_decoded": lambda latents: latents}
    del extra[missing]
    with pytest.raises(ValueError, match="requires prior_latents and classify_decoded"):
        losses.joint_vae(
            encode, decode, images, **JOINT, capacity_c=0.0, information_weight=1.0, **extra
        )


@pytest.mark.parametrize("multiplier", [None, 0.4])
def test_cvae_with_a_capacity_replaces_kl_by_its_distance(multiplier):
    """beta |KL - C|, or multiplier d + d^2 / 2; and beta KL without a capacity."""
    encode, decode = functions(extra=CLASSES)
    images, labels = batch()
    classify = lambda images: jnp.zeros((len(images), CLASSES))  # noqa: E731
    cvae = partial(
        losses.cvae,
        encode,
        decode,
        classify,
        images,
        labels.at[0].set(-1),
        gaussian_key=KEYS["gaussian_key"],
        alpha=1.0,
    )
    loss, terms = cvae()
    kl = float(terms.kl_z.mean())
    np.testing.assert_allclose(cvae(beta=3.0)[0], loss + 2 * kl, rtol=1e-6)
    held, held_terms = cvae(beta=5.0, capacity_z=kl + 0.3, multiplier_z=multiplier)
    penalty = 5 * 0.3 if multiplier is None else 0.4 * -0.3 + 0.3**2 / 2
    np.testing.assert_allclose(held, loss - kl + penalty, rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, held_terms, terms)
    with pytest.raises(ValueError, match="multiplier_z requires capacity_z"):
        cvae(multiplier_z=0.4)


def test_consistency_has_no_weight_by_default():
    (encode, decode), (images, labels) = functions(), batch()
    arguments = {**JOINT, "capacity_c": 0.0}
    without, terms = losses.ours(encode, decode, images, labels, **arguments)
    assert terms.consistency is None
    loss, terms = losses.ours(
        encode, decode, images, labels, augmented_images=images[::-1], **arguments
    )
    np.testing.assert_allclose(loss, without, rtol=1e-6)
    assert terms.consistency is not None
    assert terms.consistency.shape == (BATCH,)
    assert terms.reconstruction.shape == (BATCH,)


# --- use with other libraries, and errors ---


def test_trains_equinox_modules():
    images, labels = batch()
    images = (images > 0.5).astype(jnp.float32)

    class Net(eqx.Module):
        encoder: eqx.nn.Linear
        decoder: eqx.nn.Linear

        def encode(self, images):
            outputs = jax.vmap(self.encoder)(images.reshape(len(images), -1))
            return Posterior(*jnp.split(outputs, [LATENTS, 2 * LATENTS], axis=-1))

        def decode(self, latents):
            return jax.vmap(self.decoder)(latents).reshape(-1, *SHAPE)

    first, second = jax.random.split(jax.random.key(0))
    net = Net(
        eqx.nn.Linear(PIXELS, 2 * LATENTS + CLASSES, key=first),
        eqx.nn.Linear(LATENTS + CLASSES, PIXELS, key=second),
    )

    @eqx.filter_jit
    @eqx.filter_value_and_grad
    def loss(net):
        return losses.ours(net.encode, net.decode, images, labels, capacity_c=0.0, **JOINT)[0]

    before, gradient = loss(net)
    net = eqx.apply_updates(net, jax.tree.map(lambda g: -1e-3 * g, gradient))
    after, _ = loss(net)
    assert after < before


LOSSES = {
    "vae": {},
    "beta_vae": {"beta": 7.0},
    "annealed_vae": {"beta": 7.0, "capacity_z": 2.0},
    "joint_vae": {**JOINT, "capacity_c": 1.0},
    "ours": {
        **JOINT,
        "capacity_c": 0.0,
        "unlabelled_capacity_c": 1.0,
        "labelled_fraction": 0.3,
        "consistency_weight": 2.0,
        "marginal_weight": 3.0,
    },
    "cvae": {
        "alpha": 2.0,
        "labelled_fraction": 0.3,
        "consistency_weight": 2.0,
        "marginal_weight": 3.0,
    },
    "cvae, all labelled": {"alpha": 2.0, "all_labelled": True},
}


def call_loss(name, dtype=jnp.float32, **changes):
    """Calls a loss with a linear encoder and decoder whose arrays have a dtype."""
    arguments = {**LOSSES[name], "gaussian_key": KEYS["gaussian_key"]}
    has_labels = name.startswith(("ours", "cvae"))
    has_categorical = name in ("joint_vae", "ours")
    is_conditional = name.startswith("cvae")
    inputs = LATENTS + CLASSES * (has_categorical or is_conditional)
    encoder, decoder = matrices(inputs, CLASSES * is_conditional)
    encoder, decoder = encoder.astype(dtype), decoder.astype(dtype)
    images, labels = batch()
    images = images.astype(dtype)
    if name == "ours":
        labels = labels.at[2:4].set(-1)
        arguments["augmented_images"] = images[:, ::-1]
    if name == "cvae":
        labels = labels.at[2:4].set(-1)
        arguments["augmented_images"] = images[:, ::-1]

    def encode(images, *one_hot):
        posterior = encode_with(encoder, images, *one_hot)
        return posterior if has_categorical else posterior._replace(logits=None)

    callables = {"encode": encode, "decode": partial(decode_with, decoder)}
    if is_conditional:
        classifier = encoder[:PIXELS, :CLASSES]
        callables["classify"] = lambda images: images.reshape(len(images), -1) @ classifier
    data = {"images": images} | ({"labels": labels} if has_labels else {})
    loss = getattr(losses, name.partition(",")[0])
    return loss(**{**callables, **data, **arguments, **changes})


@pytest.mark.fault(
    "environment",
    "JAX configured with other random bits, x64 or strict promotion",
    "training, resumption and evaluation end with the same bits; losses keep the dtype of their "
    "inputs",
)
@pytest.mark.parametrize("name", LOSSES)
def test_losses_work_with_x64_and_strict_promotion(name):
    """float32 gives the same values as ever; float64 is computed as such, with its own noise."""
    loss, terms = call_loss(name)
    with numerics._enable_x64(True), jax.numpy_dtype_promotion("strict"):
        same_loss, same_terms = call_loss(name)
        double_loss, double_terms = call_loss(name, jnp.float64)
        gradient = jax.grad(lambda images: call_loss(name, images=images)[0])(batch()[0])
    np.testing.assert_allclose(same_loss, loss, rtol=1e-6)
    assert same_loss.dtype == gradient.dtype == jnp.float32
    assert double_loss.dtype == jnp.float64
    for term, same, double in zip(terms, same_terms, double_terms, strict=True):
        assert (term is None) == (same is None) == (double is None)
        if term is not None:
            np.testing.assert_allclose(same, term, rtol=1e-6)
            assert (same.dtype, double.dtype) == (jnp.float32, jnp.float64)
    # These terms have no noise.
    np.testing.assert_allclose(double_terms.kl_z, terms.kl_z, rtol=1e-4)


@pytest.mark.usefixtures("without_jaxtyping")
@pytest.mark.parametrize("name", LOSSES)
def test_losses_take_numpy_arrays_and_lists(name):
    images, labels = batch()
    data = {"images": images} | ({"labels": labels} if name.startswith(("ours", "cvae")) else {})
    expected, _ = call_loss(name, **data)
    for convert in (np.asarray, lambda array: np.asarray(array).tolist()):
        loss, _ = call_loss(name, **{key: convert(array) for key, array in data.items()})
        np.testing.assert_allclose(loss, expected, rtol=1e-6)


ZEROS = np.zeros((BATCH, *SHAPE))
INVALID_ARGUMENTS = [
    ("vae", {"images": ZEROS.astype(np.uint8)}, "images must be floats in .0, 1., got uint8"),
    ("cvae", {"images": ZEROS.astype(bool)}, "images must be floats in .0, 1., got bool"),
    ("ours", {"images": ZEROS.astype(int)}, "got int32; divide pixels of 0 to 255 by 255"),
    (
        "ours",
        {"augmented_images": ZEROS.astype(np.uint8)},
        "augmented_images must be floats in .0, 1., got uint8",
    ),
    (
        "ours",
        {"augmented_images": jnp.zeros((3, *SHAPE))},
        r"augmented_images and images must have one shape, got \(3, .* and \(6, ",
    ),
    ("ours", {"labels": [0, 1, 2, 3, 4, 0]}, r"labels must be -1 \(unlabelled\) or 0 to 3, got 4"),
    (
        "cvae",
        {"labels": [0, 1, 2, 3, -2, 0]},
        r"labels must be -1 \(unlabelled\) or 0 to 3, got -2",
    ),
    ("cvae", {"labels": np.zeros(BATCH)}, "labels must be integers, got float64"),
    ("ours", {"labels": [True] * BATCH}, "labels must be integers, got bool"),
    ("ours", {"labels": np.zeros((BATCH, 1), int)}, r"shape \(6,\), got \(6, 1\)"),
    ("cvae", {"labelled_fraction": 1.5}, "labelled_fraction must be from 0 to 1, got 1.5"),
    ("ours", {"temperature": 0.0}, "temperature must be above 0, got 0.0"),
    ("vae", {"gaussian_key": 0}, r"must come from jax.random.key\(seed\), got int"),
    ("ours", {"gumbel_key": jnp.zeros(2, jnp.uint32)}, "got an array of uint32"),
    (
        "vae",
        {"gaussian_key": jax.random.split(jax.random.key(0), 5)},
        r"one for each of 6 examples, got shape \(5,\)",
    ),
    (
        "vae",
        {"encode": lambda _: Posterior(jnp.zeros((6, 3)), jnp.zeros((6, 1)))},
        r"mean and logvar of shape \(6, latents\), got \(6, 3\) and \(6, 1\)",
    ),
    (
        "ours",
        {"encode": lambda _: Posterior(*[jnp.zeros((6, 3))] * 3)},
        r"shape \(12, latents\), got \(6, 3\) and \(6, 3\)",
    ),
    (
        "joint_vae",
        {"encode": lambda _: Posterior(*[jnp.zeros((6, 3))] * 2, jnp.zeros((1, 4)))},
        r"logits of shape \(6, classes\), got \(1, 4\)",
    ),
    (
        "cvae",
        {"classify": lambda _: jnp.zeros((1, 4))},
        r"classify must return logits of shape \(12, classes\), got \(1, 4\)",
    ),
    (
        "vae",
        {"decode": lambda _: jnp.zeros((6, 16))},
        r"\(6, 16\) must have the images' shape \(6, 4",
    ),
    (
        "vae",
        {"reconstruction_loss": lambda logits, _: jnp.mean(logits)},
        r"one value per image, \(6,\), got shape \(\)",
    ),
]


@pytest.mark.fault(
    "library input",
    "argument of a loss with a wrong dtype, shape, range or key",
    "ValueError that names the argument and its value",
)
@pytest.mark.usefixtures("without_jaxtyping")
@pytest.mark.parametrize(("name", "changes", "message"), INVALID_ARGUMENTS)
def test_losses_reject_invalid_arguments(name, changes, message):
    with pytest.raises(ValueError, match=message):
        call_loss(name, **changes)


@pytest.mark.usefixtures("without_jaxtyping")
def test_labels_under_jit_are_checked_by_shape_and_dtype():
    compiled = jax.jit(lambda labels: call_loss("ours", labels=labels)[0])
    _, labels = batch()
    np.testing.assert_allclose(compiled(labels), call_loss("ours", labels=labels)[0], rtol=1e-6)
    for invalid, message in ((labels[:4], "shape"), (labels.astype(float), "integers")):
        with pytest.raises(ValueError, match=message):
            compiled(invalid)
    assert np.isfinite(compiled(labels.at[0].set(CLASSES)))


@pytest.mark.usefixtures("without_jaxtyping")
def test_rejects_wrong_shapes():
    (encode, decode), (images, labels) = functions(), batch()
    with pytest.raises(ValueError, match=r"\(6, 4, 4, 1\) must have the images' shape \(6, 8, 2"):
        losses.bernoulli_nll(images, images.reshape(BATCH, 8, 2, 1))
    with pytest.raises(ValueError, match=r"labels must have shape \(6,\), got \(4,\)"):
        losses.ours(encode, decode, images, labels[:4], capacity_c=0.0, **JOINT)
    encode_continuous = lambda images: encode(images)._replace(logits=None)  # noqa: E731
    with pytest.raises(ValueError, match="got logits=None"):
        losses.ours(encode_continuous, decode, images, labels, capacity_c=0.0, **JOINT)
    with pytest.raises(ValueError, match=r"shape \(6,\), got \(6, 1\)"):
        losses.cvae(
            encode,
            decode,
            lambda images: images[:, 0, :, 0],
            images,
            labels[:, None],
            gaussian_key=jax.random.key(1),
            alpha=1.0,
        )
    (encode, decode), each = functions(extra=CLASSES), jnp.zeros((BATCH, CLASSES))
    encode_once = lambda images, labels: encode(images, labels[:BATCH])  # noqa: E731
    with pytest.raises(
        ValueError, match="24 posteriors, one for each of 4 labels of 6 images, got 6"
    ):
        losses.cvae(
            encode_once,
            decode,
            lambda _: each,
            images,
            labels,
            gaussian_key=jax.random.key(1),
            alpha=1.0,
        )
