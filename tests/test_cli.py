"""Flags, help, errors, logging and the compilation cache of the command line."""

import io
import logging
import os
import re
import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import jax
import pytest
from simple_parsing import subgroups

from jvae_jax import cli
from jvae_jax.commands.evaluate import EvaluateFlags
from jvae_jax.commands.explore import ExploreFlags
from jvae_jax.commands.export import ExportFlags
from jvae_jax.commands.generate import GenerateFlags
from jvae_jax.commands.train import TrainFlags
from jvae_jax.data import DATASETS
from jvae_jax.objectives import OBJECTIVES, PRESETS, BetaVAE, JointVAE, Objective, Ours


@dataclass(frozen=True, kw_only=True)
class Config:
    """Test flags."""

    workdir: str
    """Folder of the run."""
    kind: Literal["a", "b"] = "a"
    """Kind of the run."""
    batch_size: int = 3
    """Images per step."""
    rate: float | None = None
    """Rate, up to 100% of the maximum."""
    verbose: bool = False
    """Print more."""


@dataclass(frozen=True, kw_only=True)
class OursWithFocus(Ours):
    """An objective with another hyperparameter."""

    focus: float = 0.25
    """Weight of the images in focus."""


@dataclass(frozen=True, kw_only=True)
class ExtendedFlags:
    """Flags with an objective that the package doesn't have."""

    objective: Objective = subgroups(
        {"ours": Ours, "ours_with_focus": OursWithFocus}, default="ours"
    )
    """Training objective."""


def parse(*args, config_class=Config):
    return cli.parse(config_class, args, description="A test.")


def help_of(config_class, *args, capsys):
    """Returns the help text with normalized white space."""
    with pytest.raises(SystemExit) as stop:
        parse(*args, "--help", config_class=config_class)
    assert stop.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def test_flags_fill_the_dataclass():
    assert parse("--workdir=x") == Config(workdir="x")
    expected = Config(workdir="x", kind="b", batch_size=5, rate=0.5)
    assert parse("--workdir", "x", "--kind=b", "--batch_size=5", "--rate=0.5") == expected
    assert parse("--workdir=x", "--kind=b", "--batch-size=5", "--rate=.5") == expected
    assert parse("--workdir=x", "--verbose").verbose


def test_flags_accept_dashes():
    args = ("--batch-size=8", "--labelled-batch-fraction=0.5", "--consistency-weight=2")
    config = parse(*args, config_class=TrainFlags)
    assert (config.batch_size, config.labelled_batch_fraction) == (8, 0.5)
    assert config.objective == Ours(consistency_weight=2.0)


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("--verbose", True),
        ("--verbose=yes", True),
        ("--verbose=true", True),
        ("--verbose=no", False),
    ],
)
def test_boolean_flags_accept_values(flag, expected):
    assert parse("--workdir=x", flag).verbose == expected


