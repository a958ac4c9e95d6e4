"""``jvae`` and ``python -m jvae_jax``."""

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jvae_jax import commands
from jvae_jax.__main__ import COMMANDS

ROOT = Path(__file__).parents[2]
SMALL = ["--dataset=mnist_5k", "--image_size=8", "--batch_size=400", "--latents=3", "--epochs=1"]


def run_process(*args, cwd):
    return subprocess.run(
        [sys.executable, *map(str, args)], capture_output=True, text=True, cwd=cwd, check=False
    )


@pytest.mark.parametrize("args", [[], ["-h"], ["--help"]])
def test_help_lists_commands(args, call):
    status, text, error = call(*args)
    assert (status, error) == (0, "")
    assert text.startswith("usage: jvae COMMAND [flags]")
    for name, description in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(description)}$", text, re.MULTILINE)


def test_version(call):
    assert call("--version") == (0, f"{importlib.metadata.version('jvae_jax')}\n", "")


@pytest.mark.fault("flags", "unknown command", "one line that lists the commands; exit status 2")
@pytest.mark.parametrize(("name", "hint"), [("trian", " (did you mean train?)"), ("--verbose", "")])
def test_unknown_command_is_one_line_error(name, hint, call):
    commands = "train, evaluate, generate, hand, write, font, explore, export, models"
    message = f"jvae: error: unknown command {name}{hint}; there are {commands}"
    assert call(name) == (2, "", f"{message}\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_command_has_help_under_its_name(name, call):
    status, text, _ = call(name, "--help")
    assert status == 0
    assert text.startswith(f"usage: jvae {name} ")
    status, _, error = call(name, "--bogus")
    assert status == 2
    assert error.startswith(f"jvae {name}: error: ")
    assert error.count("\n") == 1


@pytest.mark.fault(
    "environment", "python -OO, which strips docstrings", "help explains every flag all the same"
)
def test_help_without_docstrings(call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    program = f"""
import sys
from jvae_jax.__main__ import main
for name in {list(COMMANDS)}:
    try:
        main([name, "--help"])
    except SystemExit:
        print()
"""
    process = run_process("-OO", "-c", program, cwd=ROOT)
    helps = [call(name, "--help")[1] for name in COMMANDS]
    # Only the sentences about all flags of a command, and of an objective, are lost.
    lost = "Defaults are the paper's|Joint-VAE with a label|(Evaluation|Generation|Export) flags\\."
    lost += "|Flags of the (page|hand|text|font)\\."
    lines = [
        line
        for line in "\n".join(helps).splitlines()
        if line and not re.match(rf"  ({lost})", line)
    ]
    assert [line for line in process.stdout.splitlines() if line] == lines


def test_every_command_module_is_listed():
    modules = {path.stem for path in Path(commands.__file__).parent.glob("[!_]*.py")}
    assert modules == set(COMMANDS)


@pytest.mark.parametrize("name", ["train", "evaluate", "generate", "explore", "export"])
def test_script_only_calls_the_command(name):
    """experiments/NAME.py has a docstring, an import and a call."""
    tree = ast.parse((ROOT / "experiments" / f"{name}.py").read_text())
    docstring, *statements = map(ast.unparse, tree.body)
    assert f"``jvae {name}``" in docstring
    assert statements == [f"from jvae_jax.commands import {name}", f"{name}.main()"]


@pytest.mark.long
def test_command_equals_module_and_script(tmp_path):
    """All three ways to train print the same messages and write the same files."""
    starts = {
        "command": ["-c", "from jvae_jax.__main__ import main; main()", "train"],
        "module": ["-m", "jvae_jax", "train"],
        "script": [ROOT / "experiments" / "train.py"],
    }
    outputs, files = {}, {}
    for name, start in starts.items():
        folder = tmp_path / name
        folder.mkdir()
        process = run_process(*start, *SMALL, "--workdir=run", cwd=folder)
        assert process.returncode == 0, process.stderr
        outputs[name] = process.stdout
        files[name] = {
            file: (folder / "run" / file).read_bytes() for file in ("metrics.jsonl", "samples.png")
        }
        for file in ("config.json", "evaluation.json"):
            # The environment has the commit, which may change in the meantime.
            contents = json.loads((folder / "run" / file).read_text())
            files[name][file] = {**contents, "environment": None}
    assert outputs["command"] == outputs["module"] == outputs["script"]
    assert files["command"] == files["module"] == files["script"]


def test_module_exits_with_the_status_of_the_command(tmp_path):
    process = run_process("-m", "jvae_jax", "evaluate", "--workdir=none", cwd=tmp_path)
    assert process.returncode == 1
    assert process.stderr == "error: none is not a run: it has no config.json\n"
    process = run_process("-m", "jvae_jax", "nonsense", cwd=tmp_path)
    assert process.returncode == 2
    assert not list(tmp_path.iterdir())
