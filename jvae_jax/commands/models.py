"""``jvae models``: lists the packaged models."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from jvae_jax import cli
from jvae_jax.data import LICENSES
from jvae_jax.evaluation import format_table
from jvae_jax.pretrained import NOTES, packaged_models
from jvae_jax.training.run import load_run

_METRICS = ("mse", "kl_z", "accuracy", "conditional_accuracy", "frechet_distance")


@dataclass(frozen=True)
class _NoFlags:
    pass


def run_command(_flags: _NoFlags) -> None:
    """Prints the packaged models."""
    print("\n\n".join(_describe(name, folder) for name, folder in packaged_models().items()))


def _describe(name: str, folder: Path) -> str:
    """Returns lines about a packaged model: its training data, files and metrics."""
    run = load_run(folder)
    data, evaluation = run.data, run.evaluation()
    size = sum(path.stat().st_size for path in folder.iterdir())
    return "\n".join(
        [
            f"{name}: {run.config.objective.name}, {size / 1e6:.1f} MB in {folder}",
            f"training data: {run.data_name}, {data.train_examples:,} images of "
            f"{len(data.class_names)} classes ({', '.join(data.class_names)})",
            f"license of {run.data_name}: {LICENSES.get(run.config.dataset, 'not stated')}",
            *([NOTES[name]] if name in NOTES else []),
            format_table({key: evaluation[key] for key in _METRICS if key in evaluation}),
        ]
    )


def main(args: Sequence[str] | None = None, prog: str | None = None) -> NoReturn:
    """Runs the command."""
    description = "List the packaged models."
    cli.run(run_command, _NoFlags, description=description, args=args, prog=prog)
