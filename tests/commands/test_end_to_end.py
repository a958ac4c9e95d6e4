"""The scripts in experiments/, run as a user runs them."""

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


def call(name, *args, cwd, python=()):
    program, *rest = script(name, *args)
    command = [program, *python, *rest]
    # Compiled with optimization, as for users; the work takes longer than the compilation.
    flags = os.environ["XLA_FLAGS"].replace("--xla_backend_optimization_level=0", "")
    env = {**os.environ, "XLA_FLAGS": flags}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env, check=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("user")
    process = call("train", *SMALL, "--epochs=2", "--data-dir=data", cwd=folder)
    assert process.returncode == 0, process.stderr
    return folder, process


def test_train_prints_evaluation_and_writes_run(trained):
    folder, process = trained
    assert process.stdout.splitlines()[0].startswith("data: mnist_5k")
    assert "accuracy" in process.stdout
    assert "epoch 2/2 | train loss" in process.stderr
    workdir = folder / "runs" / "ours-mnist_5k-0"
    contents = json.loads((workdir / "config.json").read_text())
    assert contents["config"]["dataset"] == "mnist_5k"
    assert contents["data"]["train_examples"] == 4000
    files = {path.name for path in workdir.iterdir()}
    assert files == {
        ".lock",
        "checkpoints",
        "config.json",
        "curves.png",
        "evaluation.json",
        "metrics.jsonl",
        "samples.png",
    }


def test_train_reports_finished_run(trained):
    folder, _ = trained
    process = call("train", *SMALL, "--epochs=2", "--data-dir=data", cwd=folder)
    assert process.returncode == 0, process.stderr
    assert "is finished" in process.stdout


def test_evaluate(trained):
    folder, _ = trained
    workdir = folder / "runs" / "ours-mnist_5k-0"
    evaluation = json.loads((workdir / "evaluation.json").read_text())
    process = call("evaluate", f"--workdir={workdir}", cwd=folder)
    assert process.returncode == 0, process.stderr
    assert f"{evaluation['accuracy']:.4f}" in process.stdout
    assert json.loads((workdir / "evaluation.json").read_text()) == evaluation


def test_generate(trained):
    folder, _ = trained
    workdir = "runs/ours-mnist_5k-0"
    output = folder / "x.png"
    process = call(
        "generate",
        f"--workdir={workdir}",
        "--labels=3,1,4",
        "--samples=8",
        "--seed=0",
        f"--output={output}",
        cwd=folder,
    )
    assert process.returncode == 0, process.stderr
    assert output.read_bytes().startswith(b"\x89PNG")
    process = call(
        "generate", f"--workdir={workdir}", "--labels=3,12", "--output=y.png", cwd=folder
    )
    assert process.returncode == 2
    assert process.stderr == "error: unknown label 12; there are 0, 1, 2, 3, 4, 5, 6, 7, 8, 9\n"
    assert not (folder / "y.png").exists()


def test_exported_model_generates_same_image(trained, tmp_path):
    folder, _ = trained
    workdir = folder / "runs" / "ours-mnist_5k-0"
    for code in (0, 2):
        process = call("export", f"--workdir={workdir}", "--output=model", cwd=tmp_path)
        assert process.returncode == code, process.stderr
    assert "model already exists and isn't empty" in process.stderr
    assert {"config.json", "model.safetensors", "README.md"} <= {
        path.name for path in (tmp_path / "model").iterdir()
    }
    for name, source in (("a", workdir), ("b", tmp_path / "model")):
        process = call("generate", f"--workdir={source}", f"--output={name}.png", cwd=tmp_path)
        assert process.returncode == 0, process.stderr
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.fault("flags", "unknown or invalid flag of a script", "one line; nothing is written")
@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--objectiv=ours"], 2, "unknown argument --objectiv; did you mean --objective?"),
        (["--dataset=minst"], 2, "unknown dataset 'minst' (did you mean mnist?)"),
        (["--dataset=none.npz"], 1, "none.npz: No such file or directory"),
        (["--dataset=folder", "--data_dir=none"], 2, "there is no folder /"),
        (["--dataset=mnist_5k", "--epochs=0"], 2, "epochs must be above 0, got 0"),
        (["--dataset=mnist_5k", "--batch_size=5000"], 2, "at most the 4000 training"),
        (["--dataset=mnist_5k", "--workdir=/dev/null/x"], 1, "/dev/null"),
    ],
)
def test_errors_are_one_line(args, code, message, tmp_path):
    process = call("train", *args, cwd=tmp_path)
    assert process.returncode == code
    assert message in process.stderr
    assert process.stderr.count("\n") == 1
    assert not list(tmp_path.rglob("*"))


@pytest.mark.long
def test_image_folder(tmp_path):
    """Class names are Japanese; a changed image is detected by the fingerprint."""
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

    def call_at_home(name, *args):
        command = script(name, *args)
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env)

    process = call_at_home("train", *train)
    assert process.returncode == 0, process.stderr
    assert f"data: folder, 72 train and 8 test images of 2 classes, from {mine}" in process.stdout
    workdir = tmp_path / "runs" / "ours-mine-0"
    assert load_run(workdir).data.class_names == ("い", "り")
    process = call_at_home("generate", f"--workdir={workdir}", "--labels=り", "--output=x.png")
    assert process.returncode == 0, process.stderr

    Image.fromarray(np.full((12, 12), 255, np.uint8)).save(mine / "い" / "ファイル0.png")
    for name, args in (("train", train), ("evaluate", [f"--workdir={workdir}"])):
        process = call_at_home(name, *args)
        assert process.returncode == 2
        assert "fingerprint is" in process.stderr
        assert process.stderr.count("\n") == 1


