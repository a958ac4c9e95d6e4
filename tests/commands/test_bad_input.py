"""Invalid flags and files: the error is one line, and no file of the user is changed."""

import gzip
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from jvae_jax.commands import evaluate, generate
from jvae_jax.data.idx import RELEASES
from jvae_jax.evaluation import negative_log_likelihood
from jvae_jax.training.run import load_run

# Flags of the run that the fixture ``finished`` trains.
SMALL_FLAGS = ("--image_size=8", "--batch_size=200", "--latents=3", "--epochs=1", "--data_dir=data")


def files_of(folder):
    """Contents of all files but the lock file of data preparation."""
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".jvae_jax.lock"
    }


@pytest.fixture
def user(tmp_path, monkeypatch):
    """The current, empty folder."""
    folder = tmp_path / "user"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    return folder


@pytest.fixture
def rejects(call, user, without_jaxtyping):
    """Asserts that a command fails with one line on stderr and changes no file."""
    del without_jaxtyping

    def assert_rejects(name, *args, message, code=2):
        before = files_of(user)
        status, _, error = call(name, *args)
        assert message in error
        assert status == code
        assert error.count("\n") == 1
        assert "Traceback" not in error
        assert files_of(user) == before

    return assert_rejects


@pytest.mark.fault(
    "flags",
    "unknown, mistyped or invalid value of a flag",
    "one line with the value and what is valid; exit status 2",
)
@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--objective=gan", "invalid choice: 'gan'"),
        ("--objectives=ours", "did you mean --objective?"),
        ("--epochs=ten", "invalid int value: 'ten'"),
        ("--epochs=0", "epochs must be above 0, got 0"),
        ("--epochs=-3", "epochs must be above 0, got -3"),
        ("--epochs=1.5", "invalid int value: '1.5'"),
        ("--batch_size=0", "batch_size must be above 0, got 0"),
        ("--batch_size=70000", "at most the 4000 training examples, got 70000"),
        ("--learning_rate=0", "learning_rate must be above 0, got 0.0"),
        ("--learning_rate=nan", "learning_rate must be above 0, got nan"),
        ("--learning_rate=inf", "learning_rate must be above 0, got inf"),
        ("--ema_decay=1", "ema_decay must be 0 or more and below 1, got 1.0"),
        ("--image_size=0", "image_size must be above 0, got 0"),
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
        ("--neighbours=5", "neighbours has no effect without consistency_weight; add it"),
        ("--precision=int8", "invalid choice: 'int8'"),
        ("--reconstruction_loss=l1", "invalid choice: 'l1'"),
        ("--save_every=0", "save_every must be 1 or more, got 0"),
        ("--num_processes=2", "coordinator"),
        ("--dataset=minst", "did you mean mnist?"),
        ("--profile=maybe", "Boolean value expected for argument, received 'maybe'"),
        ("epochs", "unknown argument epochs"),
    ],
)
def test_invalid_flags(rejects, flag, message):
    rejects("train", "--dataset=mnist_5k", flag, message=message)


@pytest.mark.fault(
    "flags",
    "unknown, mistyped or invalid value of a flag",
    "one line with the value and what is valid; exit status 2",
)
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--likelihood --likelihood_samples=0", "likelihood_samples must be 1 or more, got 0"),
        ("--likelihood --likelihood_images=0", "likelihood_images must be 1 or more, got 0"),
        ("--likelihood_samples=9", "likelihood_samples has no effect without --likelihood"),
        ("--likelihood_images=9", "likelihood_images has no effect without --likelihood"),
        ("--likelihood --likelihood_images=1001", "at most the 1000 test images, got 1001"),
    ],
)
def test_invalid_flags_of_the_likelihood(rejects, user, finished, flags, message):
    shutil.copytree(finished / "run", user / "run")
    rejects("evaluate", "--workdir=run", *flags.split(), message=message)


def npz(**arrays):
    def write(folder):
        np.savez(folder / "digits.npz", **arrays)

    return write


