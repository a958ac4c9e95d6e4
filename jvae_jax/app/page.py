"""The page: sliders move the style of every class, and a drawing or a photo sets it."""

# pyright: reportMissingImports=false

import base64
import errno
import html
import io
import logging
import os
import socket
from collections.abc import Sequence
from typing import Any

import gradio as gr
import jax
import jax.numpy as jnp
import numpy as np
from gradio.themes import Default
from gradio.utils import colab_check, is_hosted_notebook
from starlette.middleware import Middleware

from jvae_jax.animation import animation_frames
from jvae_jax.app.drawing_pad import CLEAR, UPLOAD, drawing_pad, drawn_image
from jvae_jax.app.request_filter import RequestFilter
from jvae_jax.trained_model import TrainedModel

logger = logging.getLogger(__name__)

_MAX_Z = 3.0
"""Range of the sliders on both sides of 0, in standard deviations of the prior."""
_MIN_KL = 0.01
"""KL divergence, in nats, below which a dimension of z is unused."""
_MAX_WIDTH, _MAX_CELL_WIDTH = 520, 160
"""Maximum width of a grid and of a character, in pixels."""
_EVENT: dict[str, Any] = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}
"""Options of events. Without Gradio's queue, nothing is kept of an event after its answer."""
_LIVE: dict[str, Any] = _EVENT | {"trigger_mode": "always_last"}
"""Options of continuous events: of those that arrive during an update, only the last is handled."""
_CSS = """
.gradio-container {width: 100% !important; max-width: 1000px !important; margin: 0 auto !important}
.html-container {padding: 0 !important}
#sheet img, #redrawn img {width: 100%; height: auto; object-fit: contain; background: white}
"""
_SAVE = """() => {
    const link = document.createElement("a");
    link.href = document.querySelector("#sheet img").src;
    link.download = "characters.png";
    link.click();
}"""


class _Page(gr.Blocks):
    """Blocks whose events take only numbers, and fail without a traceback."""

    async def process_api(self, block_fn: Any, inputs: list[Any], *args: Any, **kwargs: Any) -> Any:
        try:
            # In any other input, Gradio looks for dictionaries of files and downloads their URLs.
            for value in inputs:
                numbers = value if isinstance(value, list) else [value]
                if not all(isinstance(number, (int, float)) for number in numbers):
                    raise ValueError("inputs must be numbers or lists of numbers")
            return await super().process_api(block_fn, inputs, *args, **kwargs)
        except Exception as error:
            logger.warning("a request failed: %.300r", error)
            raise gr.Error("The request failed.", print_exception=False) from error


def explorer(model: TrainedModel) -> gr.Blocks:
    """Builds the page: sliders for z and, if the model has classes, a pad to draw on."""
    latents = model.network.latents
    kl_per_latent = model.metrics.get("kl_z_per_latent", [np.inf] * latents)
    order = np.argsort(-np.array(kl_per_latent), kind="stable").tolist()

    def update_grid(*values: Any) -> Any:
        z = np.zeros(latents)
        z[order] = values[:latents]
        if not (np.abs(z) <= _MAX_Z).all():  # NaN isn't either
            raise ValueError(f"z must be within {_MAX_Z} of 0, got {z}")
        # A set, since a request may repeat a class millions of times.
        selected = sorted(set(*values[latents:]))
        if model.has_classes and not selected:
            return gr.skip()
        return _generate(model, z, selected)

    def sample_style() -> list[float]:
        return _slider_values(np.random.default_rng().standard_normal(latents))

    with _Page(title=model.name, analytics_enabled=False, fill_width=True) as page:
        gr.HTML(f"<h2>Any character in any style</h2>{html.escape(model.name)}")
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                all_classes = range(len(model.category_names))
                grid = gr.HTML(_generate(model, np.zeros(latents), all_classes), elem_id="sheet")
                with gr.Row():
                    reset = gr.Button("Reset", min_width=90)
                    random = gr.Button("Random", variant="primary", min_width=90)
                    save = gr.Button("Save PNG", min_width=90)
                sliders = _sliders(order, kl_per_latent)
                selected = [_class_selection(model)] if model.has_classes else []
            if model.has_classes:
                with gr.Column(scale=2, min_width=320):
                    _style_input(model, order, sliders)
        inputs: list[Any] = [*sliders, *selected]
        gr.on([component.change for component in inputs], update_grid, inputs, grid, **_LIVE)
        reset.click(lambda: [0.0] * latents, None, sliders, **_EVENT)
        random.click(sample_style, None, sliders, **_EVENT)
        save.click(None, js=_SAVE)
    return page