@pytest.mark.fault(
    "flags", "unknown, incomplete or mistyped flag", "one line that names it; exit status 2"
)
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["--workdir=x", "--batchsize=3"],
            "unknown argument --batchsize; did you mean --batch_size?",
        ),
        (["--workdr=x", "--workdir=y"], "unknown argument --workdr; did you mean --workdir?"),
        (["--workdir=x", "--zzz"], "unknown argument --zzz; --help lists the flags"),
        (["--workdir=x", "--kind=c"], "invalid choice: 'c' (choose from"),
        (["--workdir=x", "--batch_size=two"], "invalid int value: 'two'"),
        (
            ["--workdir=x", "--batch_size"],
            "argument --batch_size/--batch-size: expected one argument",
        ),
        (["--workdir=x", "--rate"], "argument --rate: expected one argument"),
        (["--workdir=x", "--noverbose=yes"], "Negative flags cannot be passed a value"),
        (
            ["--workdir=x", "--verbose=maybe"],
            "Boolean value expected for argument, received 'maybe'",
        ),
        ([], "required: --workdir"),
    ],
)
def test_invalid_flags_are_one_line_errors(args, message, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.parse(Config, args, description="A test.", prog="PROG")
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("PROG: error: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--objective=vae", "--beta=3"], "vae has no beta; it has reconstruction_loss"),
        (["--objective=vae", "--gamma=3"], "vae has no gamma; it has reconstruction_loss"),
        (
            ["--objective=beta_vae", "--gamma=1"],
            "beta_vae has no gamma; it has reconstruction_loss, beta",
        ),
        (["--objective=gan"], "invalid choice: 'gan' (choose from"),
        (["--reconstruction_loss=mse"], "invalid choice: 'mse' (choose from"),
        (["--beta=nan"], "beta must be 0 or more, got nan"),
        (["--objective=vae", "--num_labels=9"], "vae uses no labels, so num_labels has no effect"),
    ],
)
def test_invalid_objectives_are_usage_errors(args, message, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(*args, config_class=TrainFlags)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objective_flag_selects_the_objective(name):
    assert parse(f"--objective={name}", config_class=TrainFlags).objective == OBJECTIVES[name]()


def test_hyperparameters_are_flags_of_the_objective():
    args = ("--objective", "beta_vae", "--beta", "2", "--reconstruction_loss=squared_error")
    objective = parse(*args, config_class=TrainFlags).objective
    assert objective == BetaVAE(beta=2.0, reconstruction_loss="squared_error")
    # Flags of the objective may come before it.
    args = ("--gamma=4", "--objective=joint_vae", "--capacity_steps=9")
    objective = parse(*args, config_class=TrainFlags).objective
    assert objective == JointVAE(gamma=4.0, capacity_steps=9)


def test_new_hyperparameter_is_a_flag(capsys):
    args = ("--objective=ours_with_focus", "--focus=0.5", "--beta=2")
    config = parse(*args, config_class=ExtendedFlags)
    assert config.objective == OursWithFocus(focus=0.5, beta=2.0)
    text = help_of(ExtendedFlags, "--objective=ours_with_focus", capsys=capsys)
    assert "--focus float Weight of the images in focus. (default: 0.25)" in text
    assert "--focus" not in help_of(ExtendedFlags, capsys=capsys)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_train_help_lists_every_flag(name, capsys):
    text = help_of(TrainFlags, f"--objective={name}", capsys=capsys)
    for config_class in (TrainFlags, OBJECTIVES[name]):
        for field in fields(config_class):
            assert f"--{field.name} " in text
    assert "--debug" in text
    for detail in ("(default: ours)", "{vae,cvae,beta_vae", "{float32,bfloat16}"):
        assert detail in text


def test_train_help_describes_hyperparameters_of_the_chosen_objective(capsys):
    text = help_of(TrainFlags, "--objective=vae", capsys=capsys)
    assert "--beta" not in text
    assert "VAE flags: Variational autoencoder, eq. 1." in text
    text = help_of(TrainFlags, "--objective=ours", capsys=capsys)
    # Python 3.13 names the metavar once.
    text = text.replace("--consistency_weight float,", "--consistency_weight,")
    help_text = (
        "--consistency_weight, --consistency-weight float Weight of the consistency loss "
        "between q(c|x) and q(c|x'), where x' is an augmentation of x or of an image near it, "
        "which helps if few or no images are labelled. Not in the paper, nor are the other options "
        "of this loss. (default: 0.0)"
    )
    assert help_text in text
    for objective, capacity in (("ours", "0.0"), ("joint_vae", "5.0")):
        text = help_of(TrainFlags, f"--objective={objective}", capsys=capsys)
        (default,) = re.findall(r"--capacity-c float .*?\(default: ([\d.]+)\)", text)
        assert default == capacity
        assert "in nats" in text


def test_train_help_lists_every_dataset(capsys):
    text = help_of(TrainFlags, capsys=capsys)
    (dataset_help,) = re.findall(r"--dataset str (.*?) --data_dir", text)
    for name in DATASETS:
        assert re.search(rf"\b{re.escape(name)}\b", dataset_help), name


@pytest.mark.parametrize(
    "config_class", [TrainFlags, EvaluateFlags, GenerateFlags, ExploreFlags, ExportFlags]
)
def test_help_has_no_trace_of_the_parser(config_class, capsys):
    """Choices are listed, and neither types nor the names of destinations are shown."""
    text = help_of(config_class, capsys=capsys)
    for fragment in ("Literal", "['config']", "config.", "None", "MISSING", "[str]", "[int]"):
        assert fragment not in text
    assert f"{config_class.__name__.removesuffix('Flags')} flags:" in text


def test_help_is_deterministic():
    """simple_parsing keeps flags in sets, whose order depends on the hash seed."""
    program = [sys.executable, "-m", "jvae_jax", "train", "--help"]
    texts = {
        subprocess.check_output(program, text=True, env={**os.environ, "PYTHONHASHSEED": seed})
        for seed in ("1", "2", "3")
    }
    assert len(texts) == 1


def run_and_exit(main, *args, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.run(main, Config, description="A test.", args=["--workdir=x", *args])
    return stop.value.code, capsys.readouterr().err


def failing_with(error):
    def main(_config):
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ValueError("bad\nvalue 3"), 2, "error: bad value 3\n"),
        (OSError(28, "No space left on device"), 1, "error: No space left on device\n"),
        (OSError(28, "No space", "a.png"), 1, "error: can't write a.png: No space\n"),
        (OSError(2, "No such file", "a.png"), 1, "error: a.png: No such file\n"),
        (OSError("no home"), 1, "error: no home\n"),
        (ArithmeticError("not finite"), 1, "error: not finite\n"),
        (KeyError("x"), 1, "error: 'x' (KeyError; --debug shows where)\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_are_one_line_with_a_status(error, code, message, capsys):
    assert run_and_exit(failing_with(error), capsys=capsys) == (code, message)


def test_success_has_status_zero(capsys):
    assert run_and_exit(lambda _config: None, capsys=capsys) == (0, "")


def test_debug_raises_the_error():
    with pytest.raises(ValueError, match="bad"):
        cli.run(
            failing_with(ValueError("bad")),
            Config,
            description="A test.",
            args=["--workdir=x", "--debug"],
        )


def test_prints_log_messages_once(capsys):
    """Messages of the package go to stdout; its logger is left as it was."""
    logger = logging.getLogger("jvae_jax")
    before = logger.level, logger.propagate, list(logger.handlers)

    def main(_config):
        logging.getLogger("jvae_jax.training").info("%d steps", 3)
        logging.getLogger("jvae_jax").debug("details")
        logging.getLogger("other").error("unrelated")

    with pytest.raises(SystemExit):
        cli.run(main, Config, description="A test.", args=["--workdir=x"])
    assert capsys.readouterr().out == "3 steps\n"
    assert (logger.level, logger.propagate, logger.handlers) == before


@pytest.fixture
def cache_dir():
    """Returns the current compilation cache; restores it at the end."""
    options = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"
    before = {name: getattr(jax.config, name) for name in options}
    yield lambda: jax.config.jax_compilation_cache_dir
    for name, value in before.items():
        jax.config.update(name, value)


def test_caches_compiled_programs_per_machine(cache_dir, tmp_path, monkeypatch, capsys):
    """However fast they compiled. JAX's environment variables take precedence."""
    option = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
    min_seconds = lambda: getattr(jax.config, option.lower())  # noqa: E731
    jax.config.update(option.lower(), 5.0)
    monkeypatch.setenv("HOME", str(tmp_path))
    before = cache_dir()
    assert run_and_exit(lambda _config: None, capsys=capsys) == (0, "")
    assert (cache_dir(), min_seconds()) == (before, 5.0)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv(option, "5")
    assert run_and_exit(lambda _config: None, capsys=capsys) == (0, "")
    (folder,) = tmp_path.glob(".cache/jvae_jax/compiled/*")
    assert (cache_dir(), min_seconds()) == (str(folder), 5.0)
    monkeypatch.delenv(option)
    assert run_and_exit(lambda _config: None, capsys=capsys) == (0, "")
    assert (cache_dir(), min_seconds()) == (str(folder), 0.0)


@pytest.mark.fault("environment", "home folder that is a file", "commands work without a cache")
def test_unwritable_home_is_no_error(cache_dir, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    before = cache_dir()
    assert run_and_exit(lambda _config: None, capsys=capsys) == (0, "")
    assert cache_dir() == before


@pytest.mark.fault(
    "environment",
    "no home folder: HOME unset, user unknown",
    "commands work without a cache of compiled programs",
)
def test_missing_home_is_no_error(cache_dir, monkeypatch, capsys):
    pwd = pytest.importorskip("pwd")

    def unknown(_uid):
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    before = cache_dir()
    assert run_and_exit(lambda _config: None, capsys=capsys) == (0, "")
    assert cache_dir() == before


COMPILE_TWICE = """
import pathlib, sys, jax
from jvae_jax import cli
from jvae_jax.commands.export import ExportFlags

jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

def compile():
    jax.clear_caches()
    for factor in (2, 3):
        assert jax.jit(lambda x: x * factor)(1) == factor

def main(flags):
    folder = pathlib.Path(flags.output)
    if folder.is_dir():
        compile()
        entries = [path for path in folder.iterdir() if path.name.endswith("-cache")]
        assert len(entries) >= 2
        for path in entries:
            path.write_bytes(b"garbage")
    compile()

cli.run(main, ExportFlags, description="", args=["--workdir=x", f"--output={sys.argv[1]}"])
"""


@pytest.mark.fault(
    "environment",
    "cache of compiled programs that is damaged or no folder",
    "one warning, and the command works",
)
@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("file", "FileExistsError", marks=pytest.mark.long),
        ("folder", "decompress"),
    ],
)
def test_unusable_compilation_cache_is_one_warning(name, message, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    path = tmp_path / name
    process = subprocess.run(
        [sys.executable, "-c", COMPILE_TWICE, path],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(path)},
    )
    assert process.returncode == 0, process.stderr
    start = f"warning: error reading the compilation cache in {path}: "
    assert process.stderr.startswith(start)
    assert message in process.stderr
    assert process.stderr.count("\n") == 1


def print_and_log(_config):
    """More than the buffers of Python and of a pipe hold."""
    for _ in range(200):
        print("x" * 1000, flush=True)
        logging.getLogger("jvae_jax").info("message")
    done.append(True)


done = []


@pytest.fixture
def status_with(monkeypatch, capsys):
    """Returns the status of a command that prints to a stream, which must be done, and stderr."""

    def call(stream, main=print_and_log):
        done.clear()
        monkeypatch.setattr(sys, "stdout", stream)
        status, error = run_and_exit(main, capsys=capsys)
        assert main is not print_and_log or done == [True]
        return status, error

    return call


@pytest.mark.fault(
    "output",
    "stdout closed early, as by `head -1`",
    "the command does its work quietly; exit status 141",
)
def test_stdout_closed_early(status_with):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        assert status_with(stream) == (141, "")


@pytest.mark.fault(
    "output", "stdout on a full device", "the command does its work; one line and exit status 1"
)
def test_full_stdout(status_with):
    with Path("/dev/full").open("w") as stream:
        message = "error: can't write to stdout: No space left on device\n"
        assert status_with(stream) == (1, message)


@pytest.mark.fault("output", "stdout closed from the start", "the command does its work")
def test_no_stdout(status_with):
    assert status_with(None) == (0, "")


@pytest.mark.fault(
    "output",
    "failure of a command whose stdout is closed",
    "its own exit status and message",
)
def test_error_matters_more_than_closed_stdout(status_with):
    def main(config):
        print_and_log(config)
        raise ValueError("bad")

    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        assert status_with(stream, main) == (2, "error: bad\n")


@pytest.mark.fault("output", "terminal that isn't UTF-8", "other characters are written as escapes")
def test_stdout_that_lacks_characters(status_with):
    def main(_config):
        print("class い")
        logging.getLogger("jvae_jax").warning("class り")

    buffer = io.BytesIO()
    stream = io.TextIOWrapper(buffer, encoding="ascii")
    assert status_with(stream, main) == (0, "")
    assert buffer.getvalue() == b"class \\u3044\nclass \\u308a\n"


@pytest.mark.fault(
    "output",
    "control characters and terminal escapes in names, paths and flags",
    "printed as escapes, in one line",
)
def test_escapes_control_characters(capsys):
    name = "\x1b[31mred\x9b\u202e\nerror: forged"

    def main(_config):
        print("class \x1b[31m\r\u202e\tx")
        logging.getLogger("jvae_jax").info("from %s", name)
        raise OSError(2, "No such file", f"/tmp/{name}")

    with pytest.raises(SystemExit):
        cli.run(main, Config, description="A test.", args=["--workdir=x"])
    out, err = capsys.readouterr()
    assert out == ("class \\x1b[31m\\r\\u202e\\tx\nfrom \\x1b[31mred\\x9b\\u202e\\nerror: forged\n")
    assert err == "error: /tmp/\\x1b[31mred\\x9b\\u202e error: forged: No such file\n"
    with pytest.raises(SystemExit):
        cli.parse(Config, ["--workdir=x", f"--{name}"], description="A test.", prog="PROG")
    assert capsys.readouterr().err == (
        "PROG: error: unknown argument --\\x1b[31mred\\x9b\\u202e error: forged; --help lists the "
        "flags\n"
    )


@pytest.mark.fault("processes", "SIGINT while flags are read", "ends quietly; exit status 130")
def test_interrupt_while_flags_are_read(monkeypatch, capsys):
    def interrupt(*_args, **_flags):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "parse", interrupt)
    assert run_and_exit(print_and_log, capsys=capsys) == (130, "")


EXTENDED_PRESETS = {"paper": (), "focused": ("--objective=ours_with_focus", "--focus=3")}


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], Ours()),
        (["--preset=paper"], Ours()),
        (["--preset", "focused"], OursWithFocus(focus=3)),
        (["--focus=4", "--preset=focused", "--beta=2"], OursWithFocus(focus=4, beta=2.0)),
    ],
)
def test_preset_stands_for_flags_that_others_override(args, expected):
    config = cli.parse(ExtendedFlags, args, description="", presets=EXTENDED_PRESETS)
    assert config.objective == expected


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--preset=none"], "invalid choice: 'none' (choose from"),
        (["--preset"], "--preset: expected one argument"),
        (["--preste=focused"], "unknown argument --preste; did you mean --preset?"),
        (["--preset=focused", "--objective=ours"], "--preset: ours has no focus; it has"),
    ],
)
def test_invalid_presets(args, message, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.parse(ExtendedFlags, args, description="", presets=EXTENDED_PRESETS)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_presets_of_train_are_those_of_the_objectives():
    for name, objective in PRESETS.items():
        flags = objective.flags()
        assert cli.parse(TrainFlags, flags, description="").objective == objective, name
    assert PRESETS["paper"].flags() == []
