"""The page: sliders move the style of every class, and a drawing or a photo sets it."""

# pyright: reportMissingImports=false

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import jax
import jax.numpy as jnp
import numpy as np
from gradio.themes import Default
from PIL import Image

from jvae_jax.animation import animation_frames
from jvae_jax.app.drawing_pad import CLEAR, drawing_pad, drawn_image
from jvae_jax.trained_model import TrainedModel

logger = logging.getLogger(__name__)

_MAX_Z = 3.0
"""Range of the sliders on both sides of 0, in standard deviations of the prior."""
_MIN_KL = 0.01
"""KL divergence, in nats, below which a dimension of z is unused."""
_MAX_WIDTH, _MAX_CELL_WIDTH = 520, 160
"""Maximum width of a grid and of a character, in pixels."""
_MAX_UPLOAD = "20mb"
_LIVE: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last"}
"""Options of continuous events: of those that arrive during an update, only the last is handled."""
_CSS = """
.gradio-container {width: 100% !important; max-width: 1000px !important; margin: 0 auto !important}
#sheet img, #redrawn img {width: 100%; height: auto; object-fit: contain; background: white}
"""
_SAVE = """async () => {
    const response = await fetch(document.querySelector("#sheet img").src);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await response.blob());
    link.download = "characters.png";
    link.click();
    URL.revokeObjectURL(link.href);
}"""


def explorer(model: TrainedModel) -> gr.Blocks:
    """Builds the page: sliders for z and, if the model has classes, a pad to draw on."""
    latents = model.network.latents
    kl_per_latent = model.metrics.get("kl_z_per_latent", [np.inf] * latents)
    order = np.argsort(-np.array(kl_per_latent), kind="stable").tolist()

    def update_grid(selected: list[int], *values: float) -> Any:
        if model.has_classes and not selected:
            return gr.skip()
        z = np.zeros(latents)
        z[order] = values
        return _generate(model, z, sorted(selected))

    def sample_style() -> list[float]:
        return _slider_values(np.random.default_rng().standard_normal(latents))

    with gr.Blocks(
        title=model.name, analytics_enabled=False, fill_width=True, delete_cache=(600, 600)
    ) as page:
        gr.Markdown(f"## Any character in any style\n{model.name}")
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                grid = gr.Image(
                    value=_generate(model, np.zeros(latents), range(len(model.category_names))),
                    show_label=False,
                    format="png",
                    buttons=[],
                    elem_id="sheet",
                )
                with gr.Row():
                    reset = gr.Button("Reset", min_width=90)
                    random = gr.Button("Random", variant="primary", min_width=90)
                    save = gr.Button("Save PNG", min_width=90)
                sliders = _sliders(order, kl_per_latent)
                selected = _class_selection(model) if model.has_classes else gr.State([])
            if model.has_classes:
                with gr.Column(scale=2, min_width=320):
                    _style_input(model, order, sliders)
        changes: list[Any] = [component.change for component in (selected, *sliders)]
        gr.on(changes, update_grid, [selected, *sliders], grid, **_LIVE)
        reset.click(lambda: [0.0] * latents, None, sliders, show_progress="hidden")
        random.click(sample_style, None, sliders, show_progress="hidden")
        save.click(None, js=_SAVE)
    return page


def _generate(model: TrainedModel, z: np.ndarray, selected: Sequence[int]) -> Image.Image:
    """Generates the selected classes in one style; one character if the model has no classes."""
    styles = jnp.asarray(z, jnp.float32)[None]
    if model.has_classes:
        # All classes are generated, so that one compiled program serves every selection.
        classes = np.arange(model.network.classes)
        images = np.asarray(model.decode(styles.repeat(len(classes), axis=0), classes))
        images = images[list(selected)]
    else:
        images = np.asarray(model.decode(styles))
    return _tile(images, columns=min(5, len(images)) if len(images) <= 10 else None)


def _tile(images: np.ndarray, columns: int | None = None) -> Image.Image:
    (frame,) = animation_frames(
        images[None], columns=columns, max_width=_MAX_WIDTH, max_cell_width=_MAX_CELL_WIDTH
    )
    return frame


def _slider_values(z: np.ndarray) -> list[float]:
    return z.astype(float).clip(-_MAX_Z, _MAX_Z).round(2).tolist()


