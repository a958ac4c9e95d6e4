"""Versions, machine and commit that results record."""

import os
import platform
import subprocess

import jax
import numpy as np
import optax
import pytest

from jvae_jax.training import provenance


@pytest.fixture(autouse=True)
def uncached_commit():
    """The commit is read once per process, and these tests change it."""
    provenance._commit.cache_clear()
    yield
    provenance._commit.cache_clear()


def test_environment_has_versions_devices_and_machine():
    environment = provenance.environment()
    assert list(environment)[:13] == [
        "commit",
        "python",
        "jvae_jax",
        "jax",
        "jaxlib",
        "flax",
        "optax",
        "orbax-checkpoint",
        "numpy",
        "scikit-learn",
        "devices",
        "platform_version",
        "machine",
    ]
    assert environment["python"] == platform.python_version()
    assert environment["jax"] == jax.__version__
    assert environment["numpy"] == np.__version__
    assert environment["optax"] == optax.__version__
    assert environment["devices"] == ["cpu", "cpu"]
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    assert environment["machine"].startswith(machine)


def read_instead(monkeypatch, read):
    """Replaces the content of /proc/cpuinfo only: versions are read from files, too."""
    original = provenance.Path.read_text

    def read_text(path, *args, **options):
        return read() if str(path) == "/proc/cpuinfo" else original(path, *args, **options)

    monkeypatch.setattr(provenance.Path, "read_text", read_text)


def test_machine_names_the_processor(monkeypatch):
    """Linux lists a processor once for each core."""
    cores = 2 * "processor\t: 0\nmodel name\t: Some CPU: 3 GHz\nflags\t\t: fpu\n\n"
    read_instead(monkeypatch, lambda: cores)
    assert provenance.environment()["machine"].endswith(" cores, Some CPU: 3 GHz")


def test_machine_without_processor_name(monkeypatch):
    def unreadable():
        raise FileNotFoundError

    read_instead(monkeypatch, unreadable)
    assert provenance.environment()["machine"].endswith(" cores")


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    command = ["git", *identity, *arguments]
    return subprocess.run(
        command, cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The package in a folder, whose name isn't UTF-8, that becomes a checkout."""
    module = tmp_path / os.fsdecode(b"caf\xe9") / "jvae_jax" / "training" / "provenance.py"
    module.parent.mkdir(parents=True)
    module.write_text("")
    monkeypatch.setattr(provenance, "__file__", str(module))
    return module.parents[1]


@pytest.mark.fault(
    "environment", "a checkout in a folder whose name isn't UTF-8", "its commit is kept"
)
def test_commit_of_the_checkout_and_whether_it_is_modified(package):
    git(package.parent, "init", "-q")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-q", "-m", "first")
    git(package.parent, "tag", "v1")
    commit = git(package.parent, "rev-parse", "HEAD")[:12]
    assert provenance.environment()["commit"] == commit
    (package / "training" / "provenance.py").write_text("changed")
    provenance._commit.cache_clear()
    assert provenance.environment()["commit"] == f"{commit}-dirty"


def test_no_commit_outside_a_checkout_of_the_package(package, tmp_path):
    assert provenance.environment()["commit"] is None
    # An environment within a checkout of something else.
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "-m", "other", "--allow-empty")
    assert provenance.environment()["commit"] is None
    del package


def test_no_commit_before_the_first(package):
    git(package.parent, "init", "-q")
    assert provenance.environment()["commit"] is None


def test_no_commit_without_git(package, monkeypatch):
    monkeypatch.setenv("PATH", str(package))
    assert provenance.environment()["commit"] is None
