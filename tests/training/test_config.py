import math
from dataclasses import asdict, fields, replace

import pytest
from helpers import make_dataset

from jvae_jax.objectives import CVAE, OBJECTIVES, Ours
from jvae_jax.training.config import TrainConfig


def test_defaults_are_the_papers(toy):
    config = TrainConfig()
    assert (config.objective, config.epochs, config.batch_size) == ("ours", 100, 64)
    assert (config.learning_rate, config.image_size, config.latents) == (1e-3, 32, 10)
    resolved = config.resolve(toy)
    assert (resolved.beta, resolved.gamma, resolved.temperature) == (30.0, 30.0, 0.67)
    assert (resolved.capacity_z, resolved.capacity_c) == (5.0, 0.0)


def test_resolving_fills_in_what_the_data_decide():
    dataset = make_dataset(train=640, name="digits")
    resolved = TrainConfig(objective="joint_vae", seed=7, epochs=75, batch_size=64).resolve(dataset)
    assert resolved.workdir == "runs/joint_vae-digits-7"
    assert resolved.dataset == "digits"
    assert resolved.capacity_steps == 200  # 750 steps x 25,000 / 93,750
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
def test_a_runs_folder_is_called_after_its_data(dataset, data_dir, folder):
    resolved = TrainConfig(dataset=dataset, data_dir=data_dir).resolve(make_dataset(name=dataset))
    assert resolved.workdir == f"runs/{folder}"
    assert resolved.dataset == dataset


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_what_is_resolved_makes_the_objective(objective, toy):
    made = TrainConfig(objective=objective).resolve(toy).make_objective()
    expected = OBJECTIVES[objective]()
    if hasattr(made, "capacity_steps"):
        expected = replace(expected, capacity_steps=made.capacity_steps)
    assert made == expected


def test_given_values_reach_the_objective():
    made = TrainConfig(beta=2.0, capacity_c=0.5, capacity_steps=9).make_objective()
    assert isinstance(made, Ours)
    assert (made.beta, made.gamma, made.capacity_c, made.capacity_steps) == (2.0, 30.0, 0.5, 9)
    assert TrainConfig(objective="cvae").make_objective(all_labelled=True) == CVAE(
        all_labelled=True
    )


def test_images_of_no_fitting_size_are_told():
    with pytest.raises(ValueError, match="image_size must be a multiple of 8 above 0, got 12"):
        TrainConfig().resolve(make_dataset(size=12))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_models_have_what_their_objective_needs(objective):
    model = TrainConfig(objective=objective, latents=4).make_model(
        image_shape=(16, 16, 1), classes=7
    )
    assert model.latents == 4
    assert model.classes == (7 if objective in ("joint_vae", "ours", "cvae") else 0)
    assert model.conditional == (objective == "cvae")


def test_it_goes_to_json_and_back(toy):
    resolved = TrainConfig().resolve(toy)
    assert TrainConfig(**asdict(resolved)) == resolved


def test_every_field_has_help():
    assert all(len(field.metadata["help"]) > 5 for field in fields(TrainConfig))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"objective": "our"}, r"unknown objective 'our'; there are vae, cvae"),
        ({"reconstruction_loss": "mse"}, r"unknown reconstruction_loss 'mse'; there are bern"),
        ({"ema_decay": 1.0}, "ema_decay must be 0 or more and below 1, got 1.0"),
        ({"fixed_latents": 11}, "fixed_latents must be from 0 to latents, 10, got 11"),
        ({"num_labels": "few"}, "num_labels must be all or 0 or more, got few"),
        ({"num_labels": -1}, "num_labels must be all or 0 or more, got -1"),
        ({"objective": "vae", "num_labels": 9}, "vae reads no labels"),
        (
            {"labelled_batch_fraction": 1.0},
            "labelled_batch_fraction must be between 0 and 1, got 1.0",
        ),
        ({"epochs": 0}, "epochs must be above 0, got 0"),
        ({"batch_size": -1}, "batch_size must be above 0, got -1"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"learning_rate": math.inf}, "learning_rate must be above 0, got inf"),
        ({"beta": math.nan}, "beta must be 0 or more, got nan"),
        ({"latents": 0}, "latents must be above 0"),
        ({"image_size": 28}, "image_size must be a multiple of 8 above 0, got 28"),
        ({"beta": -1.0}, "beta must be 0 or more, got -1"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"save_every": 0}, "save_every must be 1 or more"),
        ({"objective": "vae", "gamma": 1.0}, "vae has no gamma; it has no hyperparameters"),
        ({"objective": "beta_vae", "gamma": 1.0}, "beta_vae has no gamma; it has beta"),
    ],
)
def test_bad_values_are_told(values, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**values)
