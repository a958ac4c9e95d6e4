"""Defaults, resolution, validation and JSON form of the training configuration."""

import json
import math
from dataclasses import FrozenInstanceError, asdict, fields, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import make_dataset
from simple_parsing.docstring import get_attribute_docstring

from jvae_jax.objectives import CVAE, OBJECTIVES, VAE, JointVAE, Ours
from jvae_jax.training.config import TrainConfig
from jvae_jax.types import LabelInfo


def test_defaults_are_the_papers(toy):
    config = TrainConfig()
    assert (config.objective.name, config.epochs, config.batch_size) == ("ours", 100, 64)
    assert (config.learning_rate, config.image_size, config.latents) == (1e-3, 32, 10)
    objective = config.resolve(toy).objective
    assert isinstance(objective, Ours)
    assert (objective.beta, objective.gamma, objective.temperature) == (30.0, 30.0, 0.67)
    assert (objective.capacity_z, objective.capacity_c) == (5.0, 0.0)


def test_other_defaults():
    config = TrainConfig()
    assert (config.dataset, config.workdir, config.seed) == ("auto", None, 0)
    assert (config.ema_decay, config.num_labels, config.labelled_batch_fraction) == (
        0.999,
        "all",
        0.25,
    )
    assert (config.balance_classes, config.fixed_latents, config.precision) == (False, 0, "float32")
    assert config.depth == 3
    assert (config.save_every, config.profile) == (None, False)
    assert (config.coordinator, config.num_processes, config.process_id) == (None, None, None)


def test_accepts_values_at_their_limits():
    TrainConfig(
        epochs=1,
        batch_size=1,
        latents=1,
        learning_rate=1e-9,
        ema_decay=0.0,
        fixed_latents=0,
        seed=0,
        save_every=1,
        image_size=8,
        labelled_batch_fraction=1e-9,
        num_labels=0,
    )
    TrainConfig(fixed_latents=10, latents=10, ema_decay=0.9999)
    assert TrainConfig(num_labels="12").num_labels == 12
    assert TrainConfig(num_labels="0").num_labels == 0
    assert TrainConfig(objective=VAE(), num_labels="all").num_labels == "all"
    assert TrainConfig(balance_classes=True).balance_classes


def test_config_is_frozen_hashable_and_keyword_only():
    config = TrainConfig()
    assert hash(config) == hash(TrainConfig())
    with pytest.raises(FrozenInstanceError):
        config.seed = 1
    with pytest.raises(TypeError):
        TrainConfig(Ours())


@pytest.mark.parametrize(
    ("images", "epochs", "expected"),
    [(48, 7, 21), (500, 7, 2), (700, 7, 1), (1600, 7, 1), (5000, 7, 1), (4, 7, 1000)],
)
def test_saves_about_every_thousand_steps(images, epochs, expected):
    """Rounded to epochs, of one image a step; four images don't fill the last batch size."""
    config = TrainConfig(batch_size=8 if images == 4 else 1, epochs=epochs)
    assert config.resolve(make_dataset(train=images)).save_every == expected
    assert replace(config, save_every=3).resolve(make_dataset(train=images)).save_every == 3


def test_resolve_keeps_given_workdir(toy):
    assert TrainConfig(workdir="mine").resolve(toy).workdir == "mine"
    assert TrainConfig().resolve(make_dataset(size=16)).image_size == 16


def test_resolve_rejects_unlabelled_images_of_balanced_classes(toy):
    config = TrainConfig(balance_classes=True)
    assert config.resolve(toy).balance_classes
    toy.train_labels[5] = -1
    with pytest.raises(ValueError, match="1 of 48 training images have none"):
        config.resolve(toy)


def test_resolve_rejects_more_neighbours_than_images(toy):
    objective = JointVAE(consistency_weight=1.0, neighbours=47)
    config = TrainConfig(objective=objective, batch_size=8)
    assert config.resolve(toy).objective.neighbours == 47
    objective = replace(objective, neighbours=48)
    with pytest.raises(ValueError, match="neighbours must be below the 48 training images, got 48"):
        replace(config, objective=objective).resolve(toy)


@pytest.mark.parametrize(
    ("batch_size", "fraction", "expected"),
    [(8, 0.25, 2), (8, 0.44, 4), (64, 0.25, 16), (2, 0.9, 1), (4, 0.95, 3), (64, 0.0075, 1)],
)
def test_labelled_examples_per_batch(batch_size, fraction, expected):
    """The fraction, rounded, but at least one and not all."""
    labels = np.full(1000, -1)
    labels[:5] = 0
    config = TrainConfig(batch_size=batch_size, labelled_batch_fraction=fraction)
    assert config.labelled_per_batch(labels) == expected


