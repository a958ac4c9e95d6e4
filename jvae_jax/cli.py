"""Flags from a dataclass, and errors for people."""

import argparse
import difflib
import logging
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args, get_type_hints

import jax

Config = TypeVar("Config")


class _Parser(argparse.ArgumentParser):
    """Errors in one line, with the nearest flag where one is misspelt."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")

    def parse_args(self, args: Sequence[str]) -> argparse.Namespace:  # type: ignore[override]
        parsed, unknown = self.parse_known_args(args)
        if unknown:
            flag = unknown[0].split("=")[0]
            near = difflib.get_close_matches(
                flag.replace("-", "_").strip("_"), vars(parsed), n=1, cutoff=0.5
            )
            hint = f"; did you mean --{near[0]}?" if near else "; --help lists the flags"
            self.error(f"unknown argument {flag}{hint}")
        return parsed


def parse(config_class: type[Config], args: Sequence[str], *, description: str) -> Config:
    """Reads a dataclass from command-line flags.

    Each field is a flag, with underscores or dashes; its metadata holds ``help`` and ``choices``.
    Fields may be str, int or float, optional or not, or bool: False unless the flag is given.
    A field without default must be given.
    ``--debug`` is a flag of every program; it is for :func:`run`.

    Raises:
        SystemExit: after printing help (status 0) or what is wrong with the flags (status 2).
    """
    parser = _Parser(
        description=description,
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=30, width=100),
    )
    types = get_type_hints(config_class)
    for field in fields(config_class):  # type: ignore[arg-type]
        names = dict.fromkeys([f"--{field.name}", f"--{field.name.replace('_', '-')}"])
        kind, *_ = get_args(types[field.name]) or (types[field.name],)
        text = field.metadata["help"].replace("%", "%%")
        if kind is bool:
            parser.add_argument(*names, dest=field.name, action="store_true", help=text)
            continue
        if field.default not in (MISSING, None):
            text += " (default: %(default)s)"
        parser.add_argument(
            *names,
            dest=field.name,
            type=kind,
            default=None if field.default is MISSING else field.default,
            required=field.default is MISSING,
            choices=field.metadata["choices"],
            help=text,
            metavar=None if field.metadata["choices"] else kind.__name__.upper(),
        )
    parser.add_argument("--debug", action="store_true", help="show where an error comes from")
    values = vars(parser.parse_args(args))
    del values["debug"]
    try:
        return config_class(**values)
    except ValueError as error:
        parser.error(str(error))


def run(
    main: Callable[[Any], None],
    config_class: type,
    *,
    description: str,
    args: Sequence[str] | None = None,
) -> NoReturn:
    """Parses flags, calls ``main`` with them, and exits: 0, 2 for usage, 1 for what went wrong.

    Errors are one line on stderr; ``--debug`` shows where they came from. What JAX compiles is kept
    for the next start, in ``$JAX_COMPILATION_CACHE_DIR`` or else in the user's cache folder.
    """
    args = list(sys.argv[1:] if args is None else args)
    config = parse(config_class, args, description=description)
    _keep_compiled()
    if "--debug" not in args:
        _silence_late_callbacks()
    try:
        main(config)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if "--debug" in args:
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        expected = isinstance(error, (ValueError, OSError, ArithmeticError, RuntimeError))
        hint = "" if expected else f" ({type(error).__name__}; --debug shows where)"
        print(f"error: {message}{hint}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ValueError) else 1)
    sys.exit(0)


def _silence_late_callbacks() -> None:
    """Hides what Orbax's threads report once a read has failed, which the error tells already."""
    before = sys.unraisablehook
    if getattr(before, "__name__", "") == "but_for_closed_loops":
        return

    def but_for_closed_loops(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = but_for_closed_loops
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)


def _keep_compiled() -> None:
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    # A folder for each machine: a home may be shared by processors that differ.
    folder = Path("~/.cache/jvae_jax/compiled").expanduser() / platform.node()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
