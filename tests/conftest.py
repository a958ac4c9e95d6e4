"""Two CPU devices, so that multi-device code always runs; data that need no network."""

import os
import shlex
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

# The xdist processes inherit the environment, so that all tests share one compilation cache.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _cache = tempfile.TemporaryDirectory(prefix="jvae_jax_tests_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = os.environ.get("JVAE_JAX_TESTS_CACHE", _cache.name)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
# Warnings are errors in the processes that tests start, too.
os.environ["PYTHONWARNINGS"] = "error::DeprecationWarning,error::FutureWarning"
# Compilation takes longer than execution here, so it is not optimized.
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
from helpers import SMALL, log_messages, make_dataset, shared_data

from jvae_jax.training.loop import fit
from jvae_jax.training.provenance import environment

COLLECTED_FAULTS = pytest.StashKey[set]()
FAULTS = """\
# Faults

Faults that the tests try, and what happens. `cases` is the number of tests that passed.

`pytest {arguments}`; commit `{commit}`, Python {python}, jax {jax}, {machine}.

| area | fault | cases | what happens |
| --- | --- | ---: | --- |
"""


def pytest_addoption(parser):
    parser.addoption(
        "--faults-table", metavar="FILE", help="write the table of the faults that tests tried"
    )


def pytest_configure(config):
    config.stash[COLLECTED_FAULTS] = set()
    path = config.getoption("--faults-table")
    if path and "PYTEST_XDIST_WORKER" not in os.environ:
        arguments = shlex.join(config.invocation_params.args)
        config.pluginmanager.register(FaultsTable(Path(path).absolute(), arguments))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    for item in items:
        for marker in item.iter_markers("fault"):
            config.stash[COLLECTED_FAULTS].add(marker.args)
            item.user_properties.append(("fault", list(marker.args)))


def pytest_runtest_setup(item):
    if time.time() > float(os.environ.get("JVAE_JAX_TESTS_UNTIL", "inf")):
        pytest.skip(f"no time is left for {item.nodeid}")


class FaultsTable:
    """Counts the passed cases of each fault, from the reports of all xdist processes."""

    def __init__(self, path, arguments):
        self.path, self.arguments = path, arguments
        self.passed = Counter()

    def pytest_runtest_logreport(self, report):
        if report.when == "call" and report.passed:
            self.passed.update(
                tuple(row) for name, row in report.user_properties if name == "fault"
            )

    def pytest_sessionfinish(self):
        rows = [
            f"| {area} | {fault} | {self.passed[area, fault, outcome]} | {outcome} |\n"
            for area, fault, outcome in sorted(self.passed)
        ]
        head = FAULTS.format(arguments=self.arguments, **environment())
        self.path.write_text(head + "".join(rows))


@pytest.fixture(autouse=True, scope="module")
def clear_compiled_programs():
    """All of them would exceed Linux's limit of 65,530 memory mappings per process."""
    yield
    jax.clear_caches()


@pytest.fixture
def without_jaxtyping(monkeypatch):
    """Disables the annotation checks, as for users: functions must reject bad values themselves."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def collected_faults(pytestconfig):
    """Area, fault and outcome of all collected ``fault`` markers, of deselected tests too."""
    return pytestconfig.stash[COLLECTED_FAULTS]


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    """An uninterrupted run and its log messages."""
    workdir = tmp_path_factory.mktemp("runs") / "reference"
    with log_messages() as messages:
        run = fit(replace(SMALL, workdir=str(workdir)), make_dataset())
    return run, messages


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
def hiragana73_files(tmp_path):
    """A folder with a link to hiragana73.zip."""
    archive = shared_data("hiragana73.zip")
    (tmp_path / archive.name).symlink_to(archive)
    return tmp_path