def test_batches_are_uniform_from_the_labelled_fraction_on():
    labels = np.where(np.arange(100) < 25, 0, -1)
    assert TrainConfig().labelled_per_batch(labels) is None
    labels[0] = -1
    assert TrainConfig().labelled_per_batch(labels) == 16


def test_network_has_the_settings_of_the_config():
    make = partial(TrainConfig.make_network, image_shape=(16, 24, 3), classes=7)
    network = make(TrainConfig(latents=4, fixed_latents=1, depth=2))
    assert (network.image_shape, network.depth) == ((16, 24, 3), 2)
    assert (network.latents, network.fixed_latents, network.dtype) == (4, 1, None)
    assert make(TrainConfig(precision="bfloat16")).dtype == jnp.bfloat16


def test_resolve_fills_in_defaults_from_data():
    dataset = make_dataset(train=640, name="digits")
    config = TrainConfig(objective=JointVAE(), seed=7, epochs=75, batch_size=64)
    resolved = config.resolve(dataset)
    assert resolved.workdir == "runs/joint_vae-digits-7"
    assert resolved.dataset == "digits"
    # 750 steps x 25,000 / 93,750
    assert resolved.objective == JointVAE(capacity_steps=200)
    assert resolved.save_every == 100
    assert resolved.resolve(dataset) == resolved


@pytest.mark.parametrize(
    ("dataset", "data_dir", "folder"),
    [
        ("emnist/letters", "data", "ours-emnist_letters-0"),
        ("/data/mine.npz", "data", "ours-mine-0"),
        ("folder", "data/mine", "ours-mine-0"),
    ],
)
def test_default_workdir_is_named_after_dataset(dataset, data_dir, folder):
    resolved = TrainConfig(dataset=dataset, data_dir=data_dir).resolve(make_dataset(name=dataset))
    assert resolved.workdir == f"runs/{folder}"
    assert resolved.dataset == dataset


@pytest.mark.parametrize("name", OBJECTIVES)
def test_resolve_keeps_default_hyperparameters(name, toy):
    resolved = TrainConfig(objective=OBJECTIVES[name]()).resolve(toy).objective
    expected = OBJECTIVES[name]()
    if getattr(resolved, "capacity_z", None) is not None:
        # 100 epochs of 48 / 64 steps x 25,000 / 93,750
        expected = replace(expected, capacity_steps=20)
    assert resolved == expected


def test_resolve_keeps_given_hyperparameters(toy):
    given = Ours(beta=2.0, capacity_c=0.5, capacity_steps=9)
    objective = TrainConfig(objective=given).resolve(toy).objective
    assert isinstance(objective, Ours)
    assert (objective.beta, objective.gamma) == (2.0, 30.0)
    assert (objective.capacity_c, objective.capacity_steps) == (0.5, 9)


def test_binarize_requires_binary_images(toy):
    config = TrainConfig(binarize=True)
    with pytest.raises(ValueError, match="binarize needs binary images"):
        config.resolve(toy)
    assert config.resolve(toy.binarized()).binarize


def test_label_info_describes_labels_of_the_objective(toy):
    """The labelled fraction is given only if batches contain another one."""
    few = toy.with_labels(6, seed=0)
    half = toy.with_labels(24, seed=0)
    config = TrainConfig(objective=CVAE(), batch_size=8)
    assert config.label_info(toy) == LabelInfo(all_labelled=True)
    assert config.label_info(half) == LabelInfo()
    assert config.label_info(few) == LabelInfo(labelled_fraction=6 / 48)
    assert replace(config, objective=VAE()).label_info(few) == LabelInfo()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_network_has_inputs_that_objective_requires(name):
    config = TrainConfig(objective=OBJECTIVES[name](), latents=4)
    network = config.make_network(image_shape=(16, 16, 1), classes=7)
    assert network.latents == 4
    assert network.classes == (7 if name in ("joint_vae", "ours", "cvae") else 0)
    assert network.conditional == (name == "cvae")


@pytest.mark.parametrize("objective", [JointVAE, Ours])
def test_conditional_encoder_has_the_network_of_the_cvae(objective):
    shape = {"image_shape": (16, 16, 1), "classes": 7}
    config = TrainConfig(objective=objective(conditional_encoder=True))
    assert config.make_network(**shape) == TrainConfig(objective=CVAE()).make_network(**shape)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_json_round_trip(name, toy):
    resolved = TrainConfig(objective=OBJECTIVES[name]()).resolve(toy)
    contents = json.loads(json.dumps(resolved.to_json()))
    assert contents["objective"] == {"name": name, **asdict(resolved.objective)}
    assert TrainConfig.from_json(contents) == resolved


@pytest.mark.fault(
    "run folder", "config.json with an unknown objective", "refused, listing the objectives"
)
def test_from_json_rejects_unknown_objective():
    contents = TrainConfig().to_json()
    contents["objective"]["name"] = "our"
    with pytest.raises(ValueError, match="unknown objective 'our'; there are vae, cvae"):
        TrainConfig.from_json(contents)


