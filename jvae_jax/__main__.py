"""``jvae COMMAND ...``, or ``python -m jvae_jax COMMAND ...``."""

import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from jvae_jax import __version__, cli

COMMANDS = {
    "train": "train an objective, or resume its training",
    "evaluate": "evaluate a run, or a packaged model, on its whole test split",
    "generate": "generate any character in any style",
    "hand": "estimate a hand from pictures of characters",
    "write": "write a text in a hand",
    "font": "make a font of a hand",
    "explore": "explore a trained model in the browser",
    "export": "export a trained model as safetensors and ONNX",
    "models": "list the packaged models",
}


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Runs the command that the first argument names with the other arguments."""
    args = list(sys.argv[1:] if args is None else args)
    cli.exit_after(lambda: _run(*args), debug="--debug" in args)


def _run(name: str = "--help", *args: str) -> None:
    if name in COMMANDS:
        command = importlib.import_module(f"jvae_jax.commands.{name}")
        command.main(args, prog=f"jvae {name}")
    elif name in ("-h", "--help"):
        commands = "\n".join(f"  {command:10}{text}" for command, text in COMMANDS.items())
        print(
            f"usage: jvae COMMAND [flags]\n\ncommands:\n{commands}\n\n"
            "`jvae COMMAND --help` lists the flags; `jvae --version` prints the version.\n"
            "Exit status: 0 after success, 2 for wrong flags or data, 1 after other errors,\n"
            "130 if interrupted, 141 if stdout was closed."
        )
    elif name == "--version":
        print(__version__)
    else:
        cli.unknown_command("jvae", name, COMMANDS)


if __name__ == "__main__":
    main()
