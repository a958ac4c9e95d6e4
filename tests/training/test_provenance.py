"""What a run keeps of its environment."""

import os
import shutil
import subprocess

import pytest

from jvae_jax.training import provenance


@pytest.mark.fault(
    "environment", "a checkout in a folder whose name isn't UTF-8", "its commit is kept"
)
def test_commit_of_a_checkout(tmp_path, monkeypatch):
    checkout = tmp_path / os.fsdecode(b"caf\xe9")
    module = checkout / "jvae_jax" / "training" / "provenance.py"
    module.parent.mkdir(parents=True)
    shutil.copy(provenance.__file__, module)
    monkeypatch.setattr(provenance, "__file__", str(module))
    assert provenance.environment()["commit"] is None

    def git(*arguments):
        author = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        return subprocess.check_output(["git", *author, *arguments], cwd=checkout, text=True)

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message=Start")
    commit = git("rev-parse", "HEAD")[:12]
    assert provenance.environment()["commit"] == commit
    module.write_text("# changed")
    assert provenance.environment()["commit"] == f"{commit}-dirty"
