"""The README's figures are those of the runs that are kept, and so are tables and pictures."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import reproduce
from PIL import Image

from jvae_jax.evaluation import metrics
from jvae_jax.training.run import load_run

ROOT = Path(__file__).parents[2]
PAPER = ROOT / "experiments" / "results" / "paper"
KEPT = sorted(path.parent for path in ROOT.glob("experiments/results/*/evaluation.json"))


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_the_readme_says_what_the_run_found(folder):
    readme = (ROOT / "README.md").read_text()
    found = json.loads((folder / "evaluation.json").read_text())
    assert f"```\n{metrics.format_table(found)}\n```" in readme
    environment = found["environment"]
    assert json.loads((folder / "config.json").read_text())["environment"]["commit"] in readme
    for fact in ("commit", "python", "jax", "machine"):
        assert environment[fact] in readme
    assert f"experiments/results/{folder.name}" in readme


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_a_kept_run_is_whole(folder):
    run = load_run(folder)
    found = json.loads((folder / "evaluation.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert found["step"] == run.total_steps == lines[-1]["step"]
    assert len(lines) == run.config.epochs
    assert found["examples"] == run.data.test_examples
    assert found["kl_z"] == pytest.approx(lines[-1]["test"]["kl_z"], rel=1e-5)
    assert (folder / "samples.png").exists()


def test_four_runs_are_kept():
    assert [folder.name for folder in KEPT] == [
        "ours-hiragana73",
        "ours-mnist",
        "ours-mnist-consistency",
        "ours-mnist_5k",
    ]


def test_the_report_rebuilds_what_is_kept(tmp_path):
    for path in PAPER.glob("*.json"):
        shutil.copy(path, tmp_path)
    reproduce.report(reproduce.ReportConfig(output=str(tmp_path)))
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in PAPER.iterdir()}
    for path in PAPER.iterdir():
        rebuilt = tmp_path / path.name
        if path.suffix == ".png":
            # Other versions of matplotlib and its fonts draw names a little otherwise.
            kept, again = (
                np.asarray(Image.open(file).convert("L"), int) for file in (path, rebuilt)
            )
            assert kept.shape == again.shape
            assert np.abs(kept - again).mean() < 1, path.name
        elif path.suffix == ".pdf":
            if producer(path) == producer(rebuilt):
                assert path.read_bytes() == rebuilt.read_bytes(), path.name
        else:
            assert path.read_text() == rebuilt.read_text(), path.name


def producer(path):
    return re.search(rb"Producer \((.*?)\)", path.read_bytes()).group()


def test_the_readme_shows_the_tables_that_are_kept():
    readme = (ROOT / "README.md").read_text()
    tables = sorted(PAPER.glob("*.md"))
    assert tables
    for path in tables:
        assert path.read_text() in readme, path.name


def test_the_readmes_pictures_and_links_exist():
    readme = (ROOT / "README.md").read_text()
    linked = re.findall(r"\]\((?!https?:|#)([^)]+)\)", readme)
    assert len(linked) > 5
    assert [path for path in linked if not (ROOT / path).exists()] == []
