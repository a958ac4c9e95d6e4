"""The table of faults lists those that the tests try."""

from pathlib import Path

TABLE = Path(__file__).parents[2] / "experiments" / "results" / "faults.md"


def test_table_lists_all_faults(collected_faults):
    rows = {
        tuple(cell.strip() for cell in line.strip("|").split("|"))
        for line in TABLE.read_text().splitlines()
        if line.startswith("| ")
    }
    listed = {(area, fault, outcome) for area, fault, _, outcome in rows}
    assert collected_faults <= listed
