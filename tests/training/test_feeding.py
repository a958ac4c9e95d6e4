"""Training images on the host: the same results, and only the examples that a device needs."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from helpers import make_dataset

from jvae_jax import Ours, TrainConfig, fit, memory
from jvae_jax.training import feeding
from jvae_jax.training.batching import epoch_order
from jvae_jax.training.feeding import DeviceFeed, HostFeed, lies_on_host
from jvae_jax.types import Batch

KEY = jax.random.key(0)
STEPS, BATCH_SIZE = 4, 8


@pytest.mark.parametrize("devices", [1, 2])
def test_both_feeds_give_the_same_examples(devices):
    """The batches of ten steps, in dispatches of four from any start, device by device.

    The neighbour of image i is image 82 - i.
    """
    examples = 83
    data = Batch(np.arange(examples, dtype=np.uint8).reshape(-1, 1, 1, 1), np.arange(examples) - 9)
    on = jax.devices()[:devices]
    feeds = (
        DeviceFeed(data, on),
        HostFeed(data, on, batch_size=BATCH_SIZE, steps=STEPS),
    )
    order = epoch_order(KEY, 3, examples)
    for feed in feeds:
        feed.start_epoch(order, np.arange(examples)[::-1])
    per_device = BATCH_SIZE // devices
    # The third epoch of ten steps.
    for start, stop in ((20, 24), (24, 28), (28, 30), (23, 27)):
        loaded = [feed.load(start, stop) for feed in feeds]
        assert loaded[1][0].labels.shape == (devices, STEPS * per_device)
        for step in range(start, stop):
            batches = []
            for batch, visits in loaded:
                steps = len(visits) // BATCH_SIZE
                for device in range(devices):
                    first = step % steps * BATCH_SIZE + device * per_device
                    indices = np.asarray(visits)[first : first + per_device]
                    batches.append([np.asarray(each)[device, indices] for each in batch])
            np.testing.assert_array_equal(
                [labels for _, labels, _ in batches[:devices]],
                [labels for _, labels, _ in batches[devices:]],
            )
            visited = np.concatenate([labels for _, labels, _ in batches[:devices]])
            in_epoch = (step - 20) * BATCH_SIZE
            np.testing.assert_array_equal(visited, order[in_epoch : in_epoch + BATCH_SIZE] - 9)
            for fed in (batches[:devices], batches[devices:]):
                images = np.concatenate([images.ravel() for images, _, _ in fed])
                np.testing.assert_array_equal(images, visited + 9)
                neighbours = np.concatenate([images.ravel() for _, _, images in fed])
                np.testing.assert_array_equal(neighbours, 82 - images)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_labels": 6, "objective": Ours(consistency_weight=1.0, neighbours=3)},
        pytest.param(
            {"num_labels": 6, "objective": Ours(penalty="multiplier", unsupervised_epochs=1)},
            marks=pytest.mark.long,
        ),
        pytest.param({}, marks=pytest.mark.long),
        pytest.param({"balance_classes": True}, marks=pytest.mark.long),
    ],
)
def test_trains_the_same_run(tmp_path, monkeypatch, settings):
    """Bit for bit, on two devices, with dispatches that don't fill an epoch."""
    monkeypatch.setattr(feeding, "STEPS_PER_DISPATCH", STEPS)
    dataset = make_dataset()
    results = []
    for place in ("device", "host"):
        defaults = {"objective": Ours(capacity_steps=10)}
        config = TrainConfig(
            batch_size=BATCH_SIZE,
            latents=2,
            epochs=2,
            workdir=str(tmp_path / place),
            data_on=place,
            **{**defaults, **settings},
        )
        run = fit(config, dataset)
        results.append((run.load_state(), (run.workdir / "metrics.jsonl").read_text()))
    jax.tree.map(np.testing.assert_array_equal, *results)
    # A run can be continued from the other place.
    grown = [
        fit(
            replace(config, epochs=3, workdir=str(tmp_path / folder), data_on=place), dataset
        ).load_state()
        for folder, place in (("device", "host"), ("host", "device"))
    ]
    jax.tree.map(np.testing.assert_array_equal, *grown)


def test_large_data_lie_on_the_host(monkeypatch):
    images = make_dataset().train_images
    assert not lies_on_host("auto", images)
    assert lies_on_host("host", images)
    monkeypatch.setattr(memory, "LARGE_BYTES", images.nbytes - 1)
    assert lies_on_host("auto", images)
    assert not lies_on_host("device", images)