def file_of(content):
    def write(folder):
        (folder / "digits.npz").write_bytes(content)

    return write


IMAGES, LABELS = np.zeros((20, 8, 8), np.uint8), np.arange(20) % 2


@pytest.mark.fault(
    "data files",
    "npz file that is damaged, or whose arrays have wrong names, types, shapes or values",
    "one line that names the file; exit status 2",
)
@pytest.mark.parametrize(
    ("write", "message"),
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
        (npz(images=IMAGES, labels=LABELS[:19]), "must have shape (20,), got (19,)"),
        (npz(images=IMAGES, labels=LABELS - 2), "got -2"),
        (npz(images=IMAGES, labels=LABELS / 2), "must be integers, got float64"),
        (npz(images=IMAGES, labels=0 * LABELS), "at least two classes"),
        (npz(images=IMAGES, labels=LABELS, class_names=["a"]), "a name for each label"),
        (npz(images=IMAGES[:0], labels=LABELS[:0]), "digits.npz"),
        (npz(images=np.array([{}]), labels=LABELS), "can't be read"),
    ],
)
def test_invalid_npz(rejects, user, write, message):
    write(user)
    rejects("train", "--dataset=digits.npz", "--batch_size=2", message=message)


def test_missing_npz(rejects):
    rejects("train", "--dataset=digits.npz", message="No such file", code=1)


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


@pytest.mark.fault(
    "data files",
    "image folder that is missing, empty or of unexpected structure",
    "one line that names the folder or file; exit status 2",
)
@pytest.mark.parametrize(
    ("write", "message"),
    [
        (folder_with(), "there is no folder"),
        (folder_with("a.png"), "contains no class"),
        (folder_with("a/1.png"), "contains only one class, a"),
        (folder_with("a/1.png", "b/1.txt"), "class b has no readable image"),
        (folder_with("a/1.png", "b/c/1.png"), "is a folder within a class"),
        (folder_with("train/a/1.png", "train/b/1.png", "c/1.png"), "so c can't be a class"),
        (folder_with("train/a/1.png", "train/b/1.png", "test/c/1.png"), "a class that train lacks"),
    ],
)
def test_invalid_image_folder(rejects, user, write, message):
    write(user)
    rejects("train", "--dataset=folder", "--data_dir=mine", message=message)


@pytest.mark.fault(
    "data files",
    "IDX file that is empty, truncated or not compressed",
    "one line that names the file; exit status 2",
)
@pytest.mark.parametrize(
    "content",
    [b"", b"not gzip", gzip.compress(b"\0\0\x08\x03", mtime=0), b"\x1f\x8b"],
    ids=range(4),
)
def test_damaged_released_files(rejects, user, content):
    (user / "mnist").mkdir()
    for name in RELEASES["mnist"].files:
        (user / "mnist" / name).write_bytes(content)
    rejects("train", "--dataset=mnist", "--data_dir=.", message="train-images-idx3-ubyte.gz")


@pytest.mark.fault(
    "data files",
    "archive that is empty, truncated or not one",
    "one line that names the file; exit status 2",
)
@pytest.mark.parametrize("content", [b"", b"PK\3\4 and no more", b"not an archive"])
def test_damaged_archive(rejects, user, content):
    (user / "hiragana73.zip").write_bytes(content)
    rejects("train", "--dataset=hiragana73", "--data_dir=.", message="hiragana73.zip")


def update(*path, **values):
    """Returns a function that updates the dictionary at a path of config.json."""

    def change(contents):
        for name in path:
            contents = contents[name]
        contents.update(values)

    return change


def delete(*path):
    """Returns a function that deletes the value at a path of config.json."""

    def change(contents):
        *outer, last = path
        for name in outer:
            contents = contents[name]
        del contents[last]

    return change


