"""Results don't depend on the process's JAX options for random bits, types and promotion."""

import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import jax
import jax.experimental
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import SMALL, assert_same_result, make_dataset

from jvae_jax import numerics
from jvae_jax.training.loop import fit
from jvae_jax.training.run import load_run

ROOT = Path(__file__).parents[1]
OPTIONS = {
    "JAX_DEFAULT_PRNG_IMPL": lambda: jax.default_prng_impl("rbg"),
    "JAX_THREEFRY_PARTITIONABLE": lambda: jax.threefry_partitionable(False),
    "JAX_ENABLE_X64": lambda: numerics._enable_x64(True),
    "JAX_NUMPY_DTYPE_PROMOTION": lambda: jax.numpy_dtype_promotion("strict"),
    "JAX_NUMPY_RANK_PROMOTION": lambda: jax.numpy_rank_promotion("raise"),
}
unusual_options = pytest.mark.fault(
    "environment",
    "JAX configured with other random bits, x64 or strict promotion",
    "training, resumption and evaluation end with the same bits; losses keep the dtype of their "
    "inputs",
)


@pytest.fixture
def set_options():
    """Sets all options of OPTIONS, or those named, until the test ends."""
    with ExitStack() as stack:
        yield lambda *names: [stack.enter_context(OPTIONS[name]()) for name in names or OPTIONS]


@pytest.mark.parametrize("option", OPTIONS)
def test_options_change_jax(option, set_options):
    """The options are set, so that the other tests mean something."""
    normal = jax.random.normal(jax.random.key(0), (100,))
    set_options(option)
    mixed = jnp.float32(1), jnp.zeros(3, jnp.bfloat16)
    if option == "JAX_NUMPY_DTYPE_PROMOTION":
        with pytest.raises(Exception, match="promotion"):
            mixed[0] + mixed[1]
    elif option == "JAX_NUMPY_RANK_PROMOTION":
        with pytest.raises(ValueError, match="rank_promotion"):
            mixed[1] + jnp.zeros((3, 3))
    else:
        changed = jax.random.normal(jax.random.key(0), (100,))
        assert changed.dtype != normal.dtype or not np.array_equal(changed, normal)


@unusual_options
def test_training_is_independent_of_options(reference, tmp_path, set_options):
    set_options()
    run = fit(replace(SMALL, workdir=str(tmp_path / "run")), make_dataset())
    assert_same_result(run, reference[0])


@unusual_options
@pytest.mark.parametrize("option", OPTIONS)
def test_resumption_is_independent_of_options(option, reference, tmp_path, set_options):
    workdir = tmp_path / "run"
    shutil.copytree(reference[0].workdir, workdir)
    shutil.rmtree(workdir / "checkpoints" / "24")
    (workdir / "evaluation.json").unlink()
    set_options(option)
    run = fit(replace(SMALL, workdir=str(workdir)), make_dataset())
    assert_same_result(run, reference[0])


@unusual_options
def test_trained_model_is_independent_of_options(reference, set_options):
    """With the same key, whose implementation is the caller's."""

    def results():
        model = load_run(reference[0].workdir).model
        z = model.encode(images).mean
        return (
            model.sample(key=key, columns=2),
            z,
            model.restyle(images),
            model.reconstruct(images),
            model.interpolate(np.asarray(z), "a", steps=5),
            model.traverse(np.zeros(2), [-1.0, 0.0, 1.0], "b"),
            model.evaluate(make_dataset())["mse_sampled"],
            np.array(model.framing),
        )

    images, key = make_dataset().test_images[:2], jax.random.key(7)
    expected = results()
    set_options()
    for result, value in zip(results(), expected, strict=True):
        assert np.asarray(result).dtype == np.asarray(value).dtype
        np.testing.assert_array_equal(result, value)


@unusual_options
@pytest.mark.long
def test_commands_are_independent_of_environment(tmp_path):
    """Training is stopped after an epoch; another environment resumes, evaluates and generates."""
    flags = ["--dataset=mnist_5k", "--image_size=8", "--batch_size=200", "--latents=3"]
    other = {
        "JAX_DEFAULT_PRNG_IMPL": "unsafe_rbg",
        "JAX_THREEFRY_PARTITIONABLE": "0",
        "JAX_ENABLE_X64": "1",
        "JAX_NUMPY_DTYPE_PROMOTION": "strict",
        "JAX_NUMPY_RANK_PROMOTION": "raise",
    }

    def command(name, *args, environment):
        completed = subprocess.run(
            [sys.executable, "-m", "jvae_jax", name, *args],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            capture_output=True,
            text=True,
        )
        assert completed.returncode == 0, completed.stderr

    for run, environment in (("expected", {}), ("run", other)):
        train = "train", *flags, "--save_every=1", "--epochs=2", f"--workdir={run}"
        command(*train, environment={})
        shutil.rmtree(max((tmp_path / run / "checkpoints").glob("[0-9]*"), key=step_of))
        (tmp_path / run / "evaluation.json").unlink()
        command(*train, environment=environment)
        command("generate", f"--workdir={run}", f"--output={run}.png", environment=environment)
    assert_same_result(load_run(tmp_path / "expected"), load_run(tmp_path / "run"))
    assert (tmp_path / "expected.png").read_bytes() == (tmp_path / "run.png").read_bytes()


def step_of(path):
    return int(path.name)
