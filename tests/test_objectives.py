"""Defaults, validation, capacity ramp and losses of the objectives."""

import dataclasses
import inspect
import math
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jvae_jax import losses
from jvae_jax.augmentation import random_deformation
from jvae_jax.objectives import (
    CVAE,
    OBJECTIVES,
    VAE,
    AnnealedVAE,
    BetaVAE,
    JointVAE,
    Ours,
    default_capacity_steps,
    ramp,
)
from jvae_jax.types import Keys, LabelInfo, Posterior

KEYS = Keys(*jax.random.split(jax.random.key(1), 4))


def test_defaults_are_the_papers():
    values = {name: dataclasses.asdict(objective()) for name, objective in OBJECTIVES.items()}
    annealed = {"beta": 30.0, "capacity_z": 5.0, "capacity_steps": None, "penalty": "absolute"}
    consistency = {
        "consistency_weight": 0.0,
        "augmentation_strength": 1.0,
        "elastic_strength": 0.0,
        "neighbours": 0,
        "marginal_weight": 0.0,
    }
    joint = {
        **annealed,
        **consistency,
        "gamma": 30.0,
        "capacity_c": 5.0,
        "temperature": 0.67,
        "conditional_encoder": False,
        "information_weight": 0.0,
    }
    # The paper doesn't name its loss; the Bernoulli NLL reproduces the metrics of its VAE.
    assert {fields.pop("reconstruction_loss") for fields in values.values()} == {"bernoulli_nll"}
    assert values == {
        "vae": {},
        "cvae": {
            **annealed,
            **consistency,
            "alpha": 1.0,
            "beta": 1.0,
            "capacity_z": None,
            "unsupervised_epochs": 0,
        },
        "beta_vae": {"beta": 30.0},
        "annealed_vae": annealed,
        "joint_vae": joint,
        "ours": {
            **joint,
            "capacity_c": 0.0,
            "unlabelled_capacity_c": 5.0,
            "unsupervised_epochs": 0,
        },
    }


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_are_hashable_frozen_and_keyword_only(name):
    objective = OBJECTIVES[name]()
    assert hash(objective) == hash(OBJECTIVES[name]())
    with pytest.raises(dataclasses.FrozenInstanceError):
        objective.anything = 1
    with pytest.raises(TypeError):
        OBJECTIVES[name](1.0)


def test_ramp():
    assert [float(ramp(step, 5.0, 100)) for step in (0, 50, 100, 1000)] == [0.0, 2.5, 5.0, 5.0]
    assert float(ramp(0, 5.0, 0)) == 0.0


@pytest.mark.parametrize(
    ("steps", "expected"), [(93_750.0, 25_000), (1e6, 25_000), (28_125.0, 7_500), (6_250.0, 1_667)]
)
def test_short_runs_ramp_over_the_same_fraction(steps, expected):
    assert default_capacity_steps(steps) == expected
    for objective in (AnnealedVAE, JointVAE, Ours):
        assert objective().resolve(steps, 1) == objective(capacity_steps=expected)
        assert objective(capacity_steps=7).resolve(steps, 1) == objective(capacity_steps=7)
    for objective in (VAE, CVAE, BetaVAE):
        assert objective().resolve(steps, 1) == objective()


@pytest.mark.parametrize("objective", [CVAE, Ours])
@pytest.mark.parametrize(("given", "epochs", "expected"), [(-1, 5, 2), (-1, 1, 0), (3, 5, 3)])
def test_unsupervised_epochs_are_half_of_all(objective, given, epochs, expected):
    resolved = objective(unsupervised_epochs=given).resolve(93_750.0, epochs)
    assert resolved.unsupervised_epochs == expected
    assert resolved.capacity_steps == objective().resolve(93_750.0, epochs).capacity_steps


@pytest.mark.parametrize("name", ["annealed_vae", "joint_vae", "ours"])
def test_unresolved_capacity_steps_are_the_papers(name):
    """The loss reaches its final capacity at step 25,000."""
    for step in (12_500, 25_000, 50_000):
        expected, _ = loss_at(OBJECTIVES[name](capacity_steps=25_000), step, [-1, -1])
        assert loss_at(OBJECTIVES[name](), step, [-1, -1])[0] == expected
    halfway, _ = loss_at(OBJECTIVES[name](), 12_500, [-1, -1])
    assert halfway != expected


