"""Notebooks run from top to bottom, and the stored ones match their sources."""

from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parents[2] / "experiments" / "notebooks"
SHORT_PARAMETERS = {
    "colab_tpu": 'EPOCHS = 1\nDATASET = "mnist_5k"',
    "losses_in_your_own_code": "EPOCHS = 2",
    "your_hand": "",
}
UPDATE = "jupytext --sync {0}.py && jupyter execute --inplace {0}.ipynb"
"""Commands that update a stored notebook, in its folder."""

pytestmark = pytest.mark.filterwarnings("ignore")


def read(path):
    return pytest.importorskip("jupytext").read(path)


def outputs_of(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def check_outputs(notebook):
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    outputs = outputs_of(notebook)
    assert not [output for output in outputs if output.output_type == "error"]
    assert [output for output in outputs if "image/png" in output.get("data", {})]


def test_every_notebook_has_short_parameters():
    assert {path.stem for path in NOTEBOOKS.glob("*.py")} == SHORT_PARAMETERS.keys()
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == SHORT_PARAMETERS.keys()


@pytest.mark.parametrize("name", SHORT_PARAMETERS)
def test_stored_notebook_matches_source(name):
    stored, source = (read(NOTEBOOKS / f"{name}.{suffix}") for suffix in ("ipynb", "py"))
    cells = [[(cell.cell_type, cell.source) for cell in book.cells] for book in (stored, source)]
    assert cells[0] == cells[1], f"they differ; run {UPDATE.format(name)}"
    check_outputs(stored)


@pytest.mark.long
@pytest.mark.parametrize("name", SHORT_PARAMETERS)
def test_notebook_runs_and_resumes(name, tmp_path):
    """The second execution resumes, as after a lost runtime."""
    nbclient = pytest.importorskip("nbclient")
    for start in range(2):
        notebook = read(NOTEBOOKS / f"{name}.py")
        (parameters,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
        parameters.source += f"\n{SHORT_PARAMETERS[name]}"
        resources = {"metadata": {"path": str(tmp_path)}}
        nbclient.NotebookClient(notebook, timeout=600, resources=resources).execute()
        check_outputs(notebook)
        text = "".join(output.get("text", "") for output in outputs_of(notebook))
        if name == "colab_tpu":
            assert "(cpu), jax" in text
            assert ("is finished" in text) == (start == 1)
            assert "accuracy" in text
        elif name == "your_hand":
            files = {"sheet.png", "me.hand.json", "text.svg", "Me.ttf"}
            assert files <= {path.name for path in tmp_path.iterdir()}
        else:
            assert "accuracy on 300 test images" in text
