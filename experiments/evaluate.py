"""Evaluates a trained run: python experiments/evaluate.py --workdir=runs/ours-mnist-0"""

from dataclasses import dataclass

from jvae_jax import cli, data, evaluation, runs
from jvae_jax.config import option
from jvae_jax.fitting import evaluate_run


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    workdir: str = option("the run to evaluate")
    checkpoint: str = option("which one", default="latest", choices=("latest", "best"))
    data_dir: str | None = option(
        "folder of downloads and prepared data; default: the one it was trained from", default=None
    )


def main(config: EvaluateConfig) -> None:
    run = runs.load(config.workdir)
    dataset = data.load(
        run.config.dataset,
        config.data_dir or run.config.data_dir,
        image_size=run.config.image_size,
        say=print,
    )
    state = run.load_state(config.checkpoint)
    suffix = "" if config.checkpoint == "latest" else f"-{config.checkpoint}"
    filename = f"evaluation{suffix}.json"
    print(f"step {int(state.step)} of {run.total_steps}, {len(dataset.test_labels)} test images")
    print(evaluation.format_table(evaluate_run(run, dataset, state, filename=filename)))
    print(f"written to {run.workdir / filename}")


if __name__ == "__main__":
    cli.run(main, EvaluateConfig, description="Evaluate a run on its whole test split.")
