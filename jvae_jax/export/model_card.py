"""What an exported model says of itself, for people."""

from pathlib import Path
from typing import Any

from jvae_jax.evaluation.metrics import format_table
from jvae_jax.training.run import Run

_LICENCES = {
    "mnist": "CC BY-SA 3.0",
    "mnist_5k": "CC BY-SA 3.0",
    "hiragana73": "public domain (PDM 1.0)",
    "kmnist": "CC BY-SA 4.0",
    "k49": "CC BY-SA 4.0",
    "fashion_mnist": "MIT",
}
"""Under which data sets were released, where that is known."""

_LOADING = """\
```python
import jax
import jvae_jax
from jvae_jax.generation import characters

trained = jvae_jax.load(".")  # the folder of this file
key = jax.random.key(0)
{draw}
```
"""
_WITH_CLASSES = """\
labels = jax.numpy.arange({classes})  # {names}
sheet = characters.sample(trained.model, trained.variables, key, labels=labels, columns=10)"""
_WITHOUT = "sheet = characters.sample(trained.model, trained.variables, key, rows=10, columns=10)"
_ONNX = """\
`encoder.onnx` takes `images`, (batch, {height}, {width}, {channels}) in [0, 1] with ink bright on
dark, and gives `mean` and `logvar` of z{read}. `decoder.onnx` takes `z`, (batch, {latents}),
{c}and gives `images`.
"""
_READ = ", and `probabilities` of c"
_NAMED = 20
"""So many classes fit into a line."""


def card(run: Run, origin: dict[str, Any], *, onnx: bool) -> str:
    """The README.md of an exported model, in Markdown.

    Args:
        run: what it was trained as.
        origin: where that began, as its config.json says.
        onnx: whether encoder.onnx and decoder.onnx are there.
    """
    config, facts, model = run.config, run.data, run.model
    names = run.category_names
    shown = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
    height, width, channels = model.image_shape
    size = {"height": height, "width": width, "channels": channels, "latents": model.latents}
    if model.classes:
        draw = _WITH_CLASSES.format(classes=model.classes, names=shown)
        network = {"c": f"and `c`, (batch, {model.classes}), one-hot, ", "read": _READ}
    else:
        draw, network = _WITHOUT, {"c": "", "read": ""}
    licence = _LICENCES.get(config.dataset, "not known here: ask whoever the data come from")
    parts = [
        f"# {config.objective}, {data_name(run)}",
        f"`{config.objective}` of *Learning VAE with Categorical Labels for Generating Conditional "
        f"Handwritten Characters* (Goto and Inoue), trained by jvae_jax, with {model.latents} "
        "continuous latents" + (f" and {model.classes} classes: {shown}." if names else "."),
        "## Data",
        f"{data_name(run)}, {facts.train_examples:,} training and {facts.test_examples:,} test "
        f"images of {height} x {width} x {channels}, fingerprint `{facts.fingerprint}`. "
        f"Their licence: {licence}.",
        "## Figures",
        _figures(run),
        "## How to load",
        _LOADING.format(draw=draw),
        _ONNX.format(**size, **network) if onnx else "",
        "## Origin",
        f"{config.epochs} epochs, seed {config.seed}, with commit `{origin.get('commit')}`, Python "
        f"{origin.get('python')}, jax {origin.get('jax')}, {origin.get('machine')}. `config.json` "
        "has every setting.",
        "## Licence",
        "The program that made it is under Apache-2.0. What the data's licence asks of those who "
        "share what is made from them is for them to find out.",
    ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def data_name(run: Run) -> str:
    """What its data are called, without where they lie."""
    name = run.config.dataset
    return "pictures of one's own" if name == "folder" else Path(name).stem


def _figures(run: Run) -> str:
    found = run.evaluation()
    if not found:
        return "It hasn't been evaluated."
    return (
        f"After {found['step']:,} of {run.total_steps:,} steps, on the test images:\n\n"
        f"```\n{format_table(found)}\n```\n\n"
        f"Evaluated with commit `{found['environment']['commit']}`."
    )
