"""The bound on memory, and estimates compared with what is really allocated."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import make_dataset, stroke_image

from jvae_jax import data, memory
from jvae_jax.objectives import CVAE, OBJECTIVES, VAE
from jvae_jax.sampling import example_keys
from jvae_jax.training.config import TrainConfig, parameter_bytes
from jvae_jax.training.run import load_run, open_run
from jvae_jax.training.step import state_shape, train_step
from jvae_jax.types import Batch, LabelInfo

needs_linux = pytest.mark.skipif(not Path("/proc").exists(), reason="needs Linux's /proc")


@pytest.fixture
def limit(monkeypatch):
    """Sets the limit of memory, in bytes; None is unknown."""
    return lambda size: monkeypatch.setattr(memory, "memory_limit", lambda: size)


@pytest.fixture
def uncached_limit():
    memory.memory_limit.cache_clear()
    yield memory.memory_limit
    memory.memory_limit.cache_clear()


@needs_linux
def test_limit_is_physical_memory(uncached_limit):
    kib = int(Path("/proc/meminfo").read_text().split()[1])
    assert kib * 512 < uncached_limit() <= kib * 1024


@pytest.mark.parametrize(
    ("content", "expected"), [("1048576\n", 1 << 20), ("max\n", 1 << 40), (f"{1 << 60}\n", 1 << 40)]
)
def test_limit_of_a_control_group(uncached_limit, content, expected, tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text(content)
    groups = (str(tmp_path / "none"), str(tmp_path / "memory.max"))
    monkeypatch.setattr(memory, "_CONTROL_GROUP_LIMITS", groups)
    monkeypatch.setattr(memory.os, "sysconf", lambda _name: 1 << 20)
    assert uncached_limit() == expected


def test_unknown_limit_bounds_nothing(uncached_limit, monkeypatch):
    monkeypatch.delattr(os, "sysconf")
    assert uncached_limit() is None
    memory.require_memory(1 << 80, "this")


@pytest.mark.fault(
    "flags", "more memory than the machine has", "refused with the estimate and the limit"
)
def test_requirement_may_equal_the_limit(limit):
    limit(3 << 30)
    memory.require_memory(3 << 30, "this")
    message = r"this needs about 4\.5 GiB of memory, more than this machine's 3\.0 GiB"
    with pytest.raises(ValueError, match=message):
        memory.require_memory(9 << 29, "this")
    with pytest.raises(ValueError, match="this needs about"):
        memory.require_memory((3 << 30) + 1, "this")


@pytest.mark.parametrize("name", ["ours", "cvae", "vae"])
@pytest.mark.parametrize(("size", "latents"), [(32, 10), (128, 2), (32, 5000)])
def test_estimate_of_parameters(name, size, latents):
    config = TrainConfig(objective=OBJECTIVES[name](), latents=latents)
    network = config.make_network(image_shape=(size, size, 1), classes=20)
    parameters = state_shape(network, optax.adam(1e-3)).variables["params"]
    allocated = sum(array.size * 4 for array in jax.tree.leaves(parameters))
    assert allocated / 2 < parameter_bytes(network) <= allocated


@pytest.mark.long
@pytest.mark.parametrize(("batch_size", "latents"), [(256, 2), (8, 20_000)])
def test_estimate_of_training(batch_size, latents):
    """XLA says how much memory the compiled step takes beside the state."""
    config = TrainConfig(objective=VAE(), batch_size=batch_size, latents=latents)
    dataset = make_dataset(train=256, size=32)
    network = config.make_network(image_shape=dataset.image_shape, classes=3)
    optimizer = optax.adam(1e-3)
    state = state_shape(network, optimizer)

    @jax.jit
    def step(state, images, labels, key):
        keys = example_keys(key, state.step, jnp.arange(batch_size))
        batch = Batch(images[:batch_size], labels[:batch_size])
        info = LabelInfo(all_labelled=True)
        return train_step(config.objective, network, optimizer, state, batch, keys, label_info=info)

    data = dataset.train_images, dataset.train_labels
    compiled = step.lower(state, *data, jax.random.key(0)).compile()
    temporary = compiled.memory_analysis().temp_size_in_bytes
    held = sum(array.size * array.dtype.itemsize for array in jax.tree.leaves(state))
    allocated = temporary + held + dataset.train_images.nbytes
    assert allocated / 2 < config.training_bytes(dataset) < 2 * allocated


RESIZE = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
from helpers import make_dataset

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024

dataset = make_dataset(train=4000, test=1000, channels={channels})
dataset.resized(16)
before = peak()
dataset.resized({size})
print(peak() - before)
"""


