"""The README's figures are those of the runs that are kept."""

import json
from pathlib import Path

import pytest

from jvae_jax import evaluation, runs

ROOT = Path(__file__).parent.parent
KEPT = sorted(path.parent for path in ROOT.glob("experiments/results/*/evaluation.json"))


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_the_readme_says_what_the_run_found(folder):
    readme = (ROOT / "README.md").read_text()
    found = json.loads((folder / "evaluation.json").read_text())
    assert f"```\n{evaluation.format_table(found)}\n```" in readme
    environment = found["environment"]
    for fact in ("commit", "python", "jax", "machine"):
        assert environment[fact] in readme
    assert f"experiments/results/{folder.name}" in readme


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_a_kept_run_is_whole(folder):
    run = runs.load(folder)
    found = json.loads((folder / "evaluation.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert found["step"] == run.total_steps == lines[-1]["step"]
    assert len(lines) == run.config.epochs
    assert found["examples"] == run.data.test_examples
    assert found["kl_z"] == pytest.approx(lines[-1]["test"]["kl_z"], rel=1e-5)
    assert (folder / "samples.png").exists()


def test_four_runs_are_kept():
    assert [folder.name for folder in KEPT] == [
        "joint_vae-hiragana73",
        "ours-hiragana73",
        "ours-mnist",
        "ours-mnist_5k",
    ]
