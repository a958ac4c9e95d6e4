"""The model card of an exported model, in the form of the Hugging Face Hub."""

import json
from typing import Any

from jvae_jax.data import LICENSES
from jvae_jax.evaluation import format_table
from jvae_jax.export.onnx import DECODER, ENCODER
from jvae_jax.objectives import Objective
from jvae_jax.pretrained import NOTES, PACKAGED
from jvae_jax.trained_model import TrainedModel
from jvae_jax.training.run import Run

SAMPLES = "samples.png"
"""Picture of the model card."""
_TAGS = ["jax", "flax", "vae", "conditional-image-generation", "handwriting"]
_DATASET_IDS = {"mnist": "ylecun/mnist", "fashion_mnist": "zalando-datasets/fashion_mnist"}
"""Addresses of datasets on the Hub."""
_METRICS = ("accuracy", "conditional_accuracy", "frechet_distance", "mse", "kl_z")
"""Metrics in the header, if the model has them."""
_MAX_NAMES = 20
"""Maximum number of class names that are listed."""
_USAGE = """\
```python
import jax
import jvae_jax

model = jvae_jax.load(".")  # the folder of this file
grid = model.sample(columns=10, key=jax.random.key(0))  # {grid}
```"""
_STYLE_TRANSFER = (
    "`model.load_image` loads a photo or drawing of a character, and `model.restyle` generates "
    "every class in its style."
)


def model_card(
    model: TrainedModel, run: Run, environment: dict[str, Any], *, onnx: bool = True
) -> str:
    """Returns the model card of a trained model in Markdown.

    Args:
        model: model of the run.
        run: run that trained it.
        environment: environment in which the run was started, from its config.json.
        onnx: whether the networks are exported as ONNX too.
    """
    config, data, network = run.config, run.data, model.network
    names = model.category_names
    listed = ", ".join(names[:_MAX_NAMES]) + (", ..." if len(names) > _MAX_NAMES else "")
    height, width, channels = network.image_shape
    license_name = LICENSES.get(config.dataset, "not stated; ask the publisher of the data")
    grid = "rows: classes, columns: styles" if names else "10 x 10 images"
    parts = [
        _header(model, run),
        f"# {model.name}",
        f"![Generated characters; {grid}.]({SAMPLES})",
        "## Model details",
        f"Objective `{config.objective.name}` of *Learning VAE with Categorical Labels for "
        "Generating Conditional Handwritten Characters* (Goto and Inoue)"
        f"{_changes(config.objective)}, trained with jvae_jax"
        + (f", from the weights of {config.init_from}" if config.init_from else "")
        + (
            f", with pseudo-labels by {config.pseudo_labels_from or 'label propagation'}"
            if run.needs_pseudo_labels
            else ""
        )
        + f". {network.latents} continuous latents"
        + (f" and {network.classes} classes: {listed}." if names else "."),
        "## Training data",
        f"{run.data_name}: {data.train_examples:,} training and {data.test_examples:,} test "
        f"images of {height} x {width} x {channels}"
        + (", statically binarized" if config.binarize else "")
        + f". Fingerprint: `{data.fingerprint}`. "
        f"License of {run.data_name}: {license_name}.",
        *([NOTES[run.workdir.name]] if _is_packaged(run) else []),
        "## Evaluation",
        _evaluation(model, run),
        "## Usage",
        _USAGE.format(grid=grid),
        *([_STYLE_TRANSFER] if names else []),
        *([_onnx_usage(model)] if onnx else []),
        "## Provenance",
        f"Trained for {config.epochs} epochs with seed {config.seed} at commit "
        f"`{environment.get('commit')}`, with Python {environment.get('python')} and jax "
        f"{environment.get('jax')}, on {environment.get('machine')}. `config.json` contains the "
        "full configuration.",
        "## License",
        "jvae_jax is licensed under Apache-2.0. Check whether the license of the training data "
        "applies to models trained on them before you share this one.",
    ]
    return "\n\n".join(parts) + "\n"


def _header(model: TrainedModel, run: Run) -> str:
    """YAML header, whose values are JSON, which YAML includes."""
    metrics = [
        {"type": name, "name": name.replace("_", " "), "value": model.metrics[name]}
        for name in _METRICS
        if name in model.metrics
    ]
    dataset_id = _DATASET_IDS.get(run.data_name)
    task = {"type": "unconditional-image-generation"}
    result = {
        "task": task,
        "dataset": {"type": dataset_id or "custom", "name": run.data_name},
        "metrics": metrics,
    }
    fields = {
        "library_name": "jvae_jax",
        "license": "other",
        "pipeline_tag": task["type"],
        "tags": _TAGS,
        **({"datasets": [dataset_id]} if dataset_id else {}),
        **(
            {
                "metrics": [each["type"] for each in metrics],
                "model-index": [{"name": model.name, "results": [result]}],
            }
            if metrics
            else {}
        ),
    }
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items()]
    return "\n".join(["---", *lines, "---"])


def _is_packaged(run: Run) -> bool:
    return run.workdir.parent == PACKAGED and run.workdir.name in NOTES


def _changes(objective: Objective) -> str:
    """Settings that aren't the paper's; the ramp of the capacity depends on the epochs."""
    changes = {name: value for name, value in objective.changes().items() if "_steps" not in name}
    listed = ", ".join(f"`{name}={value}`" for name, value in changes.items())
    return f", with {listed} in place of the paper's values" if listed else ""


def _evaluation(model: TrainedModel, run: Run) -> str:
    metrics = dict(model.metrics)
    if not metrics:
        return "Not evaluated."
    return (
        f"On the test images, after {metrics['step']:,} of {run.total_steps:,} training steps:\n\n"
        f"```\n{format_table(metrics)}\n```\n\n"
        f"Evaluated at commit `{metrics['environment']['commit']}`."
    )


def _onnx_usage(model: TrainedModel) -> str:
    network = model.network
    height, width, channels = network.image_shape
    probabilities, labels = "", ""
    if model.has_classes:
        probabilities = f", and `probabilities` of q(c|x), (batch, {network.classes})"
        labels = f" and one-hot `c`, (batch, {network.classes}),"
    return (
        f"`{ENCODER}` maps `images`, (batch, {height}, {width}, {channels}) in [0, 1] with bright "
        f"ink on dark background, to `mean` and `logvar` of q(z|x), (batch, {network.latents})"
        f"{probabilities}. `{DECODER}` maps `z`, (batch, {network.latents}),{labels} to `images`."
    )
