"""``jvae generate``: generates characters of any class in any style."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, NoReturn

import jax
import numpy as np
from simple_parsing import choice

from jvae_jax import animation, cli, plotting
from jvae_jax.commands._hand_flags import check_one_style
from jvae_jax.commands._model_flags import DEFAULT_MODEL, ModelFlags, load_selected_run
from jvae_jax.files import atomic_write
from jvae_jax.handwriting.hand import load_hand
from jvae_jax.style_controls import FACTORS, UNITS
from jvae_jax.trained_model import TrainedModel
from jvae_jax.training.run import Run
from jvae_jax.validation import require

logger = logging.getLogger(__name__)

_MAX_COLUMNS = 20
"""Maximum number of classes in one row; longer rows are wrapped into rows of ten."""
_INTERPOLATED_STYLES = 3
"""Styles sampled from the prior to interpolate between."""
_FRAME_MILLISECONDS = 80


@dataclass(frozen=True, kw_only=True)
class GenerateFlags(ModelFlags):
    """Generation flags."""

    labels: str | None = None
    """Comma-separated classes: the rows, or the columns if styles are given. By default all."""
    samples: int = 10
    """Number of columns: sampled styles, shared by all rows, or steps of an interpolation or
    sweep."""
    seed: int = 0
    """Random seed of sampled styles."""
    style_image: str | None = None
    """Comma-separated image files of any character; each row uses the style of one image."""
    style_index: str | None = None
    """Comma-separated indices of test images, from 0; each row uses the style of one image."""
    hand: str | None = None
    """Comma-separated files of hands, as `jvae hand` saves them; each row uses the style of one."""
    slant: float | None = None
    """Slant of all characters, in degrees; above 0 to the right."""
    thickness: float | None = None
    """Thickness of their strokes, in pixels."""
    width: float | None = None
    """Width of the box around their ink after removing the slant, in pixels."""
    height: float | None = None
    """Height of that box, in pixels."""
    sweep: Literal["slant", "thickness", "width", "height"] | None = choice(
        "slant", "thickness", "width", "height", default=None
    )
    """Vary the slant, thickness, width or height over its range, and hold the rest of the style."""
    interpolate: Literal["styles", "labels"] | None = choice("styles", "labels", default=None)
    """Interpolate from style to style, or within each style from label to label."""
    data_dir: str | None = None
    """Folder of the data, for --style_index and to fit the style controls. By default the one used
    for training."""
    output: str = "samples.png"
    """Image to write; its suffix selects the format. With --interpolate or --sweep, a .gif is
    animated."""
    checkpoint: Literal["latest", "best"] = "latest"
    """Checkpoint to use; best has the lowest negative ELBO on the test split."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in FACTORS:
            require(self, name, lambda _: True, "a number")
        require(self, "seed", lambda seed: 0 <= seed < 2**32, "from 0 to 4,294,967,295")
        varied = "interpolate" if self.interpolate else "sweep" if self.sweep else None
        if self.samples < 1 + (varied is not None):
            least = f"2 or more to {varied}" if varied else "1 or more"
            raise ValueError(f"samples must be {least}, got {self.samples}")
        if self.interpolate is not None and (self.sweep or self.factors):
            name = "sweep" if self.sweep else next(iter(self.factors))
            raise ValueError(f"{name} has no effect with --interpolate; leave one of them out")
        if self.sweep in self.factors:
            raise ValueError(f"{self.sweep} is both given and swept; leave one of them out")
        check_one_style(self)
        if self.is_animated and varied is None:
            raise ValueError(
                f"an animation needs --interpolate or --sweep, got the output {self.output}"
            )
        plotting.figure_format(self.output)
        if (self.style_image, self.style_index, self.hand) != (None, None, None):
            for name in ("seed", *(["samples"] if varied is None else [])):
                if getattr(self, name) != getattr(type(self), name):
                    raise ValueError(f"{name} has no effect on styles that are given; leave it out")
        if invalid := [index for index in _split(self.style_index) if not index.isdecimal()]:
            raise ValueError(f"style_index must be numbers from 0, got {invalid[0]!r}")

    @property
    def factors(self) -> dict[str, float]:
        """Requested factors of the style."""
        values = {name: getattr(self, name) for name in FACTORS}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def is_animated(self) -> bool:
        """Whether the output is a GIF."""
        return Path(self.output).suffix.lower() == ".gif"


