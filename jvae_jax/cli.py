"""Command-line flags from dataclasses, logging to stdout, and errors in one line."""

import argparse
import contextlib
import difflib
import io
import logging
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import jax
import simple_parsing
from simple_parsing.helpers.custom_actions import BooleanOptionalAction
from simple_parsing.wrappers.field_wrapper import DashVariant

from jvae_jax.numerics import default_numerics

Config = TypeVar("Config")


class _Parser(simple_parsing.ArgumentParser):
    """simple_parsing's parser with a plain help text."""

    def _preprocessing(self, args: Sequence[str] = (), namespace: Any = None) -> None:
        super()._preprocessing(args, namespace)
        for action in self._actions:
            # simple_parsing keeps flags in a set, whose order varies from process to process.
            action.option_strings = sorted(action.option_strings, key=lambda flag: "-" in flag[2:])
            # An optional field doesn't mean that its flag may lack a value.
            if action.nargs == argparse.OPTIONAL and not isinstance(action, BooleanOptionalAction):
                action.nargs, action.metavar = None, str(action.metavar).strip("[]")

    def print_help(self, file: Any = None, args: Sequence[str] | None = None) -> None:
        for group in self._action_groups:
            # "TrainFlags ['config']", with the whole docstring of the dataclass below it.
            if is_dataclass := re.match(r"((\w+?)(Flags|Config)?) \[", group.title or ""):
                group.title = f"{is_dataclass[2]} flags"
                group.description = (group.description or "").partition("\n\n")[0]
                # Without docstrings, as under python -OO, it is the dataclass's signature.
                if group.description.startswith(f"{is_dataclass[1]}("):
                    group.description = None
        for action in self._actions:
            if action.default is None:
                action.default = argparse.SUPPRESS
        super().print_help(file, args)


def parse(
    config_class: type[Config], args: Sequence[str], *, description: str, prog: str | None = None
) -> Config:
    """Reads a dataclass from command-line flags.

    Each field is a flag, with underscores or dashes, and its docstring is the help. A field without
    default is required, a ``Literal`` lists its choices, and a ``simple_parsing.subgroups`` field
    adds the flags of the dataclass it chooses. Every command also has ``--debug``, see
    :func:`run`.

    Args:
        config_class: dataclass to read.
        args: command-line arguments, without the program's name.
        description: first line of the help.
        prog: name of the program; default: that of the script.

    Raises:
        SystemExit: after printing help (status 0) or an error in the flags (status 2).
    """
    parser = _Parser(
        prog=prog,
        description=description,
        allow_abbrev=False,
        add_option_string_dash_variants=DashVariant.UNDERSCORE_AND_DASH,
    )
    parser.add_arguments(config_class, dest="config")  # type: ignore
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            parsed, unknown = parser.parse_known_args(list(args))
    except ValueError as error:
        _usage_error(parser, str(error))
    except SystemExit as stop:
        if not stop.code and not errors.getvalue():
            raise
        # argparse prints the usage first; the last line is "PROG: error: MESSAGE".
        _usage_error(parser, errors.getvalue().strip().rpartition(" error: ")[2])
    if unknown:
        _usage_error(parser, _unknown_flag(config_class, parsed.config, unknown[0]))
    return parsed.config


def _usage_error(parser: argparse.ArgumentParser, message: str) -> NoReturn:
    parser.exit(2, f"{parser.prog}: error: {' '.join(message.split())}\n")


def _unknown_flag(config_class: type, config: Any, argument: str) -> str:
    """Returns the message for an unknown flag: one of another objective, or a misspelt one."""
    flag = argument.split("=")[0]
    name = flag.replace("-", "_").strip("_")
    known = ["debug"]
    for field in fields(config_class):
        known.append(field.name)
        choices = field.metadata.get("subgroups", {}).values()
        if not choices:
            continue
        chosen = getattr(config, field.name)
        own = [each.name for each in fields(chosen)]
        known += own
        if any(name == each.name for choice in choices for each in fields(choice)):
            return f"{chosen.name} has no {name}; it has {', '.join(own)}"
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"did you mean --{near[0]}?" if near else "--help lists the flags"
    return f"unknown argument {flag}; {hint}"


def run(
    main: Callable[[Any], None],
    config_class: type,
    *,
    description: str,
    args: Sequence[str] | None = None,
    prog: str | None = None,
) -> NoReturn:
    """Parses flags, calls ``main`` with them and exits: 0, 2 for wrong usage, 1 for other errors.

    Messages of the ``jvae_jax`` logger go to stdout. Errors are one line on stderr; ``--debug``
    shows the traceback. Compiled programs are cached in ``$JAX_COMPILATION_CACHE_DIR`` or else in
    the user's cache folder.

    Args:
        main: function of the configuration.
        config_class: dataclass of the flags; see :func:`parse`.
        description: first line of the help.
        args: command-line arguments; default: those of the process.
        prog: name of the program; default: that of the script.
    """
    args = list(sys.argv[1:] if args is None else args)
    config = parse(config_class, args, description=description, prog=prog)
    _set_compilation_cache()
    if "--debug" not in args:
        _hide_closed_event_loops()
    try:
        with _logging_to_stdout(), default_numerics():
            main(config)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if "--debug" in args:
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        is_expected = isinstance(error, (ValueError, OSError, ArithmeticError, RuntimeError))
        hint = "" if is_expected else f" ({type(error).__name__}; --debug shows where)"
        print(f"error: {message}{hint}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ValueError) else 1)
    sys.exit(0)


@contextlib.contextmanager
def _logging_to_stdout() -> Iterator[None]:
    """Prints messages of the ``jvae_jax`` logger, from INFO on."""
    logger = logging.getLogger("jvae_jax")
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    # Other libraries may have set up the root logger, which would print everything twice.
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def _hide_closed_event_loops() -> None:
    """Suppresses the errors of Orbax's threads after a failed read, which is reported already."""
    previous = sys.unraisablehook
    if getattr(previous, "__name__", "") == "except_closed_event_loops":
        return

    def except_closed_event_loops(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            previous(unraisable)

    sys.unraisablehook = except_closed_event_loops
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)


def _set_compilation_cache() -> None:
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    # One folder per machine: machines with different processors may share a home folder.
    folder = Path("~/.cache/jvae_jax/compiled").expanduser() / platform.node()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
