"""Runs that start with the weights of another model."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import SMALL, log_messages, make_dataset
from random_models import random_model

from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.objectives import OBJECTIVES, Ours
from jvae_jax.training.loop import fit
from jvae_jax.training.step import TrainState
from jvae_jax.training.transfer import permute_categories, transfer_variables


def initial_variables(network):
    return dict(network.init(jax.random.key(7), jnp.zeros((1, *network.image_shape))))


@pytest.mark.parametrize("conditional", [False, True])
def test_classes_keep_their_weights_in_another_order(conditional):
    """Of the source's classes a, b and c, the network has c and a, and two others."""
    source = random_model(Autoencoder((8, 8, 1), 2, 3, conditional=conditional))
    network = Autoencoder((8, 8, 1), 2, 4, conditional=conditional)
    initial = initial_variables(network)
    classes = [2, None, 0, None]
    variables = transfer_variables(network, initial, source.network, source.variables, classes)
    model = replace(source, network=network, variables=variables, class_names=tuple("cxay"))
    z = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    images = np.random.default_rng(1).integers(0, 256, (5, 8, 8, 1), np.uint8)
    for name in "ac":
        np.testing.assert_allclose(
            model.decode(z, name), source.decode(z, name), atol=1e-6, err_msg=name
        )
    posterior, expected = model.encode(images), source.encode(images)
    log_odds = [np.asarray(each.logits) for each in (posterior, expected)]
    np.testing.assert_allclose(
        log_odds[0][:, 2] - log_odds[0][:, 0], log_odds[1][:, 0] - log_odds[1][:, 2], atol=1e-5
    )
    if not conditional:  # there z depends on the class, some of which are new
        np.testing.assert_allclose(posterior.mean, expected.mean, atol=1e-5)
    kernels = [tree["params"]["decoder"]["Dense_0"]["kernel"] for tree in (variables, initial)]
    np.testing.assert_array_equal(kernels[0][3::2], kernels[1][3::2])


@pytest.mark.parametrize("conditional", [False, True])
def test_categories_are_permuted(conditional):
    """In the weights, their average and the optimizer's moments; the model is the same but for
    them."""
    model = random_model(Autoencoder((8, 8, 1), 2, 3, conditional=conditional))
    variables, optimizer = model.variables, optax.adam(1e-3)

    def times(factor, tree):
        return jax.tree.map(lambda leaf: factor * np.asarray(leaf), tree)

    initial = optimizer.init(variables["params"])
    adam = initial[0]._replace(
        count=jnp.int32(7), mu=times(4, variables["params"]), nu=times(8, variables["params"])
    )
    multipliers = {"multiplier_z": jnp.float32(3.0)}
    state = TrainState(
        jnp.int32(5), variables, times(2, variables), (adam, *initial[1:]), multipliers
    )
    categories = np.array([2, 0, 1])
    permuted = permute_categories(model.network, optimizer, state, categories)
    assert (permuted.step, permuted.opt_state[0].count) == (5, 7)
    assert permuted.multipliers == multipliers
    params, moments = permuted.variables["params"], permuted.opt_state[0]
    jax.tree.map(np.testing.assert_array_equal, permuted.average, times(2, permuted.variables))
    jax.tree.map(np.testing.assert_array_equal, moments.mu, times(4, params))
    jax.tree.map(np.testing.assert_array_equal, moments.nu, times(8, params))
    other = replace(model, variables=permuted.variables)
    images = np.random.default_rng(1).integers(0, 256, (5, 8, 8, 1), np.uint8)
    posterior, expected = other.encode(images), model.encode(images)
    np.testing.assert_allclose(posterior.logits, expected.logits[:, categories], atol=1e-5)
    np.testing.assert_allclose(posterior.mean, expected.mean, atol=1e-5)
    z = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    np.testing.assert_allclose(
        other.decode(z, np.arange(3)), model.decode(z, categories), atol=1e-6
    )


def test_without_classes_all_weights_are_taken():
    source = random_model(Autoencoder((8, 8, 1), 2, 0))
    initial = initial_variables(source.network)
    variables = transfer_variables(source.network, initial, source.network, source.variables, [])
    jax.tree.map(np.testing.assert_array_equal, variables, source.variables)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Autoencoder((8, 8, 1), 3, 3), "^latents is 2 there and 3 here$"),
        (Autoencoder((8, 8, 3), 2, 3), "^image shape is .* there and .* here$"),
        (Autoencoder((8, 8, 1), 2, 3, True), "^conditional_encoder is False there and True here$"),
        (Autoencoder((8, 8, 1), 2, 0), "^with classes is True there and False here$"),
        (Autoencoder((8, 8, 1), 2, 3, fixed_latents=1), "^fixed_latents is 0 there and 1 here$"),
        (Autoencoder((8, 8, 1), 2, 3, depth=4), "^depth is 3 there and 4 here$"),
    ],
)
def test_other_networks_are_refused(network, message):
    source = random_model(Autoencoder((8, 8, 1), 2, 3))
    with pytest.raises(ValueError, match=message):
        transfer_variables(network, {}, source.network, source.variables, [0, 1, 2])


def test_run_starts_with_the_weights_of_another(reference, tmp_path):
    """With a learning rate of almost 0 it also ends with them."""
    source, _ = reference
    dataset = make_dataset(classes=4)
    config = replace(
        SMALL,
        epochs=1,
        learning_rate=1e-12,
        init_from=str(source.workdir),
        workdir=str(tmp_path / "run"),
    )
    with log_messages() as messages:
        run = fit(config, dataset)
    assert any("which has 3 of 4 classes" in message for message in messages)
    assert "capacities are at their final values from the first step" in messages
    params, expected = (each.model.variables["params"]["encoder"] for each in (run, source))
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), params["mean"], expected["mean"])
    known = jax.tree.map(lambda logits: logits[..., :3], params["logits"])
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), known, expected["logits"])
    with pytest.raises(ValueError, match=r"init_from is .* there and None here"):
        fit(replace(config, init_from=None), dataset)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"latents": 3},
            ValueError,
            "settings: --objective=ours --latents=2 --fixed_latents=0 --depth=3 --image_size=8$",
        ),
        ({"objective": OBJECTIVES["vae"]()}, ValueError, "has another network"),
        (
            {"objective": Ours(conditional_encoder=True)},
            ValueError,
            "conditional_encoder is False there and True here",
        ),
        ({"init_from": "digit"}, FileNotFoundError, "digit is not a run.*packaged models: digits"),
    ],
)
def test_run_without_a_source_leaves_no_folder(reference, tmp_path, changes, error, message):
    source, _ = reference
    values = {"init_from": str(source.workdir), "workdir": str(tmp_path / "run")} | changes
    with pytest.raises(error, match=message):
        fit(replace(SMALL, **values), make_dataset())
    assert list(tmp_path.iterdir()) == []
