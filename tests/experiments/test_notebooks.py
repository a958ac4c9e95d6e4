"""Notebooks run from top to bottom, and what is kept of them is what their sources give."""

from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parents[2] / "experiments" / "notebooks"
SHORT = {
    "colab_tpu": 'EPOCHS = 1\nDATASET = "mnist_5k"',
    "losses_in_your_own_code": "EPOCHS = 2",
}
AGAIN = "jupytext --sync {0}.py && jupyter execute --inplace {0}.ipynb"
"""Makes a notebook from its source, in its folder."""

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


def test_all_are_known():
    assert {path.stem for path in NOTEBOOKS.glob("*.py")} == SHORT.keys()
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == SHORT.keys()


@pytest.mark.parametrize("name", SHORT)
def test_what_is_kept_is_of_the_source_and_whole(name):
    kept, source = (read(NOTEBOOKS / f"{name}.{kind}") for kind in ("ipynb", "py"))
    cells = [[(cell.cell_type, cell.source) for cell in book.cells] for book in (kept, source)]
    assert cells[0] == cells[1], f"they differ; {AGAIN.format(name)}"
    check_outputs(kept)


@pytest.mark.long
@pytest.mark.parametrize("name", SHORT)
def test_they_run_and_run_again(name, tmp_path):
    """Shortened by the cell of parameters; the second time as after a lost runtime."""
    nbclient = pytest.importorskip("nbclient")
    for start in range(2):
        notebook = read(NOTEBOOKS / f"{name}.py")
        (parameters,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
        parameters.source += f"\n{SHORT[name]}"
        resources = {"metadata": {"path": str(tmp_path)}}
        nbclient.NotebookClient(notebook, timeout=600, resources=resources).execute()
        check_outputs(notebook)
        said = "".join(output.get("text", "") for output in outputs_of(notebook))
        if name == "colab_tpu":
            assert "(cpu), jax" in said
            assert ("is finished" in said) == (start == 1)
            assert "accuracy" in said
        else:
            assert "labels read of 300 digits" in said