@pytest.mark.parametrize("config_class", [TrainConfig, *OBJECTIVES.values()])
def test_every_field_has_help(config_class):
    """A field's docstring is its help on the command line."""
    for field in fields(config_class):
        assert len(get_attribute_docstring(config_class, field.name).docstring_below) > 5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"objective": "our"},
            r"objective must be an instance such as jvae_jax.Ours\(\), got 'our'",
        ),
        ({"precision": "int8"}, "precision must be one of float32, bfloat16, got 'int8'"),
        ({"ema_decay": 1.0}, "ema_decay must be 0 or more and below 1, got 1.0"),
        ({"depth": 7}, "depth must be from 1 to 6, got 7"),
        ({"fixed_latents": 11}, "fixed_latents must be from 0 to latents, 10, got 11"),
        ({"num_labels": "few"}, "num_labels must be all or 0 or more, got few"),
        ({"num_labels": -1}, "num_labels must be all or 0 or more, got -1"),
        ({"objective": VAE(), "num_labels": 9}, "vae uses no labels"),
        (
            {"objective": Ours(unsupervised_epochs=5), "epochs": 5},
            "unsupervised_epochs must be below epochs, 5, so that labels are used, got 5",
        ),
        (
            {"labelled_batch_fraction": 1.0},
            "labelled_batch_fraction must be between 0 and 1, got 1.0",
        ),
        ({"epochs": 0}, "epochs must be above 0, got 0"),
        ({"batch_size": -1}, "batch_size must be above 0, got -1"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"learning_rate": math.inf}, "learning_rate must be above 0, got inf"),
        ({"latents": 0}, "latents must be above 0"),
        ({"image_size": -8}, "image_size must be above 0, got -8"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"save_every": 0}, "save_every must be 1 or more"),
        ({"num_labels": "²"}, "num_labels must be all or 0 or more, got ²"),
        ({"seed": 0.5}, "seed must be int, got 0.5"),
        ({"epochs": 1e30}, r"epochs must be int, got 1e\+30"),
    ],
)
@pytest.mark.fault(
    "flags", "values out of range or of another type", "refused with the name, the range, the value"
)
@pytest.mark.usefixtures("without_jaxtyping")
def test_rejects_invalid_values(values, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seed": 2**32}, "seed must be below 4,294,967,296, got 4294967296"),
        ({"seed": 10**400}, "seed must be below 4,294,967,296, got 1000"),
        ({"epochs": 2**31}, "epochs must be below 2,147,483,648, got 2147483648"),
        ({"epochs": 2**70}, "epochs must be below 2,147,483,648, got 1180591620717411303424"),
        ({"epochs": 10**5000}, "4300 digits"),
        ({"batch_size": 2**63}, "batch_size must be below 2,147,483,648"),
        ({"latents": 2**40}, "latents must be below 2,147,483,648"),
        ({"image_size": 2**40}, "image_size must be below 2,147,483,648"),
        ({"save_every": 2**40}, "save_every must be below 2,147,483,648"),
        (
            {"learning_rate": 1e-40},
            "learning_rate must be above 0, got 1e-40, which is 0 in float32",
        ),
        ({"learning_rate": 1e39}, r"must be above 0, got 1e\+39, which is inf in float32"),
        ({"learning_rate": 10**400}, "learning_rate must be above 0, got 1000"),
        ({"ema_decay": 1 - 1e-9}, "below 1, got 0.999999999, which is 1 in float32"),
    ],
)
@pytest.mark.fault(
    "flags",
    "integers beyond 32 or 64 bits, floats that are 0, 1 or infinite in float32",
    "refused with the bound",
)
@pytest.mark.usefixtures("without_jaxtyping")
def test_rejects_values_beyond_their_type(values, message):
    """JAX would abort, or silently compute with another value."""
    with pytest.raises(ValueError, match=message):
        TrainConfig(**values)


def test_the_largest_seeds_are_different():
    """Those above are not: JAX drops their higher bits."""
    seeds = (0, 2**31 - 1, 2**31, 2**32 - 1)
    keys = [jax.random.key(TrainConfig(seed=seed).seed) for seed in seeds]
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == 4


@pytest.mark.fault("flags", "more steps than 32 bits count", "refused with the bound of the epochs")
def test_rejects_more_steps_than_jax_counts(toy):
    """48 examples in batches of 8 are 6 steps: 6 x 357,913,941 = 2**31 - 2."""
    config = TrainConfig(batch_size=8, epochs=357_913_941)
    assert config.resolve(toy).epochs == 357_913_941
    message = "epochs of 6 steps must be below 357,913,942, as .* 32 bits, got 357913942"
    with pytest.raises(ValueError, match=message):
        replace(config, epochs=357_913_942).resolve(toy)
