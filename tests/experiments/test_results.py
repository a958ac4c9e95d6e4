"""The READMEs, tables and figures agree with the stored results."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import reproduce
from PIL import Image

from jvae_jax.evaluation import format_table
from jvae_jax.training.run import load_run

ROOT = Path(__file__).parents[2]
PAPER = ROOT / "experiments" / "results" / "paper"
RUNS = sorted(path.parent for path in ROOT.glob("experiments/results/*/evaluation.json"))
README = PAPER.parent / "README.md"


@pytest.mark.parametrize("folder", RUNS, ids=lambda folder: folder.name)
def test_readme_contains_evaluation(folder):
    readme = README.read_text()
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert f"```\n{format_table(evaluation)}\n```" in readme
    environment = evaluation["environment"]
    assert json.loads((folder / "config.json").read_text())["environment"]["commit"] in readme
    for fact in ("commit", "python", "jax", "machine"):
        assert environment[fact] in readme
    assert f"]({folder.name})" in readme


@pytest.mark.parametrize("folder", RUNS, ids=lambda folder: folder.name)
def test_stored_run_is_complete(folder):
    run = load_run(folder)
    evaluation = json.loads((folder / "evaluation.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert evaluation["step"] == run.total_steps == lines[-1]["step"]
    assert len(lines) == run.config.epochs
    assert evaluation["examples"] == run.data.test_examples
    assert evaluation["kl_z"] == pytest.approx(lines[-1]["test"]["kl_z"], rel=1e-5)
    assert (folder / "samples.png").exists()


def test_four_runs_are_stored():
    assert [folder.name for folder in RUNS] == [
        "ours-hiragana73",
        "ours-mnist",
        "ours-mnist-consistency",
        "ours-mnist_5k",
    ]


def test_report_rebuilds_stored_tables_and_figures(tmp_path):
    for path in PAPER.glob("*.json"):
        shutil.copy(path, tmp_path)
    reproduce.report(reproduce.ReportConfig(output=str(tmp_path)))
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in PAPER.iterdir()}
    for path in PAPER.iterdir():
        rebuilt = tmp_path / path.name
        if path.suffix == ".png":
            # Text rendering differs slightly between versions of matplotlib and its fonts.
            stored_pixels, rebuilt_pixels = (
                np.asarray(Image.open(file).convert("L"), int) for file in (path, rebuilt)
            )
            assert stored_pixels.shape == rebuilt_pixels.shape
            assert np.abs(stored_pixels - rebuilt_pixels).mean() < 1, path.name
        elif path.suffix == ".pdf":
            if producer(path) == producer(rebuilt):
                assert path.read_bytes() == rebuilt.read_bytes(), path.name
        else:
            assert path.read_text() == rebuilt.read_text(), path.name


def producer(path):
    return re.search(rb"Producer \((.*?)\)", path.read_bytes()).group()


def test_readme_contains_tables():
    tables = sorted(PAPER.glob("*.md"))
    assert tables
    for path in tables:
        readme = ROOT / "README.md" if path.name == "table1-summary.md" else README
        assert path.read_text() in readme.read_text(), path.name


@pytest.mark.parametrize(
    ("path", "minimum"),
    [
        ("README.md", 6),
        ("experiments/results/README.md", 6),
        ("experiments/benchmarks/README.md", 1),
    ],
)
def test_readme_links_and_images_exist(path, minimum):
    readme = ROOT / path
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", readme.read_text())
    targets = [link.partition("#") for link in links]
    assert len([file for file, *_ in targets if file]) >= minimum
    assert [file for file, *_ in targets if not (readme.parent / file).exists()] == []
    for file, _, anchor in targets:
        assert not anchor or anchor in heading_anchors(readme.parent / file if file else readme)


def heading_anchors(path):
    """Anchors that GitHub gives to the headings of a Markdown file."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
