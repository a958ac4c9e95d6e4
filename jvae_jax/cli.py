"""Command-line flags from dataclasses, messages on stdout, and errors in one line."""

import argparse
import contextlib
import difflib
import io
import logging
import os
import platform
import re
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import jax
import simple_parsing
from simple_parsing.helpers.custom_actions import BooleanOptionalAction
from simple_parsing.wrappers.field_wrapper import DashVariant

from jvae_jax.messages import describe_error, escape
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
    config_class: type[Config],
    args: Sequence[str],
    *,
    description: str,
    prog: str | None = None,
    presets: Mapping[str, Sequence[str]] | None = None,
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
        presets: flags by the value of a further flag, ``--preset``, that stands for them; those
            that are given themselves override them. The first is the default.

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
    args, preset_flags = list(args), []
    if presets:
        summary = "; ".join(
            f"{name}: {' '.join(flags)}" for name, flags in presets.items() if flags
        )
        parser.add_argument(
            "--preset",
            choices=list(presets),
            default=next(iter(presets)),
            help=f"Settings that further flags override. {summary}. (default: %(default)s)",
        )
        finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        finder.add_argument("--preset")
        with contextlib.suppress(argparse.ArgumentError):
            preset = finder.parse_known_args(args)[0].preset
            preset_flags = list(presets.get(preset, ()))
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            parsed, unknown = parser.parse_known_args([*preset_flags, *args])
    except ValueError as error:
        _usage_error(parser, str(error))
    except SystemExit as stop:
        if not stop.code and not errors.getvalue():
            raise
        # argparse prints the usage first; the last line is "PROG: error: MESSAGE".
        _usage_error(parser, errors.getvalue().strip().rpartition(" error: ")[2])
    if unknown:
        source = "--preset: " if unknown[0] in preset_flags else ""
        common = ["debug", "preset"] if presets else ["debug"]
        message = _unknown_flag(config_class, parsed.config, unknown[0], common)
        _usage_error(parser, source + message)
    return parsed.config


def _usage_error(parser: argparse.ArgumentParser, message: str) -> NoReturn:
    parser.exit(2, f"{parser.prog}: error: {_one_line(message)}\n")


def _unknown_flag(config_class: type, config: Any, argument: str, common: Sequence[str]) -> str:
    """Returns the message for an unknown flag: one of another objective, or a misspelt one.

    ``common`` are the names of flags that aren't fields of the dataclass.
    """
    flag = argument.split("=")[0]
    name = flag.replace("-", "_").strip("_")
    known = list(common)
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


def decode_argument(text: str) -> str:
    """Returns an argument as text where Python takes the locale to be ASCII.

    Bytes of UTF-8 arrive as lone surrogates there.

    Raises:
        ValueError: if the bytes aren't UTF-8.
    """
    try:
        return text.encode(errors="surrogateescape").decode()
    except UnicodeError as error:
        raise ValueError(f"{escape(text)} isn't text in UTF-8") from error


