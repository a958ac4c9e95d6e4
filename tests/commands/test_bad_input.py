"""Whatever is wrong with what a user gives, one line names it, and nothing of theirs is changed."""

import gzip
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jvae_jax import TrainConfig, cli, data, fit
from jvae_jax.commands import evaluate, export, generate, train
from jvae_jax.data.idx import RELEASES

SCRIPTS = {
    "train": (train.run_command, TrainConfig),
    "evaluate": (evaluate.run_command, evaluate.EvaluateConfig),
    "generate": (generate.run_command, generate.GenerateConfig),
    "export": (export.run_command, export.ExportConfig),
}
SMALL = TrainConfig(
    dataset="mnist_5k", image_size=8, batch_size=200, latents=3, epochs=1, data_dir="data"
)
AGAIN = ("--image_size=8", "--batch_size=200", "--latents=3", "--epochs=1", "--data_dir=data")


def files_of(folder):
    """All but the empty file by which several processes take turns to prepare data."""
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".jvae_jax.lock"
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A user's folder with a finished run, which has one checkpoint."""
    folder = tmp_path_factory.mktemp("user")
    dataset = data.load("mnist_5k", image_size=8, say=lambda _: None)
    fit(replace(SMALL, workdir=str(folder / "run")), dataset, say=lambda _: None)
    return folder


@pytest.fixture
def user(tmp_path, monkeypatch):
    folder = tmp_path / "user"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    return folder


@pytest.fixture
def call(capsys):
    def start(name, *args):
        main, config = SCRIPTS[name]
        with pytest.raises(SystemExit) as stop:
            cli.run(main, config, description="", args=list(args))
        return stop.value.code, capsys.readouterr().err

    return start


@pytest.fixture
def refused(call, user, without_jaxtyping):
    """Calls a script, and checks how it declines."""
    del without_jaxtyping

    def start(name, *args, because, code=2):
        before = files_of(user)
        status, said = call(name, *args)
        assert because in said
        assert status == code
        assert said.count("\n") == 1
        assert "Traceback" not in said
        assert files_of(user) == before

    return start


@pytest.mark.parametrize(
    ("flag", "because"),
    [
        ("--objective=gan", "invalid choice: 'gan'"),
        ("--objectives=ours", "did you mean --objective?"),
        ("--epochs=ten", "invalid int value: 'ten'"),
        ("--epochs=0", "epochs must be above 0, got 0"),
        ("--epochs=-3", "epochs must be above 0, got -3"),
        ("--epochs=1.5", "invalid int value: '1.5'"),
        ("--batch_size=0", "batch_size must be above 0, got 0"),
        ("--batch_size=70000", "don't fill one batch of 70000"),
        ("--learning_rate=0", "learning_rate must be above 0, got 0.0"),
        ("--learning_rate=nan", "learning_rate must be above 0, got nan"),
        ("--learning_rate=inf", "learning_rate must be above 0, got inf"),
        ("--ema_decay=1", "ema_decay must be 0 or more and below 1, got 1.0"),
        ("--image_size=30", "image_size must be a multiple of 8 above 0, got 30"),
        ("--latents=0", "latents must be above 0, got 0"),
        ("--fixed_latents=11", "fixed_latents must be from 0 to latents, 10, got 11"),
        ("--seed=-1", "seed must be 0 or more, got -1"),
        ("--num_labels=some", "num_labels must be all or 0 or more, got some"),
        ("--num_labels=-1", "num_labels must be all or 0 or more, got -1"),
        ("--num_labels=4001", "4001"),
        ("--labelled_batch_fraction=1", "labelled_batch_fraction must be between 0 and 1, got 1.0"),
        ("--temperature=0", "temperature must be above 0, got 0.0"),
        ("--beta=-1", "beta must be 0 or more, got -1.0"),
        ("--alpha=1", "ours has no alpha"),
        ("--precision=int8", "invalid choice: 'int8'"),
        ("--reconstruction_loss=l1", "invalid choice: 'l1'"),
        ("--save_every=0", "save_every must be 1 or more, got 0"),
        ("--num_processes=2", "coordinator"),
        ("--dataset=minst", "did you mean mnist?"),
        ("--profile=yes", "ignored explicit argument 'yes'"),
        ("epochs", "unknown argument epochs"),
    ],
)
def test_flags(refused, flag, because):
    refused("train", "--dataset=mnist_5k", flag, because=because)


def npz(**arrays):
    def write(folder):
        np.savez(folder / "digits.npz", **arrays)

    return write


def file_of(content):
    def write(folder):
        (folder / "digits.npz").write_bytes(content)

    return write


IMAGES, LABELS = np.zeros((20, 8, 8), np.uint8), np.arange(20) % 2