@pytest.mark.parametrize(
    ("objective", "hyperparameters", "message"),
    [
        (VAE, {"reconstruction_loss": "mse"}, "must be one of bernoulli_nll, squared_error"),
        (CVAE, {"alpha": -1.0}, "alpha must be 0 or more, got -1.0"),
        (BetaVAE, {"beta": math.nan}, "beta must be 0 or more, got nan"),
        (BetaVAE, {"beta": "30"}, "beta must be float, got '30'"),
        (AnnealedVAE, {"beta": -1.0}, "beta must be 0 or more, got -1.0"),
        (AnnealedVAE, {"capacity_z": -1.0}, "capacity_z must be 0 or more, got -1.0"),
        (AnnealedVAE, {"capacity_steps": -1}, "capacity_steps must be 0 or more, got -1"),
        (AnnealedVAE, {"capacity_steps": 2**31}, "capacity_steps must be below 2,147,483,648, got"),
        (AnnealedVAE, {"beta": 1e300}, r"beta must be 0 or more, got 1e\+300, which is inf in"),
        (AnnealedVAE, {"beta": 10**40}, "beta must be 0 or more, got 1000.*, which is inf in"),
        (JointVAE, {"temperature": 1e-50}, "temperature must be above 0, got 1e-50, which is 0 in"),
        (AnnealedVAE, {"capacity_steps": 2.5}, r"capacity_steps must be int \| None, got 2.5"),
        (JointVAE, {"gamma": math.inf}, "gamma must be 0 or more, got inf"),
        (JointVAE, {"capacity_c": -1.0}, "capacity_c must be 0 or more, got -1.0"),
        (JointVAE, {"temperature": 0.0}, "temperature must be above 0, got 0.0"),
        (JointVAE, {"information_weight": -1.0}, "information_weight must be 0 or more, got -1.0"),
        (CVAE, {"capacity_z": -1.0}, "capacity_z must be 0 or more, got -1.0"),
        (CVAE, {"penalty": "multiplier"}, "penalty has no effect without capacity_z; add it"),
        (CVAE, {"capacity_steps": 9}, "capacity_steps has no effect without capacity_z; add it"),
        (Ours, {"beta": -1.0}, "beta must be 0 or more, got -1.0"),
        (Ours, {"temperature": 0.0}, "temperature must be above 0, got 0.0"),
        (Ours, {"unlabelled_capacity_c": -1.0}, "unlabelled_capacity_c must be 0 or more"),
        (Ours, {"consistency_weight": -1.0}, "consistency_weight must be 0 or more, got -1.0"),
        (JointVAE, {"marginal_weight": -1.0}, "marginal_weight must be 0 or more, got -1.0"),
        (
            Ours,
            {"neighbours": 5},
            "neighbours has no effect without consistency_weight; add it",
        ),
    ],
)
@pytest.mark.fault(
    "flags", "values out of range or of another type", "refused with the name, the range, the value"
)
@pytest.mark.usefixtures("without_jaxtyping")
def test_rejects_invalid_hyperparameters(objective, hyperparameters, message):
    with pytest.raises(ValueError, match=message):
        objective(**hyperparameters)


@pytest.mark.parametrize(
    ("objective", "hyperparameter"), [(VAE, "gamma"), (BetaVAE, "gamma"), (Ours, "alpha")]
)
def test_objectives_have_no_other_hyperparameters(objective, hyperparameter):
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{hyperparameter}'"):
        objective(**{hyperparameter: 1.0})


def test_final_unlabelled_capacity_c_depends_on_labels():
    """Ours has C_c = 0 if all images are labelled, else that of unlabelled images."""
    all_labelled, partly_labelled = LabelInfo(all_labelled=True), LabelInfo()
    assert Ours(unlabelled_capacity_c=4.0).final_unlabelled_capacity_c(all_labelled) == 0.0
    assert Ours(unlabelled_capacity_c=4.0).final_unlabelled_capacity_c(partly_labelled) == 4.0
    assert JointVAE(capacity_c=3.0).final_unlabelled_capacity_c(all_labelled) == 3.0
    assert AnnealedVAE().final_unlabelled_capacity_c(partly_labelled) == 0.0