CONFIGS = [
    ("", "Expecting value"),
    ("{", "Expecting property name"),
    ("[]", "config.json is invalid"),
    ("null", "config.json is invalid"),
    ("{}", "has format 1, but this version of jvae_jax reads format 2"),
    ('{"config": {}, "data": {}}', "has format 1, but this version of jvae_jax reads format 2"),
    ('{"format": 2, "config": {}, "data": {}}', "'objective'"),
    ('{"format": 2, "config": [], "data": {}}', "config.json is invalid"),
    (delete("format"), "has format 1, but this version of jvae_jax reads format 2"),
    (update(format=3), "has format 3, but this version of jvae_jax reads format 2"),
    (delete("config"), "'config'"),
    (delete("data"), "'data'"),
    (delete("data", "fingerprint"), "fingerprint"),
    (delete("data", "class_names"), "class_names"),
    (update("config", objective="gan"), "config.json is invalid"),
    (update("config", "objective", name="gan"), "unknown objective 'gan'"),
    (delete("config", "objective", "name"), "'name'"),
    (update("config", "objective", alpha=1.0), "unexpected keyword argument 'alpha'"),
    (update("config", "objective", beta="30"), "beta must be float, got '30'"),
    (update("config", learning=1), "unexpected keyword argument 'learning'"),
    (update("config", epochs="1"), "epochs must be int, got '1'"),
    (update("config", epochs=True), "epochs must be int, got True"),
    (update("config", latents=2.5), "latents must be int, got 2.5"),
    (update("config", latents=[3]), "latents must be int, got [3]"),
    (update("config", learning_rate=None), "learning_rate must be float, got None"),
    (update("config", dataset=5), "dataset must be str, got 5"),
    (update("data", image_shape=[8, 8]), "image_shape must be tuple[int, int, int], got (8, 8)"),
    (update("data", class_names=[1, 2]), "class_names must be tuple[str, ...], got (1, 2)"),
    (update("data", fingerprint=7), "fingerprint must be str, got 7"),
    (update("data", image_shape=[8, 8, 0]), "image_shape must be above 0, got (8, 8, 0)"),
    (update("data", labels_per_class=[1]), "one entry for each of 10 classes, got 1"),
    (update("data", colour="red"), "unexpected keyword argument 'colour'"),
]


@pytest.mark.fault(
    "run folder",
    "config.json that is damaged, of another format or with invalid values",
    "one line that names the file; nothing is changed",
)
@pytest.mark.parametrize(("change", "message"), CONFIGS, ids=range(len(CONFIGS)))
@pytest.mark.parametrize("name", ["train", "generate"])
def test_invalid_config(rejects, user, finished, name, change, message):
    shutil.copytree(finished / "run", user / "run")
    path = user / "run" / "config.json"
    if callable(change):
        contents = json.loads(path.read_text())
        change(contents)
        change = json.dumps(contents)
    path.write_text(change)
    args = ["--dataset=mnist_5k", *SMALL_FLAGS] if name == "train" else ["--output=x.png"]
    rejects(name, "--workdir=run", *args, message=message)


@pytest.mark.fault(
    "run folder",
    "folder that is missing or not a run",
    "one line that names it; nothing is changed",
)
@pytest.mark.parametrize("name", ["evaluate", "generate", "export"])
def test_missing_run(rejects, user, name):
    (user / "empty").mkdir()
    args = ["--output=x"] if name == "export" else []
    for workdir in ("none", "empty"):
        rejects(name, f"--workdir={workdir}", *args, message="is not a run", code=1)


@pytest.mark.fault(
    "run folder", "training into a folder that holds something else", "refused; nothing is changed"
)
def test_train_rejects_folder_that_is_not_a_run(rejects, user):
    (user / "thesis").mkdir()
    (user / "thesis" / "chapter.tex").write_text("text")
    args = ("--workdir=thesis", "--dataset=mnist_5k", *SMALL_FLAGS)
    rejects("train", *args, message="contains something that isn't a run")


