"""``jvae train``: trains an objective, or resumes its training, and evaluates it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from simple_parsing import subgroups

from jvae_jax import cli, data
from jvae_jax.evaluation import format_table
from jvae_jax.objectives import OBJECTIVES, PRESETS, Objective, Ours
from jvae_jax.training import distributed
from jvae_jax.training.config import TrainConfig
from jvae_jax.training.loop import fit
from jvae_jax.training.run import dataset_name


@dataclass(frozen=True, kw_only=True)
class TrainFlags(TrainConfig):
    """Defaults are the paper's values, where it gives them."""

    objective: Objective = subgroups(OBJECTIVES, default=Ours.name)  # type: ignore
    """Training objective; its hyperparameters, listed below, are flags too."""


def run_command(config: TrainConfig) -> None:
    """Loads the data, trains and prints the evaluation."""
    distributed.connect(config.coordinator, config.num_processes, config.process_id)
    if not distributed.is_first():
        logging.getLogger("jvae_jax").setLevel(logging.ERROR)
    with distributed.fail_together():
        dataset = data.load(
            dataset_name(config),
            config.data_dir,
            image_size=config.image_size,
            binarize=config.binarize,
        )
    run = fit(config, dataset)
    if distributed.is_first():
        print(format_table(run.evaluation()))


def main(args: Sequence[str] | None = None, prog: str | None = None) -> NoReturn:
    """Runs the command."""
    description = "Train an objective, or resume its training, and evaluate it."
    presets = {name: objective.flags() for name, objective in PRESETS.items()}
    cli.run(run_command, TrainFlags, description=description, args=args, prog=prog, presets=presets)
