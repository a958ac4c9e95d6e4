"""A page in which to move a style and see every character change, by Gradio.

``explorer(trained)`` is a ``gradio.Blocks``; :func:`show` serves it, or opens it in a notebook.
"""

# pyright: reportMissingImports=false

from functools import cached_property
from pathlib import Path
from typing import Any

import gradio as gr
import jax
import jax.numpy as jnp
import numpy as np
from gradio.themes import Default
from PIL import Image

from jvae_jax import animation
from jvae_jax.app.drawing_pad import CLEAR, drawing_pad, picture_of
from jvae_jax.data import framing
from jvae_jax.export.model_card import data_name
from jvae_jax.generation import characters
from jvae_jax.pretrained import TrainedModel

_RANGE = 3.0
"""Sliders go so many of the prior's standard deviations to both sides."""
_IDLE = 0.01
"""Nats below which a dimension of z holds nothing."""
_WIDTH, _LARGEST = 520, 160
"""Pixels: of a sheet at most, and of a character at most."""
_LARGEST_UPLOAD = "20mb"
_QUIETLY: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last"}
"""How the page follows what a visitor does."""
_CSS = """
.gradio-container {width: 100% !important; max-width: 1000px !important; margin: 0 auto !important}
#sheet img, #redrawn img {width: 100%; height: auto; object-fit: contain; background: white}
"""
_SAVE = """async () => {
    const picture = await fetch(document.querySelector("#sheet img").src);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await picture.blob());
    link.download = "characters.png";
    link.click();
    URL.revokeObjectURL(link.href);
}"""


class _Pen:
    """What the page asks of the model."""

    def __init__(self, trained: TrainedModel) -> None:
        self._model, self._variables = trained.model, trained.variables
        self.names = trained.run.category_names if trained.model.classes else ()

    @cached_property
    def _frame(self) -> framing.Frame:
        return framing.frame_of_characters(self._model, self._variables)

    def sheet(self, chosen: list[int], style: np.ndarray) -> Image.Image:
        """Every chosen character in one style; without classes, the one there is."""
        z = jnp.asarray(style, jnp.float32)[None]
        if not self.names:
            drawn = characters.decode(self._model, self._variables, z)
        else:
            # All are drawn, whichever are shown, so that one compiled program serves all choices.
            labels = jnp.arange(len(self.names))
            z = jnp.repeat(z, len(labels), axis=0)
            drawn = characters.decode(self._model, self._variables, z, labels)[jnp.array(chosen)]
        columns = min(5, len(drawn)) if len(drawn) <= 10 else None
        return _shown(np.asarray(drawn), columns)

    def read(self, picture: Path | bytes) -> tuple[np.ndarray, dict[str, float], Image.Image]:
        """A picture's style, how likely it is which character, and how the model redraws it.

        Args:
            picture: where its file lies, or what that holds.

        Raises:
            ValueError: if it can't be read, or nothing is drawn on it.
        """
        images = framing.framed(picture, self._frame, self._model.image_shape)
        found = characters.encode(self._model, self._variables, images)
        assert found.logits is not None
        shares = np.asarray(jax.nn.softmax(found.logits[0])).tolist()
        redrawn = np.asarray(characters.reconstruct(self._model, self._variables, images))
        pair = np.concatenate([images / 255, redrawn]).astype(np.float32)
        named = dict(zip(self.names, shares, strict=True))
        return np.asarray(found.mean[0]), named, _shown(pair)


def _shown(images: np.ndarray, columns: int | None = None) -> Image.Image:
    return animation.frames(images[None], columns=columns, width=_WIDTH, largest=_LARGEST)[0]


def explorer(trained: TrainedModel) -> gr.Blocks:
    """The page of a trained model: sliders and, where it has classes, paper to draw on."""
    pen = _Pen(trained)
    latents = trained.model.latents
    per_dimension = trained.run.evaluation().get("kl_z_per_latent", [np.inf] * latents)
    order = np.argsort(-np.array(per_dimension), kind="stable").tolist()

    def redraw(chosen: list[int], *values: float) -> Any:
        if pen.names and not chosen:
            return gr.skip()
        style = np.zeros(latents)
        style[order] = values
        return pen.sheet(sorted(chosen), style)

    def random() -> list[float]:
        style = np.random.default_rng().standard_normal(latents)
        return style.clip(-_RANGE, _RANGE).round(2).tolist()

    about = f"{trained.run.config.objective}, {data_name(trained.run)}"
    with gr.Blocks(
        title=about, analytics_enabled=False, fill_width=True, delete_cache=(600, 600)
    ) as page:
        gr.Markdown(f"## Any character in any hand\n{about}")
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                sheet = gr.Image(
                    value=pen.sheet(list(range(len(pen.names))), np.zeros(latents)),
                    show_label=False,
                    format="png",
                    buttons=[],
                    elem_id="sheet",
                )
                with gr.Row():
                    reset = gr.Button("Reset", min_width=90)
                    surprise = gr.Button("Random", variant="primary", min_width=90)
                    save = gr.Button("Save PNG", min_width=90)
                sliders = _sliders(order, per_dimension)
                chosen = _choice(pen.names) if pen.names else gr.State([])
            if pen.names:
                with gr.Column(scale=2, min_width=320):
                    _paper(pen, order, sliders)
        changes: list[Any] = [component.change for component in (chosen, *sliders)]
        gr.on(changes, redraw, [chosen, *sliders], sheet, **_QUIETLY)
        reset.click(lambda: [0.0] * latents, None, sliders, show_progress="hidden")
        surprise.click(random, None, sliders, show_progress="hidden")
        save.click(None, js=_SAVE)
    return page


