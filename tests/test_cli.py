from dataclasses import dataclass

import jax
import pytest

from jvae_jax import cli
from jvae_jax.training.config import TrainConfig
from jvae_jax.validation import option


@dataclass(frozen=True, kw_only=True)
class Config:
    workdir: str = option("where")
    kind: str = option("which", default="a", choices=("a", "b"))
    batch_size: int = option("how many", default=3)
    rate: float | None = option("how fast, 100% sure", default=None)
    loud: bool = option("whether to say so", default=False)


def parse(*args):
    return cli.parse(Config, args, description="A test.")


def test_flags_fill_the_dataclass():
    assert parse("--workdir=x") == Config(workdir="x")
    expected = Config(workdir="x", kind="b", batch_size=5, rate=0.5)
    assert parse("--workdir", "x", "--kind=b", "--batch_size=5", "--rate=0.5") == expected
    assert parse("--workdir=x", "--kind=b", "--batch-size=5", "--rate=.5") == expected
    assert parse("--workdir=x", "--loud").loud


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
        ([], "required: --workdir"),
    ],
)
def test_bad_flags_are_told_in_one_line(args, message, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(*args)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_help_tells_every_flag(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.parse(TrainConfig, ["--help"], description="Train.")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for flag in TrainConfig.__dataclass_fields__:
        assert f"--{flag} " in text or f"--{flag}," in text
    assert "--debug" in text
    for detail in ("(default: ours)", "{vae,cvae,beta_vae", "5 (joint_vae), 0 (ours)", "in nats"):
        assert detail in " ".join(text.split())


def exit_of(main, *args, capsys):
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
        (OSError(28, "No space left on device"), 1, "error: [Errno 28] No space left on device\n"),
        (ArithmeticError("not finite"), 1, "error: not finite\n"),
        (KeyError("x"), 1, "error: 'x' (KeyError; --debug shows where)\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_are_one_line_with_a_status(error, code, message, capsys):
    assert exit_of(failing_with(error), capsys=capsys) == (code, message)


def test_success_is_zero(capsys):
    assert exit_of(lambda _config: None, capsys=capsys) == (0, "")


def test_debug_shows_where():
    with pytest.raises(ValueError, match="bad"):
        cli.run(
            failing_with(ValueError("bad")),
            Config,
            description="A test.",
            args=["--workdir=x", "--debug"],
        )


def test_invalid_combinations_are_usage_errors(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.parse(TrainConfig, ["--objective=vae", "--gamma=3"], description="Train.")
    assert stop.value.code == 2
    assert "vae has no gamma" in capsys.readouterr().err


@pytest.fixture
def cache_setting():
    before = jax.config.jax_compilation_cache_dir
    yield lambda: jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", before)


def test_what_is_compiled_is_kept(cache_setting, tmp_path, monkeypatch, capsys):
    """In a folder of the machine's own, unless the user says where."""
    monkeypatch.setenv("HOME", str(tmp_path))
    before = cache_setting()
    assert exit_of(lambda _config: None, capsys=capsys) == (0, "")
    assert cache_setting() == before
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    assert exit_of(lambda _config: None, capsys=capsys) == (0, "")
    (folder,) = tmp_path.glob(".cache/jvae_jax/compiled/*")
    assert cache_setting() == str(folder)


def test_an_unwritable_home_is_no_error(cache_setting, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    before = cache_setting()
    assert exit_of(lambda _config: None, capsys=capsys) == (0, "")
    assert cache_setting() == before