def stub_model(classes):
    """Returns a model with one posterior for all images and decoder logits of 0."""

    def encode(images, labels=None):
        count = len(images if labels is None else labels)
        ones = jnp.ones((count, 2))
        return Posterior(ones, ones, jnp.eye(classes)[jnp.zeros(count, int)] * 1e4)

    return SimpleNamespace(
        classes=classes,
        encode=encode,
        decode=lambda latents: jnp.zeros((len(latents), 2, 2, 1)),
        classify=lambda images: jnp.zeros((len(images), classes)),
    )


def loss_at(objective, step, labels, pixel=0.0):
    images = jnp.full((2, 2, 2, 1), pixel)
    return objective.loss(stub_model(3), images, jnp.array(labels), step=step, keys=KEYS)


@pytest.mark.parametrize(("name", "labels"), [("joint_vae", [0, 1]), ("ours", [-1, -1])])
def test_categorical_capacity_is_capped_at_log_classes(name, labels):
    """The stub's KL(c) is log 3, so that |KL(c) - C_c| is 0 at the cap."""
    objective = OBJECTIVES[name](beta=0.0, gamma=10.0, capacity_steps=100)
    reconstruction = 4 * math.log(2)
    for step in (0, 10, 100, 1000):
        capacity = min(5.0 * min(step / 100, 1), math.log(3))
        expected = reconstruction + 10 * abs(math.log(3) - capacity)
        np.testing.assert_allclose(loss_at(objective, step, labels)[0], expected, rtol=1e-5)


def test_ours_penalizes_misclassified_labels():
    objective = OBJECTIVES["ours"](beta=0.0, gamma=10.0)
    all_correct, _ = loss_at(objective, 0, [0, 0])
    half_correct, _ = loss_at(objective, 0, [0, 1])
    np.testing.assert_allclose(half_correct - all_correct, 10 * 1e4 / 2, rtol=1e-5)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_reconstruction_loss_is_selectable(name):
    """The stub's reconstruction is 0.5 in each of four pixels; the other terms are equal."""
    bernoulli, bernoulli_terms = loss_at(OBJECTIVES[name](), 0, [0, 1], pixel=0.2)
    objective = OBJECTIVES[name](reconstruction_loss="squared_error")
    squared, terms = loss_at(objective, 0, [0, 1], pixel=0.2)
    np.testing.assert_allclose(bernoulli_terms.reconstruction, 4 * math.log(2), rtol=1e-6)
    np.testing.assert_allclose(terms.reconstruction, 4 * 0.3**2, rtol=1e-6)
    np.testing.assert_allclose(bernoulli - squared, 4 * (math.log(2) - 0.09), rtol=1e-2)


@pytest.mark.parametrize(
    "objective",
    [
        *(objective() for objective in OBJECTIVES.values()),
        Ours(consistency_weight=1.0),
        JointVAE(consistency_weight=1.0, marginal_weight=1.0),
        CVAE(consistency_weight=1.0, marginal_weight=1.0),
    ],
    ids=lambda objective: objective.name,
)
def test_loss_returns_declared_terms(objective):
    _, terms = loss_at(objective, 0, [0, 1])
    returned = tuple(field for field, term in terms._asdict().items() if term is not None)
    assert returned == objective.terms


@pytest.mark.parametrize("name", OBJECTIVES)
def test_hyperparameters_are_parameters_of_the_loss_function(name):
    parameters = inspect.signature(getattr(losses, name)).parameters
    fields = {field.name for field in dataclasses.fields(OBJECTIVES[name])}
    others = {"augmentation_strength", "capacity_steps", "conditional_encoder", "elastic_strength"}
    others |= {"neighbours", "penalty", "unsupervised_epochs"}
    assert fields - others <= set(parameters)


