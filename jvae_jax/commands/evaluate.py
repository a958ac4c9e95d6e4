"""Evaluates a trained run: python experiments/evaluate.py --workdir=runs/ours-mnist-0"""

from dataclasses import dataclass

import numpy as np

from jvae_jax import cli, data
from jvae_jax.evaluation import classifier, metrics
from jvae_jax.files import replacing
from jvae_jax.training.loop import evaluate_run
from jvae_jax.training.run import load_run
from jvae_jax.validation import option


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    workdir: str = option("the run to evaluate")
    checkpoint: str = option("which one", default="latest", choices=("latest", "best"))
    data_dir: str | None = option(
        "folder of downloads and prepared data; default: the one it was trained from", default=None
    )
    eval_classifier: bool = option(
        "have its characters marked by a classifier, which is trained first where there is none "
        "yet, and see what z and c know of the label",
        default=False,
    )


def run_command(config: EvaluateConfig) -> None:
    run = load_run(config.workdir)
    data_dir = config.data_dir or run.config.data_dir
    dataset = data.load(run.config.dataset, data_dir, image_size=run.config.image_size, say=print)
    state = run.load_state(config.checkpoint)
    suffix = "" if config.checkpoint == "latest" else f"-{config.checkpoint}"
    filename = f"evaluation{suffix}.json"
    print(f"step {int(state.step)} of {run.total_steps}, {len(dataset.test_labels)} test images")
    eval_classifier = None
    if config.eval_classifier:
        # Nothing is written into a folder of the user's own pictures.
        kept_in = data.DATA_DIR if dataset.name == "folder" else data_dir
        eval_classifier = classifier.load(dataset, kept_in)
    found = evaluate_run(run, dataset, state, filename=filename, eval_classifier=eval_classifier)
    print(metrics.format_table(found))
    print(f"written to {run.workdir / filename}")
    if "confusion" in found:
        from jvae_jax import plotting

        path = run.workdir / f"confusion{suffix}.png"
        with replacing(path) as file:
            figure = plotting.confusion(np.array(found["confusion"]), run.data.class_names)
            figure.savefig(file, format="png")
        print(f"what was drawn for what was asked: {path}")


def main() -> None:
    cli.run(run_command, EvaluateConfig, description="Evaluate a run on its whole test split.")