def _generate(model: TrainedModel, z: np.ndarray, selected: Sequence[int]) -> str:
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


def _tile(images: np.ndarray, columns: int | None = None) -> str:
    """Returns an HTML element that contains the tiled images, so that no file is served."""
    (frame,) = animation_frames(
        images[None], columns=columns, max_width=_MAX_WIDTH, max_cell_width=_MAX_CELL_WIDTH
    )
    png = io.BytesIO()
    frame.save(png, "PNG")
    encoded = base64.b64encode(png.getvalue()).decode()
    return f'<img src="data:image/png;base64,{encoded}">'


def _slider_values(z: np.ndarray) -> list[float]:
    return z.astype(float).clip(-_MAX_Z, _MAX_Z).round(2).tolist()


def _style_input(model: TrainedModel, order: list[int], sliders: list[gr.Slider]) -> None:
    """Adds a pad and an upload whose style the sliders take, with prediction and reconstruction."""
    gr.Markdown("Draw a character or upload an image; its style is applied to all classes.")
    pad = drawing_pad()
    with gr.Row():
        clear = gr.Button("Clear", min_width=90)
        upload = gr.Button("Upload", min_width=90)
    message = gr.HTML(visible=False, elem_id="trouble")
    prediction = gr.Label(num_top_classes=3, label="Predicted class", visible=False, elem_id="read")
    with gr.Column(visible=False) as results:
        gr.Markdown("Input and reconstruction:")
        reconstruction = gr.HTML(elem_id="redrawn")

    def encode(event: gr.EventData) -> list[Any]:
        hidden = gr.update(visible=False)
        try:
            images = model.load_image(drawn_image(event))
        except ValueError as error:
            explanation = html.escape(f"This image can't be encoded ({error}).")
            shown = gr.update(value=explanation, visible=True)
            return [shown, hidden, hidden, None, *[gr.skip()] * len(sliders)]
        posterior = model.encode(images)
        logits: Any = posterior.logits  # not None, since the model has classes
        probabilities = np.asarray(jax.nn.softmax(logits[0])).tolist()
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

    outputs = [message, prediction, results, reconstruction, *sliders]
    pad.input(encode, None, outputs, **_LIVE)
    clear.click(None, js=CLEAR)
    upload.click(None, js=UPLOAD)


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

    Requests of other sites are refused. Behind a proxy that is its task: on Colab, Kaggle and
    SageMaker, and where ``$GRADIO_ROOT_PATH`` tells Gradio the page's path there.

    Args:
        page: the page, of :func:`explorer`.
        host: address to listen on. The default accepts connections from this computer only;
            0.0.0.0 accepts all, without a password and under any name.
        port: port to listen on; None: the first free one from 7860.
        wait: whether to block until interrupted. A notebook is never blocked.

    Returns:
        The URL of the page.

    Raises:
        OSError: if the host isn't an address of this computer, or the port isn't free.
        ValueError: if there is no such port.
    """
    _check_address(host, port)
    is_behind_proxy = (
        colab_check() or is_hosted_notebook() or bool(os.environ.get("GRADIO_ROOT_PATH"))
    )
    request_filter = Middleware(RequestFilter, host=None if is_behind_proxy else host)
    _, url, _ = page.launch(
        server_name=f"[{host}]" if ":" in host and "[" not in host else host,
        server_port=port,
        share=False,
        prevent_thread_lock=True,
        app_kwargs={"middleware": [request_filter]},
        num_workers=0,  # they would listen on other ports, without the filter
        max_threads=1,  # so that many large images aren't decoded at once
        state_session_capacity=1,  # the page's events depend on no earlier ones
        run_history=False,  # it would keep drawings in the browser
        # System fonts, so that the page loads nothing from other servers.
        theme=Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        css=_CSS,
        footer_links=[],
        quiet=True,
        ssr_mode=False,
    )
    logger.info("the page is at %s", url)
    if wait:
        page.block_thread()
    return url


def _check_address(host: str, port: int | None) -> None:
    """Tries to listen: Gradio would retry for minutes, and then say that all ports are in use."""
    if port is not None and not 0 < port < 2**16:
        raise ValueError(f"port must be between 1 and 65535, got {port}")
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host.strip("[]"), port or 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        socket.create_server(address, family=family).close()
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise OSError(f"port {port} isn't free at {host}; choose another one") from error
        raise OSError(f"{host} isn't an address of this computer") from error