FLAGS = {
    "vae": (False, False, False),
    "cvae": (False, True, True),
    "beta_vae": (False, False, False),
    "annealed_vae": (False, False, False),
    "joint_vae": (True, False, False),
    "ours": (True, False, True),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_flags_describe_model_and_labels(name):
    objective = OBJECTIVES[name]
    assert objective.name == name
    flags = objective().has_categorical, objective().conditional, objective().uses_labels
    assert flags == FLAGS[name]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_accepts_zero_for_all_weights_and_capacities(name):
    objective = OBJECTIVES[name]
    names = {field.name for field in dataclasses.fields(objective)}
    names -= {"conditional_encoder", "penalty", "reconstruction_loss", "temperature"}
    names -= {"augmentation_strength"}  # has no effect without a consistency_weight
    integers = {"capacity_steps", "neighbours", "unsupervised_epochs"}
    zeros = {each: 0 if each in integers else 0.0 for each in names}
    assert dataclasses.asdict(objective(**zeros)).items() >= zeros.items()


IMAGES = jax.random.uniform(jax.random.key(0), (4, 4, 4, 1))
LABELS = jnp.array([2, -1, 0, -1])
STEP = 15
"""Of 60 steps of the capacity ramp, so that capacities are a quarter of the final ones."""
ANNEALED = {"beta": 3.0, "capacity_z": 2.0, "capacity_steps": 60}
JOINT = {**ANNEALED, "gamma": 7.0, "capacity_c": 0.4, "temperature": 0.5}
OURS = {**JOINT, "unlabelled_capacity_c": 1.2}


def linear_model(classes=3):
    """A model whose posterior and reconstruction depend on images, labels and latents."""
    weights = np.random.default_rng(1).normal(size=(16 + classes, 4 + classes))
    decoder = np.random.default_rng(2).normal(size=(2 + classes, 16))

    def encode(images, labels=None):
        flat = images.reshape(len(images), -1)
        if labels is None:
            labels = jnp.zeros((len(images), classes))
        flat = flat.repeat(len(labels) // len(flat), axis=0)
        outputs = jnp.concatenate([flat, labels], axis=-1) @ weights.astype(np.float32)
        return Posterior(outputs[:, :2], outputs[:, 2:4], outputs[:, 4:])

    def decode(latents):
        used = decoder[: latents.shape[1]].astype(np.float32)
        return (latents @ used).reshape(-1, 4, 4, 1)

    def classify(images):
        return images.reshape(len(images), -1) @ weights[:16, 4:].astype(np.float32)

    return SimpleNamespace(classes=classes, encode=encode, decode=decode, classify=classify)


def per_example_keys():
    return Keys(*(jax.random.split(key, len(IMAGES)) for key in KEYS))


def direct_loss(name, keys, **arguments):
    """Calls the function in ``losses`` with arguments written by hand."""
    model = linear_model()
    positional = {
        "cvae": (model.encode, model.decode, model.classify, IMAGES, LABELS),
        "ours": (model.encode, model.decode, IMAGES, LABELS),
    }.get(name, (model.encode, model.decode, IMAGES))
    if name in ("joint_vae", "ours"):
        arguments["gumbel_key"] = keys.gumbel
    return getattr(losses, name)(
        *positional,
        gaussian_key=keys.gaussian,
        reconstruction_loss=losses.squared_error,
        **arguments,
    )


PASSED = [
    ("vae", {}, LabelInfo(), {}),
    ("cvae", {"alpha": 5.0}, LabelInfo(), {"alpha": 5.0}),
    (
        "cvae",
        {"alpha": 5.0},
        LabelInfo(labelled_fraction=0.1),
        {"alpha": 5.0, "labelled_fraction": 0.1},
    ),
    ("beta_vae", {"beta": 3.0}, LabelInfo(), {"beta": 3.0}),
    ("annealed_vae", ANNEALED, LabelInfo(), {"beta": 3.0, "capacity_z": 0.5}),
    (
        "joint_vae",
        JOINT,
        LabelInfo(),
        {"beta": 3.0, "capacity_z": 0.5, "gamma": 7.0, "capacity_c": 0.1, "temperature": 0.5},
    ),
    (
        "ours",
        OURS,
        LabelInfo(labelled_fraction=0.1),
        {
            "beta": 3.0,
            "capacity_z": 0.5,
            "gamma": 7.0,
            "capacity_c": 0.1,
            "unlabelled_capacity_c": 0.3,
            "labelled_fraction": 0.1,
            "temperature": 0.5,
        },
    ),
]


@pytest.mark.parametrize(("name", "hyperparameters", "label_info", "arguments"), PASSED)
def test_loss_is_the_function_of_the_same_name(name, hyperparameters, label_info, arguments):
    """Every hyperparameter has another value than by default, and all change the loss."""
    keys = per_example_keys()
    objective = OBJECTIVES[name](**hyperparameters, reconstruction_loss="squared_error")
    options = {"step": STEP, "keys": keys, "label_info": label_info}
    loss = objective.loss(linear_model(), IMAGES, LABELS, **options)
    expected = direct_loss(name, keys, **arguments)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), loss, expected)


