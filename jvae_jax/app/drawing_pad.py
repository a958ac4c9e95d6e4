"""Gradio component to draw one character with mouse, pen or finger."""

# pyright: reportMissingImports=false

import base64
import binascii

import gradio as gr

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
"""
CLEAR = """
() => document.querySelector("#pad canvas").dispatchEvent(new Event("clear", {bubbles: true}))
"""
"""JavaScript that clears the canvas."""
_PREFIX = "data:image/png;base64,"


def drawing_pad() -> gr.HTML:
    """Creates the canvas, which triggers ``input`` after each stroke."""
    return gr.HTML(
        html_template=f'<canvas width="{_SIDE}" height="{_SIDE}"></canvas>',
        css_template=_CSS,
        js_on_load=_SCRIPT,
        elem_id="pad",
    )


def drawn_image(event: gr.EventData) -> bytes:
    """Returns the image of an ``input`` event, as the content of a PNG file.

    Raises:
        ValueError: if the event has none.
    """
    data = getattr(event, "image", None)
    if not isinstance(data, str) or not data.startswith(_PREFIX):
        raise ValueError("the event contains no PNG image")
    try:
        return base64.b64decode(data.removeprefix(_PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError("the event contains no PNG image") from error