@pytest.mark.long
def test_evaluates_with_eval_classifier(tmp_path):
    workdir = tmp_path / "run"
    flags = [*SMALL, "--batch_size=50", "--epochs=10", "--data_dir=data", f"--workdir={workdir}"]
    process = call("train", *flags, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    for _ in range(2):
        process = call(
            "evaluate", f"--workdir={workdir}", "--eval_classifier", "--data_dir=data", cwd=tmp_path
        )
        assert process.returncode == 0, process.stderr
    assert len(list((tmp_path / "data" / "eval_classifiers").iterdir())) == 1
    evaluation = json.loads((workdir / "evaluation.json").read_text())
    assert evaluation["eval_classifier_accuracy"] > 0.8  # at 8x8 pixels
    assert np.sum(evaluation["confusion"]) == 10_000
    assert evaluation["conditional_accuracy"] > 0.6  # chance is 0.1
    assert evaluation["conditional_accuracy"] == pytest.approx(
        np.trace(evaluation["confusion"]) / 10_000
    )
    line = rf"^conditional_accuracy +{evaluation['conditional_accuracy']:.4f} "
    assert re.search(line, process.stdout, re.MULTILINE)
    assert (workdir / "confusion.png").exists()
    process = call("evaluate", f"--workdir={workdir}", "--cas", "--data_dir=data", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    scored = json.loads((workdir / "evaluation.json").read_text())
    assert scored["cas_real"] == evaluation["eval_classifier_accuracy"]
    assert 0.3 < scored["cas"] < scored["cas_real"]  # chance is 0.1
    assert scored["confusion"] == evaluation["confusion"]  # kept


@pytest.mark.long
def test_fashion_mnist(tmp_path):
    """Real images, as Debian's package dataset-fashion-mnist installs them."""
    released = Path("/usr/share/datasets/fashion-mnist")
    if not released.is_dir():
        pytest.skip("Debian's package dataset-fashion-mnist isn't installed")
    for path in released.glob("*.gz"):
        (tmp_path / path.name).symlink_to(path)
    flags = ["--dataset=fashion_mnist", "--data_dir=.", "--image_size=16", "--batch_size=200"]
    process = call("train", *flags, "--epochs=1", "--workdir=run", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith("data: fashion_mnist, 60,000 train and 10,000 test images")
    evaluation = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert evaluation["accuracy"] > 0.75


@pytest.mark.long
def test_hiragana73(hiragana73_files):
    """Training, evaluation and generation at a small size."""
    flags = ["--dataset=hiragana73", "--data_dir=.", "--image_size=16", "--epochs=3"]
    process = call("train", *flags, "--workdir=run", cwd=hiragana73_files)
    assert process.returncode == 0, process.stderr
    evaluation = json.loads((hiragana73_files / "run" / "evaluation.json").read_text())
    assert evaluation["accuracy"] > 0.5  # of 73 classes
    process = call(
        "generate", "--workdir=run", "--labels=あ,ぬ,め", "--output=x.png", cwd=hiragana73_files
    )
    assert process.returncode == 0, process.stderr
    assert (hiragana73_files / "x.png").exists()


@pytest.mark.long
@pytest.mark.fault(
    "processes",
    "python -OO, and SIGKILL at random moments",
    "the resumed run equals an uninterrupted one, bit for bit",
)
def test_killed_runs_without_assertions(tmp_path):
    args = ["--kills=2", "--epochs=2", "--workdir=crash"]
    process = call("crash", *args, cwd=tmp_path, python=["-OO"])
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[-1].startswith("2 of 2 kills")
    run = tmp_path / "crash" / "run-0"
    assert crash.differences(tmp_path / "crash" / "uninterrupted", run) == []


@pytest.mark.long
@pytest.mark.fault(
    "processes",
    "SIGKILL at random moments",
    "the resumed run equals an uninterrupted one, bit for bit",
)
def test_killed_runs_equal_uninterrupted_run(tmp_path):
    """Ten SIGKILLs at random moments between the start and the end of the process."""
    process = call("crash", "--kills=10", "--workdir=crash", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    last = process.stdout.splitlines()[-1]
    assert last.startswith("10 of 10 kills")
    assert int(re.search(r"(\d+) of them after a checkpoint", last).group(1)) > 0

    uninterrupted, run = tmp_path / "crash" / "uninterrupted", tmp_path / "crash" / "run-0"
    assert crash.differences(uninterrupted, run) == []
    metrics = run / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace("1", "2", 1))
    assert crash.differences(uninterrupted, run) == ["metrics.jsonl"]
    other = call("train", *crash.SMALL, "--epochs=8", "--seed=1", "--workdir=other", cwd=tmp_path)
    assert other.returncode == 0, other.stderr
    assert len(crash.differences(uninterrupted, tmp_path / "other")) > 20


@pytest.mark.long
def test_mnist_5k_reaches_accuracy_in_ten_epochs(tmp_path):
    """The default network and image size; ten of the default 100 epochs."""
    process = call("train", "--dataset=mnist_5k", "--epochs=10", "--workdir=run", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    evaluation = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert evaluation["accuracy"] > 0.93
    assert evaluation["mse"] < 0.03
    assert abs(evaluation["kl_z"] - 5) < 0.6