def _split(text: str | None) -> list[str]:
    return [part.strip() for part in text.split(",")] if text is not None else []


def run_command(flags: GenerateFlags) -> None:
    """Generates characters and writes them to the output."""
    output = Path(flags.output).expanduser()
    with atomic_write(output) as file:  # before the work, which an unwritable output would waste
        rows, columns = _generate(flags, file)
    print(f"{rows} x {columns} characters in {output}")


def _generate(flags: GenerateFlags, file: BinaryIO) -> tuple[int, int]:
    """Writes the image to a file; returns its number of rows and columns."""
    run = load_selected_run(flags, default=DEFAULT_MODEL)
    model = run.load_model(flags.checkpoint)
    if flags.labels is None:
        names = list(model.category_names)
    else:
        names = _split(cli.decode_argument(flags.labels))
        model.label_indices(names)
    images = _style_images(flags, run, model)
    given_styles = _given_styles(flags, model, images)
    if flags.factors or flags.sweep:
        model = _with_style_controls(flags, run, model)
    key = jax.random.key(flags.seed)
    row_names: list[str] = []
    if flags.interpolate is not None:
        styles = given_styles
        if styles is None:
            shape = (_INTERPOLATED_STYLES, model.network.latents)
            styles = np.asarray(jax.random.normal(key, shape))
        generated = _interpolations(flags, model, styles, names)
        row_names = names if flags.interpolate == "styles" else []
    elif flags.sweep is not None:
        generated, row_names = _sweep(flags, model, given_styles, names)
    elif given_styles is not None:
        generated = _restyled(model, given_styles, names, flags.factors)
    else:
        grid = model.sample(names or None, key=key, columns=flags.samples, rows=1, **flags.factors)
        generated, row_names = np.asarray(grid), names
    if flags.is_animated:
        first, *others = animation.animation_frames(generated.swapaxes(0, 1))
        first.save(
            file,
            format="gif",
            save_all=True,
            append_images=others,
            duration=_FRAME_MILLISECONDS,
            loop=0,
        )
    else:
        if row_names and (hint := plotting.font_hint(row_names)):
            logger.warning("%s", hint)
        is_varied = flags.interpolate is not None or flags.sweep is not None
        figure = _figure(generated, row_names, None if is_varied else images)
        figure.savefig(file, format=plotting.figure_format(flags.output))
    return generated.shape[:2]


def _style_images(flags: GenerateFlags, run: Run, model: TrainedModel) -> np.ndarray | None:
    """Returns the images whose styles to use, uint8, or None to sample styles."""
    if flags.style_image is not None:
        return np.concatenate([_load_image(model, path) for path in _split(flags.style_image)])
    if flags.style_index is None:
        return None
    dataset = run.load_dataset(flags.data_dir)
    run.check_data(dataset)
    indices = [int(index) for index in _split(flags.style_index)]
    last = len(dataset.test_images) - 1
    if max(indices) > last:
        raise ValueError(f"style_index must be 0 to {last}, got {max(indices)}")
    return dataset.test_images[indices]


def _given_styles(
    flags: GenerateFlags, model: TrainedModel, images: np.ndarray | None
) -> np.ndarray | None:
    """Returns the styles of the images or hands, (styles, latents), or None to sample styles."""
    if images is not None:
        return np.asarray(model.encode(images).mean)
    if flags.hand is None:
        return None
    paths = [Path(path).expanduser() for path in _split(flags.hand)]
    return np.stack([load_hand(path, model).z for path in paths])


def _load_image(model: TrainedModel, path: str) -> np.ndarray:
    try:
        return model.load_image(Path(path).expanduser())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _with_style_controls(flags: GenerateFlags, run: Run, model: TrainedModel) -> TrainedModel:
    """Returns the model with style controls.

    If it has none, they are fitted, and saved unless the model is packaged or downloaded.
    """
    if model.has_classes and model.style_controls is None:
        once = "" if flags.is_read_only else ", once"
        logger.info("fitting the style controls to the training data%s", once)
        try:
            dataset = run.load_dataset(flags.data_dir)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{run.workdir} has no style controls yet, and the training data, to which they "
                f"are fitted, can't be loaded: {error}"
            ) from error
        model = run.fit_style_controls(model, dataset, save=not flags.is_read_only)
    model.controls_of(*flags.factors, *([flags.sweep] if flags.sweep else []))
    return model