def unknown_command(prog: str, name: str, commands: Collection[str]) -> NoReturn:
    """Exits with status 2 after an error that lists the commands.

    Args:
        prog: name of the program.
        name: the unknown command.
        commands: the commands that there are.
    """
    near = difflib.get_close_matches(name, commands, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    message = f"unknown command {name}{hint}; there are {', '.join(commands)}"
    print(f"{prog}: error: {_one_line(message)}", file=sys.stderr)
    sys.exit(2)


def run(
    main: Callable[[Any], None],
    config_class: type,
    *,
    description: str,
    args: Sequence[str] | None = None,
    prog: str | None = None,
    presets: Mapping[str, Sequence[str]] | None = None,
) -> NoReturn:
    """Parses flags, calls ``main`` with them and exits; see :func:`exit_after` for the status.

    Messages of the ``jvae_jax`` logger go to stdout. Errors are one line on stderr; ``--debug``
    shows the traceback. Compiled programs are cached in ``$JAX_COMPILATION_CACHE_DIR`` or else in
    the user's cache folder.

    Args:
        main: function of the configuration.
        config_class: dataclass of the flags; see :func:`parse`.
        description: first line of the help.
        args: command-line arguments; default: those of the process.
        prog: name of the program; default: that of the script.
        presets: flags by the value of ``--preset``; see :func:`parse`.
    """
    args = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in args

    def call() -> None:
        config = parse(config_class, args, description=description, prog=prog, presets=presets)
        _set_compilation_cache()
        if not debug:
            _hide_thread_errors()
        with _warnings_in_one_line(), _logging_to_stdout(), default_numerics():
            main(config)

    exit_after(call, debug=debug)


def exit_after(function: Callable[[], None], *, debug: bool = False) -> NoReturn:
    """Calls a function and exits with a status; reports errors in one line on stderr.

    If stdout or stderr is closed, at once or later (``| head -1``), the function runs to its end
    all the same: it may be training.

    ======  ========================================================
    status  meaning
    ======  ========================================================
    0       success, or training was stopped by SIGTERM
    1       an error that isn't in the input, such as a full disk
    2       wrong flags or invalid data: a ValueError
    130     interrupted by SIGINT
    141     success, but the reader of stdout had closed it
    ======  ========================================================

    Args:
        function: what to call; it may itself exit.
        debug: raise errors instead of reporting them.
    """
    _open_closed_descriptors()
    status: Any = 0
    with contextlib.ExitStack() as closing:
        null = closing.enter_context(Path(os.devnull).open("w"))
        stdout, stderr = _Output(sys.stdout or null, escapes=True), _Output(sys.stderr or null)
        closing.enter_context(contextlib.redirect_stdout(stdout))
        closing.enter_context(contextlib.redirect_stderr(stderr))
        try:
            function()
        except SystemExit as stop:
            status = stop.code
        except KeyboardInterrupt:
            status = 130
        except Exception as error:
            if debug:
                raise
            print(f"error: {_describe(error)}", file=sys.stderr)
            status = 2 if isinstance(error, ValueError) else 1
        stdout.flush()
        if stdout.error is not None and not status:
            status = 141
            if not isinstance(stdout.error, BrokenPipeError):
                print(f"error: can't write to stdout: {stdout.error.strerror}", file=sys.stderr)
                status = 1
        stderr.flush()
    sys.exit(status)


class _Output(io.TextIOBase):
    """A text stream to which printing never fails: after an error, which it keeps, it is silent.

    Characters that the terminal's encoding lacks are written as escapes.
    """

    error: OSError | None = None

    def __init__(self, stream: Any, *, escapes: bool = False) -> None:
        """Wraps a stream.

        Args:
            stream: the text stream.
            escapes: whether to escape control characters but the end of a line.
        """
        self._stream = stream
        self._escapes = escapes
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        self._try(self._stream.write, escape(text, keep="\n") if self._escapes else text)
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, function: Callable[..., Any], *args: str) -> None:
        if self.error is not None:
            return
        try:
            function(*args)
        except OSError as error:
            self.error = error
            # Python writes the rest of its buffer when it exits.
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def close(self) -> None:
        """Does nothing: the stream is another's, and may be closed before this is collected."""

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # tqdm draws its bar with it
        return self._stream.encoding


def _open_closed_descriptors() -> None:
    """Opens the null device as stdin, stdout and stderr where they are closed.

    The next files to be opened would take their place, and what C++ libraries print.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _describe(error: Exception) -> str:
    """Returns an error in one line, with its type if it isn't expected."""
    message = _one_line(describe_error(error))
    is_expected = isinstance(error, (ValueError, OSError, ArithmeticError, RuntimeError))
    return message if is_expected else f"{message} ({type(error).__name__}; --debug shows where)"


def _one_line(text: str) -> str:
    return escape(" ".join(text.split()))


@contextlib.contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Prints warnings on stderr without their place in the code, and JAX's of its cache once."""
    is_reported = False

    def show(message: Warning | str, *_: Any) -> None:
        nonlocal is_reported
        text = _one_line(str(message))
        if cache_error := re.match(
            r"Error (reading|writing) persistent compilation cache entry for [^:]*: (.*)", text
        ):
            if is_reported:
                return
            is_reported = True
            folder = escape(str(jax.config.jax_compilation_cache_dir))  # type: ignore
            text = f"error {cache_error[1]} the compilation cache in {folder}: {cache_error[2]}"
        print(f"warning: {text}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


class _OneLineFormatter(logging.Formatter):
    """Formats a record as its message, with control characters escaped."""

    def format(self, record: logging.LogRecord) -> str:
        return escape(record.getMessage())


@contextlib.contextmanager
def _logging_to_stdout() -> Iterator[None]:
    """Prints messages of the ``jvae_jax`` logger, from INFO on."""
    logger = logging.getLogger("jvae_jax")
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_OneLineFormatter())
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


def _hide_thread_errors() -> None:
    """Suppresses the errors of Orbax's threads if it can't read or write: one is reported."""
    previous = sys.unraisablehook
    if getattr(previous, "__name__", "") == "except_closed_event_loops":
        return

    def except_closed_event_loops(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            previous(unraisable)

    sys.unraisablehook = except_closed_event_loops
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    logging.getLogger("absl").addFilter(lambda r: "_SignalingThread" not in r.getMessage())


def _set_compilation_cache() -> None:
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    # One folder per machine: machines with different processors may share a home folder.
    try:
        folder = Path("~/.cache/jvae_jax/compiled").expanduser() / platform.node()
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # there may be no home folder
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # By default only programs that took a second to compile are kept; a command has dozens that
        # took less.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