@pytest.mark.parametrize(
    ("write", "because"),
    [
        (file_of(b""), "digits.npz can't be read"),
        (file_of(b"PK\3\4 and no more"), "digits.npz can't be read"),
        (npz(images=IMAGES), "has no labels"),
        (npz(pictures=IMAGES), "has no images"),
        (npz(images=IMAGES / 255, labels=LABELS), "must be uint8 in 0 to 255, got float64"),
        (npz(images=IMAGES.astype(int), labels=LABELS), "must be uint8"),
        (npz(images=IMAGES[0], labels=LABELS), "(examples, height, width, channels)"),
        (npz(images=IMAGES[..., None, None], labels=LABELS), "(examples, height, width, channels)"),
        (npz(images=np.zeros((20, 8, 8, 2), np.uint8), labels=LABELS), "1 or 3 channels, got 2"),
        (npz(images=IMAGES, labels=LABELS[:19]), "one for each of 20 images, got (19,)"),
        (npz(images=IMAGES, labels=LABELS - 2), "got -2"),
        (npz(images=IMAGES, labels=LABELS / 2), "must be signed integers, got float64"),
        (npz(images=IMAGES, labels=0 * LABELS), "two classes or more"),
        (npz(images=IMAGES, labels=LABELS, class_names=["a"]), "a name for each label"),
        (npz(images=IMAGES[:0], labels=LABELS[:0]), "digits.npz"),
        (npz(images=np.array([{}]), labels=LABELS), "can't be read"),
    ],
)
def test_arrays(refused, user, write, because):
    write(user)
    refused("train", "--dataset=digits.npz", "--batch_size=2", because=because)


def test_no_arrays_at_all(refused):
    refused("train", "--dataset=digits.npz", because="No such file", code=1)


def folder_with(*files):
    def write(folder):
        for name in files:
            path = folder / "mine" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".png":
                Image.fromarray(IMAGES[0]).save(path)
            else:
                path.write_text("not a picture")

    return write


@pytest.mark.parametrize(
    ("write", "because"),
    [
        (folder_with(), "there is no folder"),
        (folder_with("a.png"), "holds no class"),
        (folder_with("a/1.png"), "holds one class only, a"),
        (folder_with("a/1.png", "b/1.txt"), "the class b has no picture that can be read"),
        (folder_with("a/1.png", "b/c/1.png"), "is a folder within a class"),
        (folder_with("train/a/1.png", "train/b/1.png", "c/1.png"), "so c can't be a class"),
        (folder_with("train/a/1.png", "train/b/1.png", "test/c/1.png"), "a class that train lacks"),
    ],
)
def test_folders(refused, user, write, because):
    write(user)
    refused("train", "--dataset=folder", "--data_dir=mine", because=because)


@pytest.mark.parametrize(
    "content",
    [b"", b"not gzip", gzip.compress(b"\0\0\x08\x03", mtime=0), b"\x1f\x8b"],
    ids=range(4),
)
def test_releases(refused, user, content):
    """Files under MNIST's names that hold something else."""
    (user / "mnist").mkdir()
    for name in RELEASES["mnist"].files:
        (user / "mnist" / name).write_bytes(content)
    refused("train", "--dataset=mnist", "--data_dir=.", because="train-images-idx3-ubyte.gz")


@pytest.mark.parametrize("content", [b"", b"PK\3\4 and no more", b"not an archive"])
def test_archives(refused, user, content):
    (user / "hiragana73.zip").write_bytes(content)
    refused("train", "--dataset=hiragana73", "--data_dir=.", because="hiragana73.zip")


def changed(**values):
    def change(contents):
        contents["config"].update(values)

    return change


def without(*path):
    def change(contents):
        *outer, last = path
        for name in outer:
            contents = contents[name]
        del contents[last]

    return change


def facts(**values):
    def change(contents):
        contents["data"].update(values)

    return change


CONFIGS = [
    ("", "Expecting value"),
    ("{", "Expecting property name"),
    ("[]", "can't be understood"),
    ("null", "can't be understood"),
    ("{}", "config"),
    ('{"config": {}, "data": {}}', "fingerprint"),
    ('{"config": [], "data": {}}', "can't be understood"),
    (without("config"), "'config'"),
    (without("data"), "'data'"),
    (without("data", "class_names"), "class_names"),
    (changed(objective="gan"), "unknown objective 'gan'"),
    (changed(learning=1), "unexpected keyword argument 'learning'"),
    (changed(epochs="1"), "epochs must be int, got '1'"),
    (changed(epochs=True), "epochs must be int, got True"),
    (changed(latents=2.5), "latents must be int, got 2.5"),
    (changed(latents=[3]), "latents must be int, got [3]"),
    (changed(learning_rate=None), "learning_rate must be float, got None"),
    (changed(dataset=5), "dataset must be str, got 5"),
    (changed(beta="30"), "beta must be float | None, got '30'"),
    (facts(image_shape=[8, 8]), "image_shape must be tuple[int, int, int], got (8, 8)"),
    (facts(class_names=[1, 2]), "class_names must be tuple[str, ...], got (1, 2)"),
    (facts(fingerprint=7), "fingerprint must be str, got 7"),
    (facts(image_shape=[8, 8, 0]), "image_shape must be above 0, got (8, 8, 0)"),
    (facts(labels_per_class=[1]), "labels_per_class must be one for each of 10 classes, got 1"),
    (facts(colour="red"), "unexpected keyword argument 'colour'"),
]


