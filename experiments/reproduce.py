"""The paper's table and figures, and what it leaves out: python experiments/reproduce.py table1

Runs that are finished are skipped, runs that were stopped go on. Each command keeps what it found
as JSON, from which ``report`` makes the tables and figures again.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from paper import configs, pictures, studies
from paper.configs import (
    Figure3Config,
    FixedDimensionsConfig,
    LabelsConfig,
    ReadingsConfig,
    SettingsConfig,
    StudyConfig,
    Table1Config,
)
from paper.report import ReportConfig, report

from jvae_jax import OBJECTIVES, cli
from jvae_jax.data import Dataset
from jvae_jax.evaluation.classifier import EvalClassifier
from jvae_jax.files import write_json
from jvae_jax.training.provenance import environment
from jvae_jax.training.run import Run

LATENTS = (2, 4, 6, 10, 16)
FIXED_OF_10 = (4, 6, 8)
NUM_LABELS: tuple[int | str, ...] = (10, 100, 600, 1000, 3000, "all")
TRAVERSED = (2, 4, 7)
"""Digits that differ in what style can change."""


def table1(config: Table1Config) -> None:
    dataset = config.load()
    eval_classifier = config.eval_classifier(dataset)
    # Seed by seed, so that each objective has a figure as soon as may be.
    for seed in range(config.seeds):
        for objective in OBJECTIVES:
            _, row = config.trained(objective, dataset, eval_classifier, seed)
            _keep_row(config, "table1", row, ("dataset", "objective", "epochs", "seed"))
    print((Path(config.output) / "table1.md").read_text(encoding="utf-8"))


def figure2(config: StudyConfig) -> None:
    dataset = config.load()
    eval_classifier = config.eval_classifier(dataset)
    pairs = [
        config.trained(objective, dataset, eval_classifier) for objective in ("ours", "joint_vae")
    ]
    _keep_grid(config, "figure2", pictures.figure2([run for run, _ in pairs]), pairs)


def figure3(config: Figure3Config) -> None:
    dataset = config.load()
    eval_classifier = config.eval_classifier(dataset)
    pairs = [
        config.trained(objective, dataset, eval_classifier) for objective in ("ours", "joint_vae")
    ]
    _, balanced = config.trained("ours", dataset, eval_classifier, balance_classes=True)
    for row in (*(row for _, row in pairs), {**balanced, "objective": studies.BALANCED}):
        _keep_row(config, "hiragana", row, ("dataset", "objective", "epochs", "seed"))
    grid = pictures.figure3([run for run, _ in pairs], dataset, eval_classifier)
    _keep_grid(config, "figure3", grid, pairs)


def traversals(config: StudyConfig) -> None:
    dataset = config.load()
    run, row = config.trained("ours", dataset, config.eval_classifier(dataset))
    _keep_grid(config, "traversals", pictures.traversals(run, row, TRAVERSED), [(run, row)])


def reconstructions(config: StudyConfig) -> None:
    dataset = config.load()
    eval_classifier = config.eval_classifier(dataset)
    pairs = [config.trained(objective, dataset, eval_classifier) for objective in OBJECTIVES]
    grid = pictures.reconstructions([run for run, _ in pairs], dataset)
    _keep_grid(config, "reconstructions", grid, pairs)


def fixed_dimensions(config: FixedDimensionsConfig) -> None:
    dataset = config.load()
    eval_classifier = config.eval_classifier(dataset)
    for latents, fixed in [(size, 0) for size in LATENTS] + [(10, fixed) for fixed in FIXED_OF_10]:
        sizes = {"latents": latents, "fixed_latents": fixed}
        training = config.training("ours", f"{latents}-latents-{fixed}-fixed", **sizes)
        _, row = studies.trained(training, dataset, eval_classifier, **sizes)
        _keep_row(config, "fixed-dimensions", row, ("dataset", "epochs", *sizes))
    print((Path(config.output) / "fixed-dimensions.md").read_text(encoding="utf-8"))


def readings(config: ReadingsConfig) -> None:
    for objective in ("joint_vae", "ours"):
        for index, (reading, values) in enumerate(studies.READINGS.items()):
            dataset = config.load(values.get("image_size", 32))
            training = config.training(objective, f"{objective}-{index}", **values)
            run, row = studies.trained(training, dataset, None, reading=reading)
            state = run.load_state()
            weights = {reading: state.average}
            if not values:
                weights["the last weights"] = state.variables
            for name, variables in weights.items():
                mse = studies.mse_by_protocol(run, variables, dataset)
                row = {**row, "reading": name, "mse_by_protocol": mse}
                _keep_row(config, "readings", row, ("dataset", "objective", "epochs", "reading"))
    print((Path(config.output) / "readings.md").read_text(encoding="utf-8"))


def attempts(config: SettingsConfig) -> None:
    dataset = config.load()
    _each(config, "attempts", studies.ATTEMPTS, dataset, config.eval_classifier(dataset))


def choices(config: SettingsConfig) -> None:
    _each(config, "choices", studies.CHOICES, studies.validation(config.load()), None)


def labels(config: LabelsConfig) -> None:
    dataset = config.load()
    eval_classifier = config.eval_classifier(dataset)
    identity = ("dataset", "objective", "epochs", "num_labels", "seed")
    draws = [
        (count, seed)
        for count in NUM_LABELS
        for seed in range(config.draws if count == configs.DRAWN_OFTEN else 1)
    ]
    for count, seed in draws:
        row = studies.labels_alone(dataset, count, seed, config.epochs)
        _keep_row(config, "labels", row, identity)
    for objective, values in studies.CHOSEN:
        name = studies.with_flags(objective, values)
        for count, seed in draws:
            folder = f"{name.replace(' --', '-')}-{count}-labels-{seed}"
            training = config.training(objective, folder, seed=seed, num_labels=count, **values)
            _, row = studies.trained(training, dataset, eval_classifier, num_labels=count)
            _keep_row(config, "labels", {**row, "objective": name}, identity)
    print((Path(config.output) / "labels.md").read_text(encoding="utf-8"))


def _each(
    config: SettingsConfig,
    study: str,
    settings: Sequence[tuple[str, dict[str, float]]],
    dataset: Dataset,
    eval_classifier: EvalClassifier | None,
) -> None:
    for seed in range(config.seeds):
        for objective, values in settings:
            name = studies.with_flags(objective, values)
            folder = f"{study}-{name.replace(' --', '-')}-{config.epochs}-epochs-{seed}"
            training = config.training(objective, folder, seed=seed, **values)
            _, row = studies.trained(training, dataset, eval_classifier)
            row = {**row, "objective": name}
            _keep_row(config, study, row, ("dataset", "objective", "epochs", "seed"))
    print((Path(config.output) / f"{study}.md").read_text(encoding="utf-8"))


def _keep_row(config: ReportConfig, name: str, row: studies.Row, identity: tuple[str, ...]) -> None:
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    studies.keep(output / f"{name}.json", row, identity)
    report(config)


def _keep_grid(
    config: ReportConfig, name: str, grid: pictures.Grid, pairs: list[tuple[Run, studies.Row]]
) -> None:
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    common = ("objective", "seed", "epochs", "dataset", "trained_with")
    contents = {
        "command": studies.command(),
        "environment": environment(),
        "runs": [{name: row[name] for name in common} for _, row in pairs],
        "panels": pictures.pack(grid),
    }
    write_json(output / f"{name}.json", contents)
    report(config)
    print(f"{output / name}.png and .pdf")


COMMANDS: dict[str, tuple[Callable[[Any], None], type, str]] = {
    "table1": (table1, Table1Config, "Table 1: six objectives, several seeds."),
    "figure2": (figure2, StudyConfig, "Figure 2: ours and Joint-VAE; rows fix c, columns z."),
    "figure3": (figure3, Figure3Config, "Figure 3: hiragana that look alike."),
    "traversals": (traversals, StudyConfig, "What each dimension of z changes."),
    "reconstructions": (reconstructions, StudyConfig, "Test images as each redraws them."),
    "fixed-dimensions": (
        fixed_dimensions,
        FixedDimensionsConfig,
        "Ours with fewer dimensions of z: a smaller z, or some of it fixed at 0.",
    ),
    "choices": (
        choices,
        SettingsConfig,
        "What helps where few images have a label, told by a sixth of the training images.",
    ),
    "attempts": (
        attempts,
        SettingsConfig,
        "What might have c agree more with labels, where none has one or all have.",
    ),
    "labels": (labels, LabelsConfig, "Ours and the CVAE with few labels."),
    "readings": (readings, ReadingsConfig, "What the paper may have done otherwise."),
    "report": (report, ReportConfig, "Tables and figures again, from the JSON in --output."),
}


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        print(f"usage: reproduce.py {{{','.join(COMMANDS)}}} [--help]", file=sys.stderr)
        sys.exit(0 if "--help" in sys.argv else 2)
    main, config_class, description = COMMANDS[sys.argv[1]]
    cli.run(main, config_class, description=description, args=sys.argv[2:])
