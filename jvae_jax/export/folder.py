"""The folder of an exported model.

===========================  ======================================================================
config.json                  configuration, dataset and environment of the run
model.safetensors            parameters and batch statistics
README.md                    model card, with the header that the Hugging Face Hub reads
samples.png                  generated characters: rows fix c, columns fix z
evaluation.json              metrics on the test split, if the run was evaluated
style_controls.json          control of the style by name, if it was fitted
encoder.onnx, decoder.onnx   the networks, if ONNX is requested
===========================  ======================================================================
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from flax.traverse_util import flatten_dict

from jvae_jax import plotting
from jvae_jax.data import DATA_DIR
from jvae_jax.export.model_card import SAMPLES, model_card
from jvae_jax.export.onnx import export_onnx
from jvae_jax.files import save_arrays, write_json
from jvae_jax.hub import is_hub_address
from jvae_jax.pretrained import packaged_models
from jvae_jax.trained_model import TrainedModel
from jvae_jax.training.config import TrainConfig
from jvae_jax.training.run import WEIGHTS, Run, write_style_controls


def export(model: TrainedModel, run: Run, folder: Path, *, onnx: bool = True) -> list[str]:
    """Exports a trained model to a new folder, atomically.

    Args:
        model: model of the run.
        run: run that trained it.
        folder: folder to create; it may exist if it is empty.
        onnx: whether to export the networks as ONNX too; see :func:`jvae_jax.export.export_onnx`.

    Returns:
        The sorted names of the files.

    Raises:
        ValueError: if the folder exists and isn't empty, or is a link or a file.
        ModuleNotFoundError: if ``onnx`` is set and jax2onnx isn't installed.
        OSError: if it can't be written.
    """
    contents = json.loads((run.workdir / "config.json").read_text(encoding="utf-8"))
    with new_folder(folder) as temporary:
        config = _strip_local_settings(run.config)
        write_json(temporary / "config.json", {**contents, "config": config.to_json()})
        if model.metrics:
            write_json(temporary / "evaluation.json", model.metrics)
        write_style_controls(temporary, model)
        save_arrays(temporary / WEIGHTS, flatten_dict(model.variables, sep="/"))
        if onnx:
            export_onnx(model, temporary)
        with (temporary / SAMPLES).open("wb") as file:
            columns = 10 if len(model.category_names) <= 30 else 4  # for a picture of some 100 kB
            figure = plotting.sample_grid(model, run.key("samples"), columns)
            figure.savefig(file, format="png", metadata={"Software": None})
        stripped = replace(run, config=config)
        card = model_card(model, stripped, contents.get("environment", {}), onnx=onnx)
        (temporary / "README.md").write_text(card, encoding="utf-8")
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Creates a folder atomically: yields a temporary one, which is renamed on success.

    Args:
        folder: folder to create; it may exist if it is empty.

    Raises:
        ValueError: if the folder exists and isn't empty, or is a link or a file.
        OSError: if it can't be written.
    """
    if folder.name in ("", ".."):
        raise ValueError(f"expected the name of a folder to create, got '{folder}'")
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ValueError(f"{folder} exists and isn't a folder; choose another --output")
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} already exists and isn't empty; choose another --output")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if folder.exists():
            folder.rmdir()
        temporary.replace(folder)
    except OSError as error:
        if error.errno is None:
            raise
        # The names of temporary files say nothing to users.
        raise OSError(error.errno, error.strerror, str(folder)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _strip_local_settings(config: TrainConfig) -> TrainConfig:
    """Removes local paths and addresses."""
    is_file = config.dataset.endswith(".npz")
    return replace(
        config,
        workdir=None,
        data_dir=DATA_DIR,
        dataset=Path(config.dataset).name if is_file else config.dataset,
        init_from=config.init_from and _strip_folder(config.init_from),
        pseudo_labels_from=config.pseudo_labels_from and _strip_folder(config.pseudo_labels_from),
        coordinator=None,
        num_processes=None,
        process_id=None,
    )


def _strip_folder(source: str) -> str:
    """The source of weights or labels, of whose path only the last folder is kept."""
    if is_hub_address(source) or source in packaged_models():
        return source
    return f"./{Path(source).name}"