def _style_input(model: TrainedModel, order: list[int], sliders: list[gr.Slider]) -> None:
    """Adds a pad and an upload whose style the sliders take, with prediction and reconstruction."""
    gr.Markdown("Draw a character or upload an image; its style is applied to all classes.")
    pad = drawing_pad()
    with gr.Row():
        clear = gr.Button("Clear", min_width=90)
        upload = gr.UploadButton("Upload", file_types=["image"], min_width=90)
    message = gr.Markdown(visible=False, elem_id="trouble")
    prediction = gr.Label(num_top_classes=3, label="Predicted class", visible=False, elem_id="read")
    with gr.Column(visible=False) as results:
        gr.Markdown("Input and reconstruction:")
        reconstruction = gr.Image(show_label=False, format="png", buttons=[], elem_id="redrawn")

    def encode(file: Path | bytes) -> list[Any]:
        hidden = gr.update(visible=False)
        try:
            images = model.load_image(file)
        except ValueError as error:
            explanation = gr.update(value=f"This image can't be encoded ({error}).", visible=True)
            return [explanation, hidden, hidden, None, *[gr.skip()] * len(sliders)]
        posterior = model.encode(images)
        assert posterior.logits is not None
        probabilities = np.asarray(jax.nn.softmax(posterior.logits[0])).tolist()
        pair = np.concatenate([images / np.float32(255), np.asarray(model.reconstruct(images))])
        return [
            hidden,
            gr.update(
                value=dict(zip(model.category_names, probabilities, strict=True)), visible=True
            ),
            gr.update(visible=True),
            _tile(pair),
            *_slider_values(np.asarray(posterior.mean[0])[order]),
        ]

    def encode_drawing(event: gr.EventData) -> list[Any]:
        return encode(drawn_image(event))

    def encode_upload(path: str) -> list[Any]:
        return encode(Path(path))

    outputs = [message, prediction, results, reconstruction, *sliders]
    pad.input(encode_drawing, None, outputs, **_LIVE)
    upload.upload(encode_upload, upload, outputs, **_LIVE)
    clear.click(None, js=CLEAR)


def _sliders(order: list[int], kl_per_latent: list[float]) -> list[gr.Slider]:
    """Adds a slider for each dimension of z, by decreasing KL; unused ones are folded away."""

    def slider(dimension: int) -> gr.Slider:
        name, kl = f"z{dimension}", kl_per_latent[dimension]
        label = f"{name} ({kl:.2f} nats)" if np.isfinite(kl) else name
        return gr.Slider(-_MAX_Z, _MAX_Z, 0.0, step=0.01, label=label, elem_id=name)

    used = [dimension for dimension in order if kl_per_latent[dimension] >= _MIN_KL] or order
    unused = order[len(used) :]
    sliders = [slider(dimension) for dimension in used]
    if unused:
        with gr.Accordion(f"Unused dimensions ({len(unused)})", open=False):
            sliders += [slider(dimension) for dimension in unused]
    return sliders


def _class_selection(model: TrainedModel) -> gr.CheckboxGroup:
    with gr.Accordion("Classes", open=False):
        return gr.CheckboxGroup(
            choices=[(name, index) for index, name in enumerate(model.category_names)],
            value=list(range(len(model.category_names))),
            show_label=False,
            show_select_all=True,
        )


def show(
    page: gr.Blocks, *, host: str = "127.0.0.1", port: int | None = None, wait: bool = False
) -> str:
    """Serves the page, and shows it inline in a notebook.

    Args:
        page: the page, of :func:`explorer`.
        host: address to listen on; the default accepts connections from this computer only.
        port: port to listen on; None: the first free one from 7860.
        wait: whether to block until interrupted. A notebook is never blocked.

    Returns:
        The URL of the page.

    Raises:
        OSError: if the port isn't free.
    """
    # System fonts, so that the page loads nothing from other servers.
    theme = Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    try:
        _, url, _ = page.launch(
            server_name=host,
            server_port=port,
            share=False,
            prevent_thread_lock=True,
            max_file_size=_MAX_UPLOAD,
            theme=theme,
            css=_CSS,
            footer_links=[],
            quiet=True,
            ssr_mode=False,
        )
    except OSError as error:
        ports = "no port from 7860 is" if port is None else f"port {port} isn't"
        raise OSError(f"{ports} free at {host}; choose another one") from error
    logger.info("the page is at %s", url)
    if wait:
        page.block_thread()
    return url
