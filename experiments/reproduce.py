"""The paper's Table 1, and what it leaves out: python experiments/reproduce.py table1

Runs that are finished are skipped, runs that were stopped go on. ``report`` makes the table again
from the JSON that is kept.
"""

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jvae_jax import OBJECTIVES, TrainConfig, cli, data, fit, judge
from jvae_jax.config import option
from jvae_jax.files import replacing, write_json
from jvae_jax.fitting import evaluate_run

PAPER = {
    "vae": {"mse": 0.0068, "kl_z": 18.930},
    "annealed_vae": {"mse": 0.0219, "kl_z": 4.903},
    "joint_vae": {"mse": 0.0251, "kl_z": 4.958},
    "ours": {"mse": 0.0243, "kl_z": 4.986},
}
"""Table 1. Its beta-VAE is the one with capacities, as its KL of nearly 5 shows."""

COLUMNS = {
    "mse": ("MSE", 4),
    "mse_sampled": ("MSE, sampled", 4),
    "kl_z": ("KL(z)", 3),
    "accuracy": ("labels read", 4),
    "drawn": ("drawn as asked", 4),
    "probe_accuracy": ("labels read from z", 4),
    "mutual_information": ("c and label, nats", 3),
    "frechet": ("Fréchet", 2),
}


@dataclass(frozen=True, kw_only=True)
class Table1Config:
    seeds: int = option("runs of each objective", default=3)
    epochs: int = option("of each run", default=100)
    capacity_steps: int | None = option(
        "as train.py's, for the objectives that have capacities", default=None
    )
    dataset: str = option("what to train on", default="mnist")
    data_dir: str = option("folder of the original files or of downloads", default=data.DATA_DIR)
    runs: str = option("folder of the runs", default="runs/table1")
    output: str = option("folder of table1.json and table1.md", default="results")

    def __post_init__(self) -> None:
        for name in ("seeds", "epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    output: str = option("folder of table1.json and table1.md", default="results")


def table1(config: Table1Config) -> None:
    dataset = data.load(config.dataset, config.data_dir, say=print)
    marker = judge.load(dataset, config.data_dir)
    print(f"the judge reads {marker.accuracy:.4f} of the test images' labels")
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    # Seed by seed, so that each objective has a figure as soon as may be.
    rows: list[dict[str, Any]] = []
    for seed in range(config.seeds):
        for objective, kind in OBJECTIVES.items():
            has_capacities = "capacity_steps" in kind.__dataclass_fields__
            run = fit(
                TrainConfig(
                    objective=objective,
                    dataset=config.dataset,
                    data_dir=config.data_dir,
                    seed=seed,
                    epochs=config.epochs,
                    capacity_steps=config.capacity_steps if has_capacities else None,
                    workdir=f"{config.runs}/{objective}-{config.epochs}-epochs-{seed}",
                ),
                dataset,
            )
            found = run.evaluation()
            if "judge_accuracy" not in found:
                found = evaluate_run(run, dataset, run.load_state(), judge=marker)
            about = {"objective": objective, "seed": seed, "epochs": config.epochs}
            rows.append({**about, "dataset": dataset.name, **found})
            write_json(output / "table1.json", {"command": sys.argv, "rows": rows})
            report(ReportConfig(output=config.output))
    print((output / "table1.md").read_text(encoding="utf-8"))


def report(config: ReportConfig) -> None:
    output = Path(config.output)
    rows = json.loads((output / "table1.json").read_text(encoding="utf-8"))["rows"]
    with replacing(output / "table1.md") as file:
        file.write(format_table1(rows).encode())


def format_table1(rows: Sequence[dict[str, Any]]) -> str:
    """A line for each objective: mean ± standard deviation over seeds, the paper's in brackets."""
    headers = ["objective", "seeds", *(title for title, _ in COLUMNS.values())]
    lines = [headers, ["---"] * 2 + ["---:"] * len(COLUMNS)]
    for objective in dict.fromkeys(row["objective"] for row in rows):
        own = [row for row in rows if row["objective"] == objective]
        cells = [f"`{objective}`", str(len(own))]
        for name, (_, digits) in COLUMNS.items():
            values = [row[name] for row in own if name in row]
            cell = f"{statistics.mean(values):.{digits}f}" if values else ""
            if len(values) > 1:
                cell += f" ± {statistics.stdev(values):.{digits}f}"
            if name in PAPER.get(objective, {}):
                cell += f" (paper: {PAPER[objective][name]:.{digits}f})"
            cells.append(cell)
        lines.append(cells)
    first = rows[0]
    judge_accuracy = f"{first['judge_accuracy']:.4f}"
    return (
        "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
        + f"\nOn {first['dataset']}, {first['epochs']} epochs, {first['examples']:,} test images. "
        f"The judge reads {judge_accuracy} of their labels. Between training and test images the "
        f"Fréchet distance is {first['frechet_floor']:.2f}; naming the most frequent label reads "
        f"{first['probe_chance']:.4f} of them.\n"
    )


COMMANDS = {"table1": (table1, Table1Config), "report": (report, ReportConfig)}


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        print(f"usage: reproduce.py {{{','.join(COMMANDS)}}} [--help]", file=sys.stderr)
        sys.exit(0 if "--help" in sys.argv else 2)
    main, config_class = COMMANDS[sys.argv[1]]
    cli.run(main, config_class, description="The paper's Table 1.", args=sys.argv[2:])