@pytest.mark.parametrize(("change", "because"), CONFIGS, ids=range(len(CONFIGS)))
@pytest.mark.parametrize("name", ["train", "generate"])
def test_configs(refused, user, whole, name, change, because):
    shutil.copytree(whole / "run", user / "run")
    path = user / "run" / "config.json"
    if callable(change):
        contents = json.loads(path.read_text())
        change(contents)
        change = json.dumps(contents)
    path.write_text(change)
    args = ["--dataset=mnist_5k", *AGAIN] if name == "train" else ["--output=x.png"]
    refused(name, "--workdir=run", *args, because=because)


@pytest.mark.parametrize("name", ["evaluate", "generate", "export"])
def test_no_run(refused, user, name):
    (user / "empty").mkdir()
    args = ["--output=x"] if name == "export" else []
    for workdir in ("none", "empty"):
        refused(name, f"--workdir={workdir}", *args, because="is no run", code=1)


def test_a_folder_that_is_no_run_is_not_trained_in(refused, user):
    (user / "thesis").mkdir()
    (user / "thesis" / "chapter.tex").write_text("text")
    args = ("--workdir=thesis", "--dataset=mnist_5k", *AGAIN)
    refused("train", *args, because="holds something that isn't a run")


def test_another_run_is_not_trained_on(refused, user, whole):
    shutil.copytree(whole / "run", user / "run")
    args = ("--workdir=run", "--dataset=mnist_5k", *AGAIN, "--seed=1")
    refused("train", *args, because="seed is 0 there and 1 here")


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0x55]) + content[middle + 1 :]


DAMAGES = {
    "emptied": lambda _: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "flipped": flipped,
    "removed": None,
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Orbax's threads
@pytest.mark.parametrize("damage", DAMAGES)
def test_every_file_of_a_checkpoint(damage, call, user, whole):
    """Either it is told, or it didn't matter and the picture is the same; and nothing changes."""
    shutil.copytree(whole / "run", user / "run")
    status, _ = call("generate", "--workdir=run", "--output=whole.png")
    assert status == 0
    checkpoint = user / "run" / "checkpoints"
    told = 0
    paths = [path for path in sorted(checkpoint.rglob("*")) if path.is_file()]
    assert len(paths) >= 8
    for path in paths:
        content = path.read_bytes()
        path.unlink()
        if DAMAGES[damage] is not None:
            path.write_bytes(DAMAGES[damage](content))
        before = files_of(user)
        status, said = call("generate", "--workdir=run", "--output=x.png")
        if status == 0:
            assert (user / "x.png").read_bytes() == (user / "whole.png").read_bytes()
            (user / "x.png").unlink()
        else:
            told += 1
            assert status == 1
            assert said.count("\n") == 1
            assert "no checkpoint in run/checkpoints can be read" in said
        assert files_of(user) == before
        path.write_bytes(content)
    assert told >= 4


def test_a_damaged_checkpoint_is_one_line_in_a_process_of_its_own(user, whole):
    """Where Orbax's threads could speak too."""
    shutil.copytree(whole / "run", user / "run")
    largest = max((user / "run" / "checkpoints").rglob("?" * 32), key=lambda p: p.stat().st_size)
    largest.write_bytes(b"")
    script = [sys.executable, generate.__file__, "--workdir=run"]
    done = subprocess.run(script, capture_output=True, text=True, cwd=user, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no checkpoint in run/checkpoints can be read")
    assert done.stderr.count("\n") == 1


def test_a_run_without_checkpoints(refused, user, whole):
    shutil.copytree(whole / "run", user / "run")
    shutil.rmtree(user / "run" / "checkpoints")
    refused("generate", "--workdir=run", because="run has no checkpoint yet", code=1)
    refused("evaluate", "--workdir=run", because="run has no checkpoint yet", code=1)


def test_outputs_that_cannot_be_written(refused, user, whole):
    shutil.copytree(whole / "run", user / "run")
    refused(
        "generate", "--workdir=run", "--output=none/x.png", because="there is no folder", code=1
    )
    refused("generate", "--workdir=run", "--output=x.tex", because="'tex' is not supported")
    Path("file").touch()
    refused("export", "--workdir=run", "--output=file", because="holds something already")
    refused("export", "--workdir=run", "--output=file/x", because="file", code=1)
