"""Two CPU devices, so that code for many is always exercised; data that need no network."""

import os
import tempfile
from dataclasses import replace

# What one test compiled, another needn't, in whatever process: xdist's inherit the environment.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _compiled = tempfile.TemporaryDirectory(prefix="jvae_jax_tests_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
# Compiling takes longer than running here, so it isn't asked for its best.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=2",
        "--xla_backend_optimization_level=0",
    ]
)

import jax
import jaxtyping
import pytest
from helpers import SMALL, make_dataset, shared_data

from jvae_jax.training.loop import fit


@pytest.fixture(autouse=True, scope="module")
def free_what_was_compiled():
    """All of it would need more mappings of memory than Linux gives one process, 65,530."""
    yield
    jax.clear_caches()


@pytest.fixture
def without_jaxtyping(monkeypatch):
    """As users call it: what the annotations would refuse must be told by the function itself."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    """A run that was never stopped."""
    workdir = tmp_path_factory.mktemp("runs") / "reference"
    said = []
    run = fit(replace(SMALL, workdir=str(workdir)), make_dataset(), say=said.append)
    return run, said


@pytest.fixture
def toy():
    return make_dataset()


@pytest.fixture
def mnist_files(tmp_path):
    """A folder with links to MNIST's four files."""
    target = tmp_path / "mnist_files"
    target.mkdir()
    for file in shared_data("mnist").glob("*.gz"):
        (target / file.name).symlink_to(file)
    return target


@pytest.fixture
def stand_in(tmp_path):
    """A folder with a link to hiragana73.zip."""
    archive = shared_data("hiragana73.zip")
    (tmp_path / archive.name).symlink_to(archive)
    return tmp_path