def _sweep(
    flags: GenerateFlags, model: TrainedModel, styles: np.ndarray | None, names: list[str]
) -> tuple[np.ndarray, list[str]]:
    """Varies a factor over its range: a row for each style and class, and the names of rows."""
    factor = flags.sweep or ""
    controls, column = model.controls_of(factor), FACTORS.index(factor)
    if styles is None:
        shape = (1, model.network.latents)
        styles = np.asarray(jax.random.normal(jax.random.key(flags.seed), shape))
    rows, row_names = [], []
    for style in styles:
        for name, index in zip(names, model.label_indices(names), strict=True):
            rows.append(model.sweep(factor, style, name, steps=flags.samples, **flags.factors))
            low, high = controls.lowest[index, column], controls.highest[index, column]
            row_names.append(f"{name}: {factor} {low:.1f} to {high:.1f} {UNITS[column]}")
    generated = np.stack(rows)
    if flags.is_animated:  # back to its beginning
        generated = np.concatenate([generated, generated[:, -2:0:-1]], axis=1)
    return generated, row_names


def _restyled(
    model: TrainedModel, styles: np.ndarray, names: list[str], factors: dict[str, float]
) -> np.ndarray:
    """Returns the characters in each style, one row each; one long row is wrapped."""
    repeated, labels = styles.repeat(len(names), axis=0), names * len(styles)
    if factors:
        repeated = model.adjust_style(repeated, labels, **factors)
    shape = len(styles), len(names), *model.network.image_shape
    generated = np.asarray(model.decode(repeated, labels)).reshape(shape)
    if len(styles) > 1 or len(names) <= _MAX_COLUMNS:
        return generated
    blank = np.zeros((1, -len(names) % 10, *generated.shape[2:]), generated.dtype)
    return np.concatenate([generated, blank], axis=1).reshape(-1, 10, *generated.shape[2:])


def _interpolations(
    flags: GenerateFlags, model: TrainedModel, styles: np.ndarray, names: list[str]
) -> np.ndarray:
    """Interpolates between styles, one row per class, or between classes, one row per style."""
    paths: list[tuple[np.ndarray, list[str] | None]]
    if flags.interpolate == "labels":
        if len(names) < 2:
            raise ValueError(f"interpolating labels needs two --labels or more, got {len(names)}")
        paths = [(style[None].repeat(len(names), axis=0), names) for style in styles]
    else:
        if len(styles) < 2:
            raise ValueError(f"interpolating styles needs two or more, got {len(styles)}")
        paths = [(styles, [name] * len(styles)) for name in names] or [(styles, None)]
    rows = []
    for z, labels in paths:
        # An animation returns to its beginning; the last frame, equal to the first, is dropped.
        waypoints = [*range(len(z)), *([0] if flags.is_animated else [])]
        steps = (len(waypoints) - 1) * (flags.samples - 1) + 1
        waypoint_labels = None if labels is None else [labels[index] for index in waypoints]
        images = model.interpolate(z[waypoints], waypoint_labels, steps=steps)
        rows.append(np.asarray(images)[: steps - flags.is_animated])
    return np.stack(rows)


def _figure(
    generated: np.ndarray, row_names: list[str], styles: np.ndarray | None
) -> plotting.Figure:
    """Plots the grid, with the style images on its left if given."""
    if styles is None:
        return plotting.image_grid(generated, row_names)
    left = np.zeros((len(generated), 1, *generated.shape[2:]), generated.dtype)
    left[: len(styles), 0] = styles / 255
    return plotting.panel_grid(
        [
            [
                plotting.Panel(images=left, title="style"),
                plotting.Panel(images=generated, title="generated"),
            ]
        ]
    )


def main(args: Sequence[str] | None = None, prog: str | None = None) -> NoReturn:
    """Runs the command."""
    description = "Generate any character in any style: rows fix c, columns fix z."
    cli.run(run_command, GenerateFlags, description=description, args=args, prog=prog)