@pytest.mark.parametrize(
    ("objective", "initial"),
    [
        (VAE(), {}),
        (CVAE(), {}),
        (Ours(), {}),
        (AnnealedVAE(penalty="multiplier"), {"multiplier_z": 0.0}),
        (JointVAE(penalty="multiplier"), {"multiplier_z": 0.0, "multiplier_c": 0.0}),
        (
            Ours(gamma=7.0, penalty="multiplier"),
            {"multiplier_z": 0.0, "multiplier_c": 7.0, "unlabelled_multiplier_c": 0.0},
        ),
    ],
)
def test_initial_multipliers(objective, initial):
    assert objective.initial_multipliers() == initial
    parameters = inspect.signature(getattr(losses, objective.name)).parameters
    names = {name for name in parameters if "multiplier" in name}
    assert initial.keys() in (set(), names)


def test_conditional_encoder_uses_the_classifier():
    """The stub's encoder ignores c, and its classifier gives the posterior's logits."""
    keys = per_example_keys()
    options = {"step": STEP, "keys": keys, "label_info": LabelInfo(labelled_fraction=0.1)}
    model = linear_model()
    conditional = SimpleNamespace(
        classes=model.classes,
        encode=lambda images, _c: model.encode(images)._replace(logits=None),
        decode=model.decode,
        classify=lambda images: model.encode(images).logits,
    )
    for objective in (JointVAE, Ours):
        expected = objective().loss(model, IMAGES, LABELS, **options)
        actual = objective(conditional_encoder=True).loss(conditional, IMAGES, LABELS, **options)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), actual, expected)
        assert objective(conditional_encoder=True).conditional


def test_loss_takes_multipliers():
    """Without them, the loss is that of the absolute penalty."""
    keys, info = per_example_keys(), LabelInfo(labelled_fraction=0.1)
    objective = Ours(**OURS, reconstruction_loss="squared_error", penalty="multiplier")
    loss = partial(objective.loss, linear_model(), IMAGES, LABELS, step=STEP, keys=keys)
    multipliers = {"multiplier_z": 0.5, "multiplier_c": 2.0, "unlabelled_multiplier_c": -1.5}
    arguments = PASSED[-1][-1]
    for given in ({}, multipliers):
        expected = direct_loss("ours", keys, **arguments, **given)
        actual = loss(multipliers=jax.tree.map(jnp.float32, given), label_info=info)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), actual, expected)


@pytest.mark.parametrize("strengths", [(1.0, 0.0), (2.0, 0.0), (0.5, 1.5)])
def test_consistency_loss_compares_with_augmented_images(strengths):
    keys = per_example_keys()
    strength, elastic_strength = strengths
    objective = Ours(
        **OURS,
        consistency_weight=4.0,
        augmentation_strength=strength,
        elastic_strength=elastic_strength,
        reconstruction_loss="squared_error",
    )
    loss, terms = objective.loss(linear_model(), IMAGES, LABELS, step=STEP, keys=keys)
    expected, _ = direct_loss(
        "ours",
        keys,
        beta=3.0,
        capacity_z=0.5,
        gamma=7.0,
        capacity_c=0.1,
        unlabelled_capacity_c=0.3,
        temperature=0.5,
    )
    logits = linear_model().encode(IMAGES).logits
    augmented_images = random_deformation(keys.augmentation, IMAGES, *strengths)
    augmented = linear_model().encode(augmented_images).logits
    targets = np.where((LABELS >= 0)[:, None], np.eye(3)[LABELS], jax.nn.softmax(logits))
    consistency = -(targets * jax.nn.log_softmax(augmented)).sum(axis=1)
    np.testing.assert_allclose(terms.consistency, consistency, rtol=1e-4)
    np.testing.assert_allclose(loss, expected + 4 * consistency.mean(), rtol=1e-5)


