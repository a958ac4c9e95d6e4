"""Compiled training steps: agreement of devices, compilations, averaging, non-finite metrics."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import make_dataset

from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.objectives import OBJECTIVES
from jvae_jax.sampling import example_keys
from jvae_jax.training import parallel
from jvae_jax.training import step as training_step
from jvae_jax.training.batching import epoch_order
from jvae_jax.training.step import init_state
from jvae_jax.types import Batch, LabelInfo

KEY = jax.random.key(3)


def setup(
    name,
    devices,
    *,
    optimizer=None,
    batch_size=8,
    dtype=jnp.float32,
    dataset=None,
    ema_decay=0.999,
    label_info=LabelInfo(),
    mapping="pmap",
    **hyperparameters,
):
    dataset = make_dataset() if dataset is None else dataset
    objective = OBJECTIVES[name](**hyperparameters)
    classes = 3 if objective.has_categorical or objective.conditional else 0
    model = Autoencoder((8, 8, 1), 2, classes, objective.conditional)
    optimizer = optimizer or optax.adam(1e-3)
    devices = jax.devices()[:devices]
    train_steps = parallel.make_train_steps(
        objective,
        model,
        optimizer,
        batch_size=batch_size,
        label_info=label_info,
        ema_decay=ema_decay,
        devices=devices,
        mapping=mapping,
    )
    state = init_state(model, optimizer, jax.random.key(0))
    state = state._replace(multipliers=objective.initial_multipliers() or None)
    cast = lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x  # noqa: E731
    state = parallel.place(jax.tree.map(cast, state), devices)
    data = parallel.replicate(Batch(dataset.train_images, dataset.train_labels), devices, mapping)
    return train_steps, state, data


@cache
def setup_ours(devices):
    return setup("ours", devices, capacity_steps=10)


def dispatch(train_steps, state, data, stop, per_epoch=6):
    """Dispatches a copy of the state, since ``train_steps`` donates its input."""
    order = epoch_order(KEY, int(state.step) // per_epoch, data.images.shape[1])
    return train_steps(jax.tree.map(jnp.copy, state), data, order, KEY, jnp.int32(stop))


def run_steps(train_steps, state, data, steps, per_epoch=6):
    sums = None
    while int(state.step) < steps:
        stop = min(steps, (int(state.step) // per_epoch + 1) * per_epoch)
        state, metrics = dispatch(train_steps, state, data, stop)
        sums = metrics.sums if sums is None else jax.tree.map(jnp.add, sums, metrics.sums)
    return jax.device_get(state), jax.device_get(sums)


def test_has_two_devices():
    assert len(jax.devices()) == 2


@pytest.mark.parametrize("name", ["ours", pytest.param("cvae", marks=pytest.mark.long)])
def test_one_and_two_devices_agree(name):
    """20 steps of SGD with the same seed and data.

    Two devices sum in another order, so float32 results differ by rounding, which 20 small steps
    hardly amplify. If the sign of KL - C were taken per device instead of over the global batch,
    they would differ by 6e-2 (the KL crosses this capacity); with batch statistics per device, by
    2e-1. Adam normalizes gradients, so it would take full steps along gradients that consist of
    rounding errors only.
    """
    dataset = make_dataset()
    dataset.train_labels[::3] = -1
    results = []
    for devices in (1, 2):
        arguments = setup(
            name,
            devices,
            optimizer=optax.sgd(1e-5),
            dataset=dataset,
            label_info=LabelInfo(labelled_fraction=0.1),
            **HYPERPARAMETERS[name],
        )
        results.append(run_steps(*arguments, 20))
    (one, one_sums), (two, two_sums) = results
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        one.variables,
        two.variables,
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), one_sums, two_sums)


HYPERPARAMETERS = {"ours": {"capacity_steps": 10, "capacity_z": 0.25}, "cvae": {}}


@pytest.mark.parametrize("devices", [pytest.param(1, marks=pytest.mark.long), 2])
def test_shard_map_equals_pmap(devices):
    """Bit for bit, with a multiplier in the state."""
    results = []
    for mapping in ("pmap", "shard_map"):
        arguments = setup("ours", devices, mapping=mapping, penalty="multiplier", capacity_steps=10)
        results.append(run_steps(*arguments, 12))
    jax.tree.map(np.testing.assert_array_equal, *results)


@pytest.mark.long
@pytest.mark.parametrize(
    "hyperparameters",
    [
        {"consistency_weight": 1.0, "marginal_weight": 5.0},
        {"penalty": "multiplier", "conditional_encoder": True, "information_weight": 3.0},
    ],
)
def test_one_and_two_devices_agree_in_float64(monkeypatch, hyperparameters):
    """With Adam, in float64, where differences beyond rounding show at 1e-6."""
    monkeypatch.setattr(
        training_step, "scale_pixels", lambda images: jnp.asarray(images, jnp.float64) / 255
    )
    jax.config.update("jax_enable_x64", True)
    try:
        states = [
            run_steps(
                *setup("ours", devices, dtype=jnp.float64, capacity_steps=10, **hyperparameters),
                20,
            )[0]
            for devices in (1, 2)
        ]
    finally:
        jax.config.update("jax_enable_x64", False)
    assert states[0].variables["params"]["decoder"]["bias"].dtype == np.float64
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6),
        (states[0].variables, states[0].multipliers),
        (states[1].variables, states[1].multipliers),
    )


@pytest.mark.parametrize(("devices", "mapping"), [(1, "pmap"), (2, "pmap"), (2, "shard_map")])
def test_train_steps_compile_once(devices, mapping):
    """For any number of steps, and for states returned by earlier dispatches."""
    train_steps, state, data = setup("ours", devices, mapping=mapping)
    stop = [jnp.int32(n) for n in range(13)]
    orders = [epoch_order(KEY, epoch, 48) for epoch in (0, 1)]
    orders = parallel.place(orders, jax.devices()[:devices])
    jax.block_until_ready((state, data, stop, orders))
    compilations = []

    def listen(event, _duration, **_):
        if event.endswith("backend_compile_duration"):
            compilations.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    for target in (1, 4, 6, 12):
        order = orders[0 if target <= 6 else 1]
        state, _ = train_steps(state, data, order, KEY, stop[target])
        jax.block_until_ready(state)
    assert len(compilations) == 1


def test_dispatch_donates_state():
    """The state's buffers are reused, unless the host still holds a view of them."""
    train_steps, state, data = setup_ours(1)
    order = epoch_order(KEY, 0, 48)
    donated = jax.tree.map(jnp.copy, state)
    after, _ = train_steps(donated, data, order, KEY, jnp.int32(1))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(donated))
    view = jax.device_get(after)
    copy = jax.tree.map(np.copy, view)
    train_steps(after, data, order, KEY, jnp.int32(2))
    jax.tree.map(np.testing.assert_array_equal, view, copy)


