"""Models on the Hugging Face Hub: download and upload by huggingface_hub, an optional extra."""

import re
from pathlib import Path
from typing import Any

_PREFIX = "hf://"
_FILES = ["config.json", "model.safetensors", "evaluation.json", "style_controls.json"]
"""Files that are downloaded; none of them contains code."""


def is_hub_address(source: str | Path) -> bool:
    """Whether a model is given by its address on the Hub."""
    return isinstance(source, str) and source.startswith(_PREFIX)


def download(address: str) -> Path:
    """Downloads a model, or finds it in the cache of huggingface_hub.

    Args:
        address: ``hf://owner/name``, or ``hf://owner/name@revision`` for a branch, tag or commit.

    Returns:
        Folder of the model, as ``jvae export`` writes it.

    Raises:
        ValueError: if the address has another form.
        ModuleNotFoundError: if huggingface_hub isn't installed.
        FileNotFoundError: if there is no such model or revision.
        ConnectionError: if the Hub can't be reached and the model isn't in the cache.
    """
    match = re.fullmatch(rf"{_PREFIX}([^/@]+/[^/@]+)(?:@(.+))?", address)
    if match is None:
        raise ValueError(f"expected hf://owner/name or hf://owner/name@revision, got {address!r}")
    hub = _import_hub()
    name, revision = match.groups()
    wanted = {"repo_id": name, "revision": revision, "allow_patterns": _FILES}
    try:
        return Path(hub.snapshot_download(**wanted))
    except (hub.errors.RepositoryNotFoundError, hub.errors.RevisionNotFoundError) as error:
        raise FileNotFoundError(
            f"there is no model {address} on the Hub, or it is private and needs `hf auth login`"
        ) from error
    except hub.errors.HFValidationError as error:
        raise ValueError(f"{address} can't be the address of a model: {error}") from error
    except _unreachable(hub) as error:
        try:  # which huggingface_hub itself does after some of these errors
            return Path(hub.snapshot_download(**wanted, local_files_only=True))
        except hub.errors.LocalEntryNotFoundError:
            raise ConnectionError(
                f"{address} isn't in the cache, and the Hub can't be reached: {_first_line(error)}"
            ) from error


def push_to_hub(folder: str | Path, name: str, *, private: bool = False) -> str:
    """Uploads an exported model to the Hugging Face Hub.

    Args:
        folder: folder that ``jvae export`` wrote.
        name: ``owner/name`` of the repository, which is created if it doesn't exist.
        private: whether a new repository is private.

    Returns:
        Address of the model's page.

    Raises:
        FileNotFoundError: if the folder has no exported model.
        ValueError: if the name has another form.
        ModuleNotFoundError: if huggingface_hub isn't installed.
        ConnectionError: if the Hub can't be reached or refuses the upload, for example without
            ``hf auth login``.
    """
    folder = Path(folder).expanduser()
    if not (folder / "model.safetensors").is_file():
        raise FileNotFoundError(f"{folder} has no model.safetensors; export a model to it first")
    check_upload(name)
    hub = _import_hub()
    try:
        url = hub.create_repo(name, private=private, exist_ok=True)
        hub.upload_folder(
            repo_id=name,
            folder_path=folder,
            commit_message="Upload by jvae_jax",
            delete_patterns=[*_FILES, "*.onnx"],  # those of an earlier model
        )
    except hub.errors.HFValidationError as error:
        raise ValueError(f"{name!r} can't be the name of a model: {error}") from error
    except _unreachable(hub) as error:
        raise ConnectionError(
            f"{folder} can't be uploaded to {name}: {_first_line(error)}"
        ) from error
    return str(url)


def check_upload(name: str) -> None:
    """Checks the name of a repository, and that huggingface_hub is installed.

    Raises:
        ValueError: if the name isn't of the form ``owner/name``.
        ModuleNotFoundError: if huggingface_hub isn't installed.
    """
    if not re.fullmatch(r"[^/\s]+/[^/\s]+", name):
        raise ValueError(f"expected OWNER/NAME on the Hugging Face Hub, got {name!r}")
    _import_hub()


def _unreachable(hub: Any) -> tuple[type[Exception], ...]:
    """Errors of the network and of the Hub; the first is the base class of the HTTP library's."""
    errors = hub.errors
    return errors.HTTPError, errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _import_hub() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "models on the Hugging Face Hub need huggingface_hub: pip install huggingface_hub"
        ) from error
    return huggingface_hub