@needs_linux
@pytest.mark.long
@pytest.mark.parametrize(("size", "channels"), [(80, 3), (128, 1)])
def test_estimate_of_resizing(size, channels, limit):
    """In a process of its own, whose peak is the one of resizing."""
    program = RESIZE.format(tests=str(Path(__file__).parent), size=size, channels=channels)
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    allocated = int(process.stdout)
    dataset = make_dataset(train=4000, test=1000, channels=channels)
    limit(allocated // 2)
    with pytest.raises(ValueError, match=f"resizing 5,000 images to {size} x {size} pixels needs"):
        dataset.resized(size)
    limit(2 * allocated)
    assert dataset.resized(size).image_shape == (size, size, channels)


@pytest.mark.fault(
    "flags", "more memory than the machine has", "refused with the estimate and the limit"
)
@pytest.mark.parametrize(
    ("changes", "estimate"),
    [
        # 5 x 4 bytes of 256 x (2 x 32 x 1 + 3 x 13) parameters, 48 images of 64 bytes and
        # 300 bytes of 64 pixels of each image of a batch
        ({"batch_size": 8}, 527_360 + 3_072 + 153_600),
        ({"batch_size": 40}, 527_360 + 3_072 + 768_000),
        ({"batch_size": 8, "latents": 1000}, 15_733_760 + 3_072 + 153_600),
        # three networks with features: encoder, decoder and classifier
        ({"batch_size": 8, "objective": CVAE()}, 691_200 + 3_072 + 153_600),
    ],
)
def test_training_is_refused_just_above_the_limit(limit, changes, estimate):
    config = TrainConfig(**changes)
    limit(estimate)
    assert config.resolve(make_dataset()).batch_size == config.batch_size
    limit(estimate - 1)
    message = r"training on images of \(8, 8, 1\) in batches of .* GiB of memory, more than"
    with pytest.raises(ValueError, match=message):
        config.resolve(make_dataset())


@pytest.mark.fault(
    "flags", "more memory than the machine has", "refused with the estimate and the limit"
)
@pytest.mark.parametrize("name", ["mnist_5k", "npz", "folder"])
def test_image_sizes_are_refused_before_allocation(name, tmp_path):
    if name == "npz":
        name = str(tmp_path / "digits.npz")
        np.savez(name, images=np.zeros((40, 8, 8), np.uint8), labels=np.arange(40) % 2)
    for path in ("a", "b"):
        (tmp_path / path).mkdir()
        stroke_image().save(tmp_path / path / "1.png")
    with pytest.raises(ValueError, match=r"1,000,000 x 1,000,000 pixels needs about .* GiB"):
        data.load(name, tmp_path, image_size=1_000_000)


@pytest.mark.fault(
    "run folder", "config.json of a model that exceeds the memory", "refused before allocation"
)
@pytest.mark.parametrize(
    ("part", "change"),
    [("data", {"image_shape": [10**6, 10**6, 1]}), ("config", {"latents": 2**31 - 1})],
)
def test_models_are_refused_before_allocation(part, change, toy, tmp_path):
    config = TrainConfig(batch_size=8, workdir=str(tmp_path)).resolve(toy)
    open_run(config, toy)
    contents = json.loads((tmp_path / "config.json").read_text())
    contents[part].update(change)
    (tmp_path / "config.json").write_text(json.dumps(contents))
    with pytest.raises(ValueError, match=r"the model in .*config\.json needs about .* GiB"):
        load_run(tmp_path)
