"""Draws characters: python experiments/generate.py --workdir=runs/ours-mnist-0 --labels=3,1,4"""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jvae_jax import cli, figures, generation, runs
from jvae_jax.files import replacing
from jvae_jax.options import option


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    workdir: str = option("the run that draws")
    labels: str | None = option(
        "which characters, separated by commas, a row each; default: every class", default=None
    )
    samples: int = option("columns: styles that all rows share", default=10)
    seed: int = option("draws the styles", default=0)
    output: str = option(
        "the picture to write; its ending says which format", default="samples.png"
    )
    checkpoint: str = option("which one", default="latest", choices=("latest", "best"))

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples must be 1 or more, got {self.samples}")


def chosen_categories(run: runs.Run, labels: str | None) -> list[int] | None:
    """The rows to draw, by number; None for a model without classes."""
    if run.model.classes == 0:
        if labels is not None:
            raise ValueError(f"{run.config.objective} has no classes: leave --labels out")
        return None
    names = run.category_names
    if labels is None:
        return list(range(len(names)))
    asked = [label.strip() for label in labels.split(",")]
    unknown = [label for label in asked if label not in names]
    if unknown:
        raise ValueError(f"no label {', '.join(unknown)} here; there are {', '.join(names)}")
    return [names.index(label) for label in asked]


def main(config: GenerateConfig) -> None:
    run = runs.load(config.workdir)
    categories = chosen_categories(run, config.labels)
    images = generation.sample(
        run.model,
        run.load_state(config.checkpoint).average,
        jax.random.key(config.seed),
        labels=None if categories is None else jnp.array(categories),
        columns=config.samples,
    )
    names = None if categories is None else [run.category_names[row] for row in categories]
    if names is not None and (hint := figures.font_hint(names)):
        print(hint)
    output = Path(config.output)
    with replacing(output) as file:
        figures.sheet(np.asarray(images), names).savefig(file, format=output.suffix[1:] or "png")
    print(f"{images.shape[0]} x {images.shape[1]} characters in {output}")


if __name__ == "__main__":
    cli.run(
        main, GenerateConfig, description="Draw any character in any style: rows fix c, columns z."
    )
