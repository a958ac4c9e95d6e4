"""``jvae explore``: opens a page to explore a trained model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from jvae_jax import cli
from jvae_jax.app import build_page, serve
from jvae_jax.commands._model_flags import DEFAULT_MODEL, ModelFlags, load_selected_run


@dataclass(frozen=True, kw_only=True)
class ExploreFlags(ModelFlags):
    """Flags of the page."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 allows connections from other computers."""
    port: int | None = None
    """Port to listen on. By default the first free one from 7860."""


def run_command(flags: ExploreFlags) -> None:
    """Serves the page until it is interrupted."""
    model = load_selected_run(flags, default=DEFAULT_MODEL).model
    serve(build_page(model), host=flags.host, port=flags.port)


def main(args: Sequence[str] | None = None, prog: str | None = None) -> NoReturn:
    """Runs the command."""
    description = "Explore a trained model in the browser."
    cli.run(run_command, ExploreFlags, description=description, args=args, prog=prog)