@pytest.mark.fault(
    "run folder", "resuming with settings of another run", "refused with the settings that differ"
)
def test_train_rejects_other_run(rejects, user, finished):
    shutil.copytree(finished / "run", user / "run")
    args = ("--workdir=run", "--dataset=mnist_5k", *SMALL_FLAGS, "--seed=1")
    rejects("train", *args, message="seed is 0 there and 1 here")
    # Not capacity_steps, which follows from epochs.
    path = user / "run" / "config.json"
    contents = json.loads(path.read_text())
    contents["config"]["epochs"] = 3
    path.write_text(json.dumps(contents))
    args = ("--workdir=run", "--dataset=mnist_5k", *SMALL_FLAGS, "--epochs=2")
    message = "another run: epochs is 3 there and 2 here. Resume with its settings, or"
    rejects("train", *args, message=message)


def flip_byte(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0x55]) + content[middle + 1 :]


DAMAGES = {
    "emptied": lambda _: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "flipped": flip_byte,
    "removed": None,
}


@pytest.mark.fault(
    "checkpoints",
    "each file of a checkpoint emptied, truncated, changed or removed",
    "one line, or the same image; nothing is changed",
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Orbax's threads
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint(damage, call, user, finished):
    """Damages each file: the command fails or writes the same image, and changes no other file."""
    shutil.copytree(finished / "run", user / "run")
    status, *_ = call("generate", "--workdir=run", "--output=expected.png")
    assert status == 0
    checkpoint = user / "run" / "checkpoints"
    failures = 0
    paths = [path for path in sorted(checkpoint.rglob("*")) if path.is_file()]
    assert len(paths) >= 8
    for path in paths:
        content = path.read_bytes()
        path.unlink()
        if DAMAGES[damage] is not None:
            path.write_bytes(DAMAGES[damage](content))
        before = files_of(user)
        status, _, error = call("generate", "--workdir=run", "--output=x.png")
        if status == 0:
            assert (user / "x.png").read_bytes() == (user / "expected.png").read_bytes()
            (user / "x.png").unlink()
        else:
            failures += 1
            assert status == 1
            assert error.count("\n") == 1
            assert "no checkpoint in run/checkpoints can be read" in error
        assert files_of(user) == before
        path.write_bytes(content)
    assert failures >= 4


def test_damaged_checkpoint_in_separate_process(user, finished):
    """Orbax's threads print nothing beside the error."""
    shutil.copytree(finished / "run", user / "run")
    largest = max((user / "run" / "checkpoints").rglob("?" * 32), key=lambda p: p.stat().st_size)
    largest.write_bytes(b"")
    command = [sys.executable, "-m", "jvae_jax", "generate", "--workdir=run"]
    process = subprocess.run(command, capture_output=True, text=True, cwd=user, check=False)
    assert process.returncode == 1
    assert process.stderr.startswith("error: no checkpoint in run/checkpoints can be read")
    assert process.stderr.count("\n") == 1


@pytest.mark.fault("checkpoints", "run without a checkpoint", "one line that names it")
def test_run_without_checkpoint(rejects, user, finished):
    shutil.copytree(finished / "run", user / "run")
    shutil.rmtree(user / "run" / "checkpoints")
    rejects("generate", "--workdir=run", message="run has no checkpoint yet", code=1)
    rejects("evaluate", "--workdir=run", message="run has no checkpoint yet", code=1)


@pytest.fixture
def outputs(user, finished):
    """Things in the user's folder that a command might be told to write to."""
    shutil.copytree(finished / "run", user / "run")
    (user / "folder").mkdir()
    (user / "file").write_text("mine")
    (user / "link").symlink_to("file")
    (user / "dangling").symlink_to("none")
    os.mkfifo(user / "fifo")


@pytest.mark.usefixtures("outputs")
@pytest.mark.fault(
    "output",
    "output that is a device, FIFO, folder or link, in a missing folder or of unknown format",
    "refused before the work, naming it; nothing is changed",
)
@pytest.mark.parametrize(
    ("name", "output", "message", "code"),
    [
        ("generate", "none/x.png", "there is no folder none", 1),
        ("generate", "file/x.png", "there is no folder file", 1),
        ("generate", "folder", "folder is not a regular file", 1),
        ("generate", "fifo", "fifo is not a regular file", 1),
        ("generate", "/dev/null", "/dev/null is not a regular file", 1),
        ("generate", "/dev/full", "/dev/full is not a regular file", 1),
        ("generate", "link", "link is a symbolic link", 1),
        ("generate", "dangling", "dangling is a symbolic link", 1),
        ("generate", "x.tex", "x.tex: 'tex' is not supported; there are avif", 2),
        ("generate", "", "output must be the path of a file, got ''", 2),
        ("export", "file", "file exists and isn't a folder", 2),
        ("export", "file/x", "file/x: Not a directory", 1),
        ("export", "run", "run already exists and isn't empty", 2),
        ("export", "fifo", "fifo exists and isn't a folder", 2),
        ("export", "/dev/null", "/dev/null exists and isn't a folder", 2),
        ("export", "link", "link exists and isn't a folder", 2),
        ("export", "dangling", "dangling exists and isn't a folder", 2),
        ("export", "", "expected the name of a folder to create, got '.'", 2),
    ],
)
def test_unwritable_outputs(name, output, message, code, rejects, monkeypatch):
    def work(*_args, **_options):
        raise AssertionError("the work was begun")

    monkeypatch.setattr(generate, "load_selected_run", work)
    rejects(name, "--workdir=run", f"--output={output}", message=message, code=code)


@pytest.mark.usefixtures("outputs")
@pytest.mark.fault(
    "output",
    "disk that is full while an image or a model is written",
    "one line; the previous file is intact and no temporary one is left",
)
def test_full_disk(call, rejects):
    resource = pytest.importorskip("resource")
    # Compiled first, as programs can't be cached either.
    status, _, error = call("generate", "--workdir=run", "--output=x.png")
    assert (status, error) == (0, "")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        full = ": File too large"
        rejects("generate", "--workdir=run", "--output=x.png", message=f"write x.png{full}", code=1)
        rejects("export", "--workdir=run", "--output=folder", message=f"folder{full}", code=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.fault("flags", "path of a run that isn't UTF-8", "refused before training, naming it")
def test_workdir_that_is_not_text(rejects):
    args = ("--workdir=run\udcff", "--dataset=mnist_5k", *SMALL_FLAGS)
    rejects("train", *args, message=r"workdir run\udcff isn't UTF-8")


@pytest.mark.fault(
    "run folder", "evaluation of an exported model", "refused before the data are loaded"
)
def test_evaluate_rejects_exported_model(rejects, user, finished):
    shutil.copytree(finished / "run", user / "run")
    path = user / "run" / "config.json"
    contents = json.loads(path.read_text())
    contents["config"]["dataset"] = "none.npz"
    path.write_text(json.dumps(contents))
    (user / "run" / "model.safetensors").touch()
    message = "run contains an exported model, which has no checkpoints"
    rejects("evaluate", "--workdir=run", message=message, code=1)


@pytest.mark.fault(
    "run folder",
    "evaluation without the metrics of an earlier one",
    "kept, with a message, if they are of the same step",
)
def test_evaluate_keeps_metrics_of_the_same_step(user, finished, capsys):
    shutil.copytree(finished / "run", user / "run")
    path = user / "run" / "evaluation.json"
    evaluation = json.loads(path.read_text())
    for step, kept in ((evaluation["step"], True), (evaluation["step"] - 1, False)):
        path.write_text(json.dumps({**evaluation, "step": step, "conditional_accuracy": 0.25}))
        with pytest.raises(SystemExit):
            evaluate.main(["--workdir=run"])
        expected = evaluation | ({"conditional_accuracy": 0.25} if kept else {})
        assert json.loads(path.read_text()) == expected
        message = "kept from an earlier evaluation of this step: conditional_accuracy\n"
        assert (message in capsys.readouterr().out) == kept


def test_evaluate_adds_the_likelihood(user, finished, capsys):
    """And keeps it, with the metrics of other evaluations, when it isn't estimated again."""
    shutil.copytree(finished / "run", user / "run")
    path = user / "run" / "evaluation.json"
    before = {**json.loads(path.read_text()), "conditional_accuracy": 0.25}
    path.write_text(json.dumps(before))
    flags = "--likelihood --likelihood_samples=40 --likelihood_images=20"
    with pytest.raises(SystemExit) as stop:
        evaluate.main(["--workdir=run", *flags.split()])
    assert not stop.value.code
    output = capsys.readouterr().out
    after = json.loads(path.read_text())
    run = load_run(user / "run")
    values = negative_log_likelihood(
        run.network,
        run.load_state().average,
        run.load_dataset().test_images[:20],
        run.key("test"),
        samples=40,
    )
    likelihood = {
        "nll": pytest.approx(np.mean(values), rel=1e-6),
        "nll_standard_error": pytest.approx(np.std(values, ddof=1) / 20**0.5, rel=1e-6),
        "nll_images": 20,
        "nll_samples": 40,
    }
    assert after == before | likelihood
    assert f"{after['nll']:.2f}  -log p(x)" in output
    with pytest.raises(SystemExit):
        evaluate.main(["--workdir=run"])
    assert json.loads(path.read_text()) == after


@pytest.mark.fault(
    "output", "stdout and stderr closed early or from the start", "training ends as without"
)
@pytest.mark.parametrize(
    "redirection",
    ["2>&1 | head -0", pytest.param("<&- >&- 2>&-", marks=pytest.mark.long)],
)
def test_training_without_output(redirection, user, finished):
    command = [sys.executable, "-m", "jvae_jax", "train", "--dataset=mnist_5k", *SMALL_FLAGS]
    shell = f"{shlex.join([*command, '--workdir=run'])} {redirection}"
    subprocess.run(shell, shell=True, check=True, cwd=user)
    for name in ("metrics.jsonl", "samples.png", "evaluation.json"):
        assert (user / "run" / name).read_bytes() == (finished / "run" / name).read_bytes()
    assert load_run(user / "run").load_state().step == 20


@pytest.mark.long
@pytest.mark.fault(
    "environment",
    "home folder, matplotlib's and the cache of programs that can't be created",
    "the command works; only matplotlib says what it does instead",
)
def test_unusable_home(user, finished):
    shutil.copytree(finished / "run", user / "run")
    (user / "file").touch()
    environment = {**os.environ, "HOME": str(user / "file")}
    environment.pop("JAX_COMPILATION_CACHE_DIR")
    process = subprocess.run(
        [sys.executable, "-m", "jvae_jax", "generate", "--workdir=run", "--output=x.png"],
        capture_output=True,
        text=True,
        cwd=user,
        env=environment,
    )
    assert (process.returncode, process.stdout) == (0, "10 x 10 characters in x.png\n")
    # Newer versions also print the error, in a line before.
    *error, last = process.stderr.splitlines()
    assert last.startswith("Matplotlib created a temporary cache directory at ")
    assert not error or re.fullmatch("mkdir -p failed for path .*", *error)


@pytest.mark.fault(
    "environment",
    "ASCII locale, without Python's UTF-8 mode",
    "class names are understood as flags and written as escapes",
)
def test_ascii_locale(user, finished):
    shutil.copytree(finished / "run", user / "run")
    path = user / "run" / "config.json"
    contents = json.loads(path.read_text())
    contents["data"]["class_names"][:2] = "いり"
    path.write_text(json.dumps(contents))
    flags = ["--workdir=run", "--labels=い,ぬ"]
    process = subprocess.run(
        [sys.executable, "-m", "jvae_jax", "generate", *flags],
        capture_output=True,
        text=True,
        cwd=user,
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    )
    names = "\\u3044, \\u308a, 2, 3, 4, 5, 6, 7, 8, 9"
    assert process.stderr == f"error: unknown label \\u306c; there are {names}\n"
    assert process.returncode == 2