def test_one_dispatch_equals_several():
    train_steps, state, data = setup_ours(1)
    once, _ = dispatch(train_steps, state, data, 6)
    for stop in range(1, 7):
        state, _ = dispatch(train_steps, state, data, stop)
    jax.tree.map(np.testing.assert_array_equal, once.variables, state.variables)


@pytest.mark.long
def test_moving_average_matches_float64_loop():
    """The decay is warmed up until the tenth step."""
    train_steps, state, data = setup("ours", 1, ema_decay=0.5)
    expected = 0.0
    for step in range(14):
        state, _ = dispatch(train_steps, state, data, step + 1)
        decay = min(0.5, step / (step + 10))
        leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(state.variables)]
        expected = decay * expected + (1 - decay) * np.concatenate([x.ravel() for x in leaves])
    average = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(state.average)])
    np.testing.assert_allclose(average, expected, rtol=1e-5, atol=1e-6)
    assert not np.allclose(average, np.concatenate([x.ravel() for x in leaves]), rtol=1e-3)


@pytest.mark.long
def test_zero_decay_disables_averaging():
    train_steps, state, data = setup("ours", 1, ema_decay=0.0)
    state, _ = dispatch(train_steps, state, data, 6)
    jax.tree.map(np.testing.assert_array_equal, state.average, state.variables)


def test_epoch_order_is_a_permutation_that_depends_on_epoch():
    order = epoch_order(KEY, 0, 48)
    assert sorted(np.asarray(order)) == list(range(48))
    assert not np.array_equal(order, epoch_order(KEY, 1, 48))


def test_noise_depends_on_position_in_global_batch_and_step():
    full = example_keys(KEY, 5, jnp.arange(8))
    half = example_keys(KEY, 5, jnp.arange(4, 8))
    later = example_keys(KEY, 6, jnp.arange(8))
    data = jax.random.key_data
    np.testing.assert_array_equal(data(full.gaussian)[4:], data(half.gaussian))
    assert not np.any(data(full.gaussian) == data(full.gumbel))
    assert not np.any(data(full.gaussian) == data(later.gaussian))


def test_training_lowers_the_loss():
    train_steps, state, data = setup_ours(2)
    _, first = dispatch(train_steps, state, data, 6)
    state, _ = run_steps(train_steps, state, data, 60)
    _, last = dispatch(train_steps, parallel.place(state, jax.devices()), data, 66)
    assert last.sums["reconstruction"] < 0.8 * first.sums["reconstruction"]
    assert set(map(int, last.first_nonfinite_step.values())) == {-1}


def test_reports_first_nonfinite_step():
    train_steps, state, data = setup("ours", 1, optimizer=optax.sgd(1e30))
    _, metrics = dispatch(train_steps, state, data, 6)
    steps = {name: int(step) for name, step in metrics.first_nonfinite_step.items()}
    assert steps["reconstruction"] > 0
    assert max(steps.values()) < 6


def test_rejects_invalid_batch_size():
    for batch_size, message in (
        (7, "batch_size must be divisible by the 2 devices, got 7"),
        (64, "batch_size must be at most the 48 training examples, got 64"),
    ):
        arguments = setup("ours", 2, batch_size=batch_size)
        with pytest.raises(ValueError, match=message):
            dispatch(*arguments, 1)
