"""A sheet of paper to draw one character on, with mouse, pen or finger, in a Gradio page."""

# pyright: reportMissingImports=false

import base64
import binascii

import gradio as gr

_CSS = """
canvas {
    width: 100%; aspect-ratio: 1; background: white; border: 1px solid #aaa; border-radius: 8px;
    touch-action: none; cursor: crosshair
}
"""
_SIDE = 280
_SCRIPT = """
const canvas = element.querySelector("canvas");
const pen = canvas.getContext("2d");
pen.lineWidth = canvas.width / 14;
pen.lineCap = pen.lineJoin = "round";
const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [
        (event.clientX - box.left) * canvas.width / box.width,
        (event.clientY - box.top) * canvas.height / box.height,
    ];
};
const tell = () => trigger("input", {picture: canvas.toDataURL("image/png")});
let drawing = false;
canvas.addEventListener("pointerdown", (event) => {
    drawing = true;
    canvas.setPointerCapture(event.pointerId);
    pen.beginPath();
    pen.moveTo(...place(event));
    pen.lineTo(...place(event));
    pen.stroke();
});
canvas.addEventListener("pointermove", (event) => {
    if (!drawing) return;
    pen.lineTo(...place(event));
    pen.stroke();
});
for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, () => {
        if (drawing) tell();
        drawing = false;
    });
}
element.addEventListener("clear", () => {
    pen.clearRect(0, 0, canvas.width, canvas.height);
    tell();
});
"""
CLEAR = """
() => document.querySelector("#pad canvas").dispatchEvent(new Event("clear", {bubbles: true}))
"""
"""What a button does, in JavaScript, to take another sheet."""
_PREFIX = "data:image/png;base64,"


def drawing_pad() -> gr.HTML:
    """The sheet; its ``input`` event comes with each stroke."""
    return gr.HTML(
        html_template=f'<canvas width="{_SIDE}" height="{_SIDE}"></canvas>',
        css_template=_CSS,
        js_on_load=_SCRIPT,
        elem_id="pad",
    )


def picture_of(event: gr.EventData) -> bytes:
    """What is drawn when an event comes, as a PNG file's content.

    Raises:
        ValueError: if it isn't a drawing.
    """
    data = getattr(event, "picture", None)
    if not isinstance(data, str) or not data.startswith(_PREFIX):
        raise ValueError("that is no drawing")
    try:
        return base64.b64decode(data.removeprefix(_PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError("that is no drawing") from error