def test_consistency_loss_compares_unlabelled_images_with_neighbours():
    """Joint-VAE, which ignores labels, does so for all images."""
    keys, neighbours = per_example_keys(), IMAGES[::-1]
    weights = {"consistency_weight": 4.0, "neighbours": 2}
    logits = linear_model().encode(IMAGES).logits
    for objective, labelled in ((Ours(**weights), LABELS >= 0), (JointVAE(**weights), LABELS > 9)):
        _, terms = objective.loss(
            linear_model(), IMAGES, LABELS, step=STEP, keys=keys, neighbours=neighbours
        )
        near = jnp.where(labelled[:, None, None, None], IMAGES, neighbours)
        augmented = linear_model().encode(random_deformation(keys.augmentation, near)).logits
        targets = np.where(labelled[:, None], np.eye(3)[LABELS], jax.nn.softmax(logits))
        consistency = -(targets * jax.nn.log_softmax(augmented)).sum(axis=1)
        np.testing.assert_allclose(terms.consistency, consistency, rtol=1e-4)


def test_cvae_skips_sum_over_classes_only_if_all_images_are_labelled():
    encoded = []
    model = linear_model()
    encode = model.encode
    model.encode = lambda images, labels: encoded.append(len(labels)) or encode(images, labels)
    labels = jnp.array([2, 1, 0, 1])
    results = [
        CVAE().loss(
            model,
            IMAGES,
            labels,
            step=0,
            keys=KEYS,
            label_info=LabelInfo(all_labelled=all_labelled),
        )[0]
        for all_labelled in (True, False)
    ]
    assert encoded == [4, 12]
    np.testing.assert_allclose(*results, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "hyperparameters"),
    [
        ("annealed_vae", {"capacity_z": 8.0, "capacity_steps": 0}),
        ("joint_vae", {"capacity_z": 8.0, "capacity_c": 0.5, "capacity_steps": 0}),
        ("ours", {"capacity_z": 8.0, "capacity_c": 0.5, "capacity_steps": 0}),
        ("cvae", {}),
    ],
)
def test_loss_uses_means_over_the_device_axis(name, hyperparameters):
    """Mean losses and gradients of two shards equal those of the whole batch.

    |KL - C| and the labelled fraction differ between the shards, so that means within shards would
    give another result.
    """
    objective, keys = OBJECTIVES[name](**hyperparameters), per_example_keys()
    info = LabelInfo(labelled_fraction=0.1) if objective.uses_labels else LabelInfo()
    # The first shard has one label, the second one none; its posteriors are close to the prior.
    labels = jnp.array([2, -1, -1, -1])
    images = IMAGES * jnp.array([2.0, 2.0, 0.1, 0.1])[:, None, None, None]

    def loss(images, labels, keys, axis_name=None):
        return objective.loss(
            linear_model(),
            images,
            labels,
            step=1,
            keys=keys,
            label_info=info,
            axis_name=axis_name,
        )[0]

    shards = jax.tree.map(lambda x: x.reshape(2, 2, *x.shape[1:]), (images, labels, keys))
    sharded = jax.vmap(partial(loss, axis_name="devices"), axis_name="devices")(*shards)
    alone = jax.vmap(loss)(*shards)
    whole = loss(images, labels, keys)
    np.testing.assert_allclose(sharded.mean(), whole, rtol=1e-5)
    assert abs(alone.mean() - whole) > 1e-3 * abs(whole)