def _paper(pen: _Pen, order: list[int], sliders: list[gr.Slider]) -> None:
    """Where to draw a character or upload one, what is read of it, and sliders set to its style."""
    gr.Markdown("Draw a character, and all take its hand:")
    pad = drawing_pad()
    with gr.Row():
        clear = gr.Button("Clear", min_width=90)
        upload = gr.UploadButton("Upload", file_types=["image"], min_width=90)
    trouble = gr.Markdown(visible=False, elem_id="trouble")
    label = gr.Label(num_top_classes=3, label="Read as", visible=False, elem_id="read")
    with gr.Column(visible=False) as seen:
        gr.Markdown("As the model sees it, and redraws it:")
        redrawn = gr.Image(show_label=False, format="png", buttons=[], elem_id="redrawn")

    def read(picture: Path | bytes) -> list[Any]:
        hidden = gr.update(visible=False)
        try:
            style, shares, pair = pen.read(picture)
        except ValueError as error:
            said = gr.update(value=f"Nothing to read: {error}.", visible=True)
            return [said, hidden, hidden, None, *[gr.skip()] * len(sliders)]
        return [
            hidden,
            gr.update(value=shares, visible=True),
            gr.update(visible=True),
            pair,
            *style[order].astype(float).clip(-_RANGE, _RANGE).round(2).tolist(),
        ]

    def read_drawing(event: gr.EventData) -> list[Any]:
        return read(picture_of(event))

    def read_upload(path: str) -> list[Any]:
        return read(Path(path))

    found = [trouble, label, seen, redrawn, *sliders]
    pad.input(read_drawing, None, found, **_QUIETLY)
    upload.upload(read_upload, upload, found, **_QUIETLY)
    clear.click(None, js=CLEAR)


def _sliders(order: list[int], per_dimension: list[float]) -> list[gr.Slider]:
    """One for each dimension of z, by falling KL; those that hold nothing out of the way."""

    def slider(dimension: int) -> gr.Slider:
        nats = per_dimension[dimension]
        label = f"z{dimension}" + (f" ({nats:.2f} nats)" if np.isfinite(nats) else "")
        name = f"z{dimension}"
        return gr.Slider(-_RANGE, _RANGE, 0.0, step=0.01, label=label, elem_id=name)

    busy = [dimension for dimension in order if per_dimension[dimension] >= _IDLE] or order
    idle = order[len(busy) :]
    sliders = [slider(dimension) for dimension in busy]
    if idle:
        with gr.Accordion(f"{len(idle)} dimensions that hold nothing", open=False):
            sliders += [slider(dimension) for dimension in idle]
    return sliders


def _choice(names: tuple[str, ...]) -> gr.CheckboxGroup:
    with gr.Accordion("Which characters", open=False):
        return gr.CheckboxGroup(
            choices=[(name, index) for index, name in enumerate(names)],
            value=list(range(len(names))),
            show_label=False,
            show_select_all=True,
            elem_id="chosen",
        )


def show(
    page: gr.Blocks, *, host: str = "127.0.0.1", port: int | None = None, wait: bool = False
) -> str:
    """Serves the page; in a notebook, inline.

    Args:
        page: of :func:`explorer`.
        host: the address to listen at. Only this computer reaches the default one.
        port: where; None takes the first free one from 7860.
        wait: not to return before it is interrupted, except in a notebook.

    Returns:
        Its address.

    Raises:
        OSError: if the port isn't free.
    """
    # Fonts of the system's own, so that nothing is fetched from elsewhere.
    theme = Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            share=False,
            prevent_thread_lock=True,
            max_file_size=_LARGEST_UPLOAD,
            theme=theme,
            css=_CSS,
            footer_links=[],
            quiet=True,
            ssr_mode=False,
        )
    except OSError as error:
        wanted = "no port from 7860 is" if port is None else f"port {port} isn't"
        raise OSError(f"{wanted} free at {host}; choose another one") from error
    print(f"the page is at {address}", flush=True)
    if wait:
        page.block_thread()
    return address
