"""``jvae COMMAND ...``, or ``python -m jvae_jax COMMAND ...``."""

import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

COMMANDS = {
    "train": "train an objective, or resume its training",
    "evaluate": "evaluate a run on its whole test split",
    "generate": "generate any character in any style",
    "explore": "explore a trained model in the browser",
    "export": "export a trained model as safetensors and ONNX",
}


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Runs the command that the first argument names with the other arguments."""
    name, *rest = list(sys.argv[1:] if args is None else args) or ["--help"]
    if name in COMMANDS:
        command = importlib.import_module(f"jvae_jax.commands.{name}")
        command.main(rest, prog=f"jvae {name}")
    if name in ("-h", "--help"):
        commands = "\n".join(f"  {command:10}{text}" for command, text in COMMANDS.items())
        print(
            f"usage: jvae COMMAND [flags]\n\ncommands:\n{commands}\n\n"
            "`jvae COMMAND --help` lists the flags; `jvae --version` prints the version."
        )
        sys.exit(0)
    if name == "--version":
        from jvae_jax import __version__

        print(__version__)
        sys.exit(0)
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    commands = ", ".join(COMMANDS)
    print(f"jvae: error: unknown command {name}{hint}; there are {commands}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
