"""The scripts, as a user starts them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import crash
import numpy as np
import pytest
from PIL import Image

from jvae_jax.training.run import load_run

ROOT = Path(__file__).parents[2]
SMALL = ["--dataset=mnist_5k", "--image_size=8", "--batch_size=200", "--latents=3"]


def script(name, *args):
    return [sys.executable, str(ROOT / "experiments" / f"{name}.py"), *map(str, args)]


def call(name, *args, cwd):
    return subprocess.run(script(name, *args), capture_output=True, text=True, cwd=cwd, check=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("user")
    done = call("train", *SMALL, "--epochs=2", "--data-dir=data", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_training_tells_and_keeps_what_it_should(trained):
    folder, done = trained
    assert done.stdout.splitlines()[0].startswith("data: mnist_5k")
    assert "accuracy" in done.stdout
    assert "epoch 2/2 | train loss" in done.stderr
    workdir = folder / "runs" / "ours-mnist_5k-0"
    contents = json.loads((workdir / "config.json").read_text())
    assert contents["config"]["dataset"] == "mnist_5k"
    assert contents["data"]["train_examples"] == 4000
    files = {path.name for path in workdir.iterdir()}
    assert files == {
        "checkpoints",
        "config.json",
        "evaluation.json",
        "metrics.jsonl",
        "samples.png",
    }


def test_a_second_start_says_it_is_finished(trained):
    folder, _ = trained
    done = call("train", *SMALL, "--epochs=2", "--data-dir=data", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "is finished" in done.stdout


def test_evaluate(trained):
    folder, _ = trained
    workdir = folder / "runs" / "ours-mnist_5k-0"
    ended_with = json.loads((workdir / "evaluation.json").read_text())
    done = call("evaluate", f"--workdir={workdir}", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert f"{ended_with['accuracy']:.4f}" in done.stdout
    assert json.loads((workdir / "evaluation.json").read_text()) == ended_with


def test_generate(trained):
    folder, _ = trained
    workdir = "runs/ours-mnist_5k-0"
    picture = folder / "x.png"
    done = call(
        "generate",
        f"--workdir={workdir}",
        "--labels=3,1,4",
        "--samples=8",
        "--seed=0",
        f"--output={picture}",
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    first = picture.read_bytes()
    assert first.startswith(b"\x89PNG")
    done = call("generate", f"--workdir={workdir}", "--labels=3,12", "--output=y.png", cwd=folder)
    assert done.returncode == 2
    assert done.stderr == "error: no label 12 here; there are 0, 1, 2, 3, 4, 5, 6, 7, 8, 9\n"
    assert not (folder / "y.png").exists()


def test_export_and_draw_from_it(trained, tmp_path):
    folder, _ = trained
    workdir = folder / "runs" / "ours-mnist_5k-0"
    for code in (0, 2):
        done = call("export", f"--workdir={workdir}", "--output=model", cwd=tmp_path)
        assert done.returncode == code, done.stderr
    assert "model holds something already" in done.stderr
    assert {"config.json", "model.safetensors", "README.md"} <= {
        path.name for path in (tmp_path / "model").iterdir()
    }
    for name, source in (("a", workdir), ("b", tmp_path / "model")):
        done = call("generate", f"--workdir={source}", f"--output={name}.png", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--objectiv=ours"], 2, "unknown argument --objectiv; did you mean --objective?"),
        (["--dataset=minst"], 2, "unknown data set 'minst' (did you mean mnist?)"),
        (["--dataset=none.npz"], 1, "No such file or directory: 'none.npz'"),
        (["--dataset=folder", "--data_dir=none"], 2, "there is no folder /"),
        (["--dataset=mnist_5k", "--epochs=0"], 2, "epochs must be above 0, got 0"),
        (["--dataset=mnist_5k", "--batch_size=5000"], 2, "don't fill one batch of 5000"),
        (["--dataset=mnist_5k", "--workdir=/dev/null/x"], 1, "/dev/null"),
    ],
)
def test_errors_are_one_line(args, code, message, tmp_path):
    done = call("train", *args, cwd=tmp_path)
    assert done.returncode == code
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.rglob("*"))


@pytest.mark.long
def test_pictures_of_ones_own(tmp_path):
    """A folder of classes with Japanese names; then a picture changes."""
    rng = np.random.default_rng(0)
    mine = tmp_path / "mine"
    for index, name in enumerate("いり"):
        (mine / name).mkdir(parents=True)
        for number in range(40):
            pixels = rng.integers(180, 256, (12, 12), np.uint8)
            pixels[:, 3 + 4 * index : 5 + 4 * index] = 0
            Image.fromarray(pixels).save(mine / name / f"ファイル{number}.png")
    train = [*SMALL[1:], "--dataset=folder", f"--data_dir={mine}", "--batch_size=8", "--epochs=1"]
    env = {**os.environ, "HOME": str(tmp_path / "home")}

    def start(name, *args):
        command = script(name, *args)
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env)

    done = start("train", *train)
    assert done.returncode == 0, done.stderr
    assert f"data: folder, 72 train and 8 test images of 2 classes, from {mine}" in done.stdout
    workdir = tmp_path / "runs" / "ours-mine-0"
    assert load_run(workdir).data.class_names == ("い", "り")
    done = start("generate", f"--workdir={workdir}", "--labels=り", "--output=x.png")
    assert done.returncode == 0, done.stderr

    Image.fromarray(np.full((12, 12), 255, np.uint8)).save(mine / "い" / "ファイル0.png")
    for name, args in (("train", train), ("evaluate", [f"--workdir={workdir}"])):
        done = start(name, *args)
        assert done.returncode == 2
        assert "fingerprint is" in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.long
def test_a_judge_marks_a_run(tmp_path):
    workdir = tmp_path / "run"
    flags = [*SMALL, "--batch_size=50", "--epochs=10", "--data_dir=data", f"--workdir={workdir}"]
    done = call("train", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for _ in range(2):
        done = call(
            "evaluate", f"--workdir={workdir}", "--eval_classifier", "--data_dir=data", cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "data" / "eval_classifiers").iterdir())) == 1
    found = json.loads((workdir / "evaluation.json").read_text())
    assert found["eval_classifier_accuracy"] > 0.8  # at 8x8 pixels
    assert np.sum(found["confusion"]) == 10_000
    assert found["conditional_accuracy"] > 0.6  # chance is 0.1
    assert found["conditional_accuracy"] == pytest.approx(np.trace(found["confusion"]) / 10_000)
    assert f"drawn                      {found['drawn']:>8.4f}" in done.stdout
    assert (workdir / "confusion.png").exists()


@pytest.mark.long
def test_hiragana73(stand_in):
    """The whole path on the stand-in for the archive, at a small size."""
    flags = ["--dataset=hiragana73", "--data_dir=.", "--image_size=16", "--epochs=3"]
    done = call("train", *flags, "--workdir=run", cwd=stand_in)
    assert done.returncode == 0, done.stderr
    evaluation = json.loads((stand_in / "run" / "evaluation.json").read_text())
    assert evaluation["accuracy"] > 0.5  # of 73 classes
    done = call("generate", "--workdir=run", "--labels=あ,ぬ,め", "--output=x.png", cwd=stand_in)
    assert done.returncode == 0, done.stderr
    assert (stand_in / "x.png").exists()


@pytest.mark.long
def test_killed_ten_times_it_ends_the_same(tmp_path):
    """SIGKILL at random moments, from the start of the process to its end."""
    done = call("crash", "--kills=10", "--workdir=crash", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("10 of 10 kills")
    assert int(re.search(r"(\d+) of them after something was saved", last).group(1)) > 0

    whole, run = tmp_path / "crash" / "whole", tmp_path / "crash" / "run-0"
    assert crash.differences(whole, run) == []
    metrics = run / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace("1", "2", 1))
    assert crash.differences(whole, run) == ["metrics.jsonl"]
    other = call("train", *crash.SMALL, "--epochs=8", "--seed=1", "--workdir=other", cwd=tmp_path)
    assert other.returncode == 0, other.stderr
    assert len(crash.differences(whole, tmp_path / "other")) > 20


@pytest.mark.long
def test_the_embedded_digits_are_learned(tmp_path):
    """Ten epochs of the main job at its own size, far from settled but on its way."""
    done = call("train", "--dataset=mnist_5k", "--epochs=10", "--workdir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    evaluation = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert evaluation["accuracy"] > 0.93
    assert evaluation["mse"] < 0.03
    assert abs(evaluation["kl_z"] - 5) < 0.6
