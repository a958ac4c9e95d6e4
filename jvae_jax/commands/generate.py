"""Draws characters: python experiments/generate.py --workdir=runs/ours-mnist-0 --labels=3,1,4"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from jvae_jax import animation, cli, data, plotting
from jvae_jax.data import framing
from jvae_jax.files import replacing
from jvae_jax.generation import characters
from jvae_jax.pretrained import TrainedModel, load
from jvae_jax.training.run import Run
from jvae_jax.validation import option

WRAPPED = 20
"""More characters than this in one hand stand in rows of ten."""
STYLES = 3
"""So many are drawn from the prior to go between."""
MILLISECONDS = 80
"""Of a frame."""


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    workdir: str = option("the run that draws, or the folder of an exported model")
    labels: str | None = option(
        "which characters, separated by commas, a row each; default: every class", default=None
    )
    samples: int = option(
        "columns: styles that all rows share, or steps from one to the next", default=10
    )
    seed: int = option("draws the styles", default=0)
    style_image: str | None = option(
        "pictures of any character, separated by commas, in whose hand to draw, a row each",
        default=None,
    )
    style_index: str | None = option("the same of test images, by number from 0", default=None)
    interpolate: str | None = option(
        "go from style to style, or in each style from label to label",
        default=None,
        choices=("styles", "labels"),
    )
    data_dir: str | None = option(
        "folder of the data, for --style_index; default: the one it was trained from", default=None
    )
    output: str = option(
        "the picture to write; its ending says which format; what is interpolated moves in a .gif",
        default="samples.png",
    )
    checkpoint: str = option("which one", default="latest", choices=("latest", "best"))

    def __post_init__(self) -> None:
        if self.samples < 1 + (self.interpolate is not None):
            least = "2 or more to interpolate" if self.interpolate else "1 or more"
            raise ValueError(f"samples must be {least}, got {self.samples}")
        if self.style_image is not None and self.style_index is not None:
            raise ValueError("style_image and style_index both say in whose hand; give one of them")
        if self.moves and self.interpolate is None:
            raise ValueError(f"{self.output} is to move, which takes --interpolate")
        if unfit := [index for index in _parts(self.style_index) if not index.isdecimal()]:
            raise ValueError(f"style_index must be numbers from 0, got {unfit[0]!r}")

    @property
    def moves(self) -> bool:
        return Path(self.output).suffix == ".gif"


def _parts(text: str | None) -> list[str]:
    return [part.strip() for part in text.split(",")] if text is not None else []


def chosen_categories(run: Run, labels: str | None) -> list[int] | None:
    """The characters to draw, by number; None for a model without classes."""
    if run.model.classes == 0:
        if labels is not None:
            raise ValueError(f"{run.config.objective} has no classes: leave --labels out")
        return None
    names = run.category_names
    if labels is None:
        return list(range(len(names)))
    unknown = [label for label in _parts(labels) if label not in names]
    if unknown:
        raise ValueError(f"no label {', '.join(unknown)} here; there are {', '.join(names)}")
    return [names.index(label) for label in _parts(labels)]


def style_images(config: GenerateConfig, trained: TrainedModel) -> np.ndarray | None:
    """The images in whose hand to draw, as the training data are; None to draw styles."""
    if config.style_image is not None:
        frame = framing.frame_of_characters(trained.model, trained.variables)
        return np.concatenate(
            [_framed(path, frame, trained) for path in _parts(config.style_image)]
        )
    if config.style_index is None:
        return None
    settings = trained.run.config
    directory = config.data_dir or settings.data_dir
    dataset = data.load(settings.dataset, directory, image_size=settings.image_size, say=print)
    trained.run.check_data(dataset)
    indices = [int(index) for index in _parts(config.style_index)]
    last = len(dataset.test_images) - 1
    if max(indices) > last:
        raise ValueError(f"there is no test image {max(indices)}; they are 0 to {last}")
    return dataset.test_images[indices]


def _framed(path: str, frame: framing.Frame, trained: TrainedModel) -> np.ndarray:
    try:
        return framing.framed(Path(path).expanduser(), frame, trained.model.image_shape)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def in_their_hand(
    trained: TrainedModel, images: np.ndarray, categories: list[int] | None
) -> np.ndarray:
    """Characters in the hand of each image, a row each; many in one hand take several."""
    if categories is None:
        raise ValueError(f"{trained.run.config.objective} has no classes, so none to restyle into")
    labels = jnp.array(categories)
    drawn = np.asarray(characters.restyle(trained.model, trained.variables, images, labels))
    if len(images) > 1 or len(categories) <= WRAPPED:
        return drawn
    blank = np.zeros((1, -len(categories) % 10, *drawn.shape[2:]), drawn.dtype)
    return np.concatenate([drawn, blank], axis=1).reshape(-1, 10, *drawn.shape[2:])


def between(
    config: GenerateConfig, trained: TrainedModel, styles: np.ndarray, categories: list[int] | None
) -> np.ndarray:
    """Rows of characters that go from style to style, or in one style from label to label."""
    ways: Sequence[tuple[Sequence[np.ndarray], Sequence[int] | None]]
    if config.interpolate == "labels":
        if categories is None or len(categories) < 2:
            raise ValueError("to go from label to label takes two --labels or more")
        ways = [([style] * len(categories), categories) for style in styles]
    else:
        if len(styles) < 2:
            raise ValueError(f"to go from style to style takes two or more, got {len(styles)}")
        if categories is None:
            ways = [(list(styles), None)]
        else:
            ways = [(list(styles), [category] * len(styles)) for category in categories]
    drawn = []
    for z, labels in ways:
        # What moves comes back to where it began.
        stations = [*range(len(z)), *([0] if config.moves else [])]
        steps = (len(stations) - 1) * (config.samples - 1) + 1
        images = characters.interpolate(
            trained.model,
            trained.variables,
            jnp.stack(z)[jnp.array(stations)],
            None if labels is None else jnp.array(labels)[jnp.array(stations)],
            steps=steps,
        )
        # A frame that is the first one again would make it halt there.
        drawn.append(np.asarray(images)[: steps - config.moves])
    return np.stack(drawn)


def run_command(config: GenerateConfig) -> None:
    trained = load(config.workdir, checkpoint=config.checkpoint)
    model, variables = trained.model, trained.variables
    categories = chosen_categories(trained.run, config.labels)
    names = None if categories is None else [trained.run.category_names[c] for c in categories]
    images = style_images(config, trained)
    key = jax.random.key(config.seed)
    if config.interpolate is not None:
        if images is None:
            styles = np.asarray(jax.random.normal(key, (STYLES, model.latents)))
        else:
            styles = np.asarray(characters.encode(model, variables, images).mean)
        drawn = between(config, trained, styles, categories)
        names = names if config.interpolate == "styles" else None
    elif images is not None:
        drawn, names = in_their_hand(trained, images, categories), None
    else:
        labels = None if categories is None else jnp.array(categories)
        drawn = characters.sample(model, variables, key, labels=labels, columns=config.samples)
        drawn = np.asarray(drawn)
    output = Path(config.output)
    with replacing(output) as file:
        if config.moves:
            first, *others = animation.frames(drawn.swapaxes(0, 1))
            first.save(
                file,
                format="gif",
                save_all=True,
                append_images=others,
                duration=MILLISECONDS,
                loop=0,
            )
        else:
            if names is not None and (hint := plotting.font_hint(names)):
                print(hint)
            figure = _figure(drawn, names, images if config.interpolate is None else None)
            figure.savefig(file, format=output.suffix[1:] or "png")
    print(f"{drawn.shape[0]} x {drawn.shape[1]} characters in {output}")


def _figure(drawn: np.ndarray, names: list[str] | None, styles: np.ndarray | None) -> Figure:
    """A sheet, with the style images at its left if there are any."""
    if styles is None:
        return plotting.sheet(drawn, names)
    left = np.zeros((len(drawn), 1, *drawn.shape[2:]), drawn.dtype)
    left[: len(styles), 0] = styles / 255
    return plotting.panels(
        [[plotting.Panel(images=left, title="style"), plotting.Panel(images=drawn, title="in it")]]
    )


def main() -> None:
    cli.run(
        run_command,
        GenerateConfig,
        description="Draw any character in any style: rows fix c, columns z.",
    )
