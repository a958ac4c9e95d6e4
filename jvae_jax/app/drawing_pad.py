"""Gradio component to draw one character with mouse, pen or finger."""

# pyright: reportMissingImports=false

import base64

import gradio as gr

from jvae_jax.app.request_filter import MAX_UPLOAD

_SIDE = 280
"""Width and height of the canvas, in pixels."""
_CSS = """
canvas {
    width: 100%; aspect-ratio: 1; background: white; border: 1px solid #aaa; border-radius: 8px;
    touch-action: none; cursor: crosshair
}
"""
_SCRIPT = """
const canvas = element.querySelector("canvas");
const context = canvas.getContext("2d");
context.lineWidth = canvas.width / 14;
context.lineCap = context.lineJoin = "round";
const position = (event) => {
    const box = canvas.getBoundingClientRect();
    return [
        (event.clientX - box.left) * canvas.width / box.width,
        (event.clientY - box.top) * canvas.height / box.height,
    ];
};
const submit = () => trigger("input", {image: canvas.toDataURL("image/png")});
let drawing = false;
canvas.addEventListener("pointerdown", (event) => {
    drawing = true;
    canvas.setPointerCapture(event.pointerId);
    context.beginPath();
    context.moveTo(...position(event));
    context.lineTo(...position(event));
    context.stroke();
});
canvas.addEventListener("pointermove", (event) => {
    if (!drawing) return;
    context.lineTo(...position(event));
    context.stroke();
});
for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, () => {
        if (drawing) submit();
        drawing = false;
    });
}
element.addEventListener("clear", () => {
    context.clearRect(0, 0, canvas.width, canvas.height);
    submit();
});
const chooser = element.querySelector("input");
chooser.addEventListener("change", () => {
    const file = chooser.files[0];
    const reader = new FileReader();
    reader.onload = () => trigger("input", {image: reader.result});
    if (file.size > maxSize) trigger("input", {is_too_large: true});
    else reader.readAsDataURL(file);
    chooser.value = "";  // so that the same file can be chosen again
});
"""
CLEAR = """
() => document.querySelector("#pad canvas").dispatchEvent(new Event("clear", {bubbles: true}))
"""
"""JavaScript that clears the canvas."""
UPLOAD = """() => document.querySelector("#pad input").click()"""
"""JavaScript that asks for an image file."""


def drawing_pad() -> gr.HTML:
    """Creates the canvas, which triggers ``input`` after each stroke and each upload."""
    canvas = f'<canvas width="{_SIDE}" height="{_SIDE}"></canvas>'
    return gr.HTML(
        html_template=f'{canvas}<input type="file" accept="image/*" hidden>',
        css_template=_CSS,
        js_on_load=f"const maxSize = {MAX_UPLOAD};{_SCRIPT}",
        elem_id="pad",
    )


def drawn_image(event: gr.EventData) -> bytes:
    """Returns the image of an ``input`` event, as the content of an image file.

    Raises:
        ValueError: if the event has none.
    """
    if hasattr(event, "is_too_large"):
        raise ValueError(f"the file is larger than {MAX_UPLOAD // 2**20} MB")
    try:
        _, encoded = event.image.split(";base64,")
        return base64.b64decode(encoded, validate=True)
    except (AttributeError, ValueError) as error:
        raise ValueError("the event contains no image") from error
