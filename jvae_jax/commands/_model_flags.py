"""The flags that select a trained model."""

from dataclasses import dataclass

from jvae_jax.hub import is_hub_address
from jvae_jax.pretrained import packaged_models
from jvae_jax.training.run import Run, load_run, load_source

DEFAULT_MODEL = "digits"
"""Packaged model of the commands that need no flag."""


@dataclass(frozen=True, kw_only=True)
class ModelFlags:
    """Flags of the model."""

    workdir: str | None = None
    """Folder of the run, or of an exported model."""
    model: str | None = None
    """Name of a packaged model, see `jvae models`, or hf://OWNER/NAME on the Hugging Face Hub; by
    default digits, except for evaluate and a plain export."""

    def __post_init__(self) -> None:
        if self.workdir is not None and self.model is not None:
            raise ValueError(
                f"workdir {self.workdir} and model {self.model} both select a model; give one of "
                "them"
            )

    @property
    def is_read_only(self) -> bool:
        """Whether the model is packaged or downloaded, so that its folder must not be changed."""
        return self.workdir is None


def load_selected_run(flags: ModelFlags, *, default: str | None = None) -> Run:
    """Opens the run, exported model or packaged model that the flags select.

    Args:
        flags: the flags.
        default: name of the packaged model if the flags select none.

    Raises:
        FileNotFoundError: if the folder isn't of a run or of an exported model.
        ValueError: if no model is selected, no packaged model has this name, or the folder's
            config.json is invalid.
        ModuleNotFoundError, ConnectionError: see :func:`jvae_jax.hub.download`.
    """
    if flags.workdir is not None:
        return load_run(flags.workdir)
    if is_hub_address(flags.model or ""):
        return load_source(str(flags.model))
    packaged = packaged_models()
    names = f"packaged models: {', '.join(packaged) or 'none'}"
    name = default if flags.model is None else flags.model
    if name is None:
        raise ValueError(f"no model is given; add --workdir=FOLDER or --model=NAME ({names})")
    if name not in packaged:
        raise ValueError(f"unknown model {name!r}; {names}")
    return load_run(packaged[name])
