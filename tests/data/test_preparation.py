"""Preparing, once: found or downloaded, killed or not, by one process or two."""

import contextlib
import gzip
import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import make_release, write_files

from jvae_jax import data
from jvae_jax.data import cache, preparation
from jvae_jax.data.idx import RELEASES

KMNIST, CONTENTS, _ = make_release(RELEASES["kmnist"])


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(preparation, "unreachable", lambda _url: "no network")


@contextlib.contextmanager
def served(folder):
    """A server on this machine, in place of the real one; gives its address."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def load(source, folder):
    return preparation.load(source, folder, say=pytest.fail)


@pytest.mark.usefixtures("offline")
def test_found_files_are_prepared_once(tmp_path):
    write_files(tmp_path, CONTENTS)
    first = load(KMNIST, tmp_path)
    for name in CONTENTS:
        (tmp_path / name).unlink()
    assert load(KMNIST, tmp_path).fingerprint == first.fingerprint
    # A cache that isn't whole is made again from what is prepared.
    kept = tmp_path / "kmnist_28x28.npz"
    content = kept.read_bytes()
    kept.write_bytes(content[: len(content) // 2])
    assert load(KMNIST, tmp_path).fingerprint == first.fingerprint
    assert kept.stat().st_size == len(content)


@pytest.mark.usefixtures("offline")
def test_what_is_neither_there_nor_reachable_is_told(tmp_path):
    message = rf"k49 is not in {tmp_path}/new and .* \(no network\); put k49-train-imgs\.npz, k49"
    with pytest.raises(ConnectionError, match=message):
        data.load("k49", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["kmnist", "k49"])
def test_files_are_downloaded(name, tmp_path):
    source, contents, arrays = make_release(RELEASES[name])
    write_files(tmp_path / "web", contents)
    with served(tmp_path / "web") as url:
        dataset = load(replace(source, url=url), tmp_path / "new")
    np.testing.assert_array_equal(dataset.test_images[..., 0], arrays[2])


def test_a_broken_download_is_not_taken_for_a_whole_one(tmp_path):
    first, content = next(iter(CONTENTS.items()))
    write_files(tmp_path / "web", CONTENTS | {first: content[: len(content) // 2]})
    with served(tmp_path / "web") as url:
        source = replace(KMNIST, url=url)
        with pytest.raises(ConnectionError, match=r"downloading kmnist failed: .* isn't the file"):
            load(source, tmp_path / "new")
        assert not list((tmp_path / "new").glob("*.npz"))
        # Once it is whole on the other side, it is fetched again.
        write_files(tmp_path / "web", CONTENTS)
        assert len(load(source, tmp_path / "new").train_labels) == 30


def test_files_in_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    write_files(tmp_path / "data", CONTENTS)
    monkeypatch.setattr(cache, "HOME", tmp_path / "home")
    monkeypatch.setattr(
        preparation.os, "access", lambda path, mode: path != tmp_path / "data" or mode != os.W_OK
    )
    before = sorted((tmp_path / "data").iterdir())
    assert len(load(KMNIST, tmp_path / "data").train_labels) == 30
    assert sorted((tmp_path / "data").iterdir()) == before
    assert (tmp_path / "home" / "kmnist_28x28.npz").exists()


PROGRAM = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
from helpers import make_release
from jvae_jax.data import preparation, tfds
from jvae_jax.data.idx import RELEASES
KMNIST, *_ = make_release(RELEASES['kmnist'])
preparation.load(KMNIST, Path({folder!r}), say=print)
"""


def start(folder):
    program = PROGRAM.format(tests=str(Path(__file__).parents[1]), folder=str(folder))
    return subprocess.Popen([sys.executable, "-c", program])


@pytest.mark.long
def test_two_processes_prepare_it_once(tmp_path):
    write_files(tmp_path, CONTENTS)
    processes = [start(tmp_path) for _ in range(2)]
    assert [process.wait(120) for process in processes] == [0, 0]
    assert not list(tmp_path.rglob("*incomplete*"))
    assert len(load(KMNIST, tmp_path).train_labels) == 30


@pytest.mark.long
def test_killed_anywhere_the_next_start_begins_clean(tmp_path):
    write_files(tmp_path, CONTENTS)
    whole = load(KMNIST, tmp_path).fingerprint
    kept = {path.relative_to(tmp_path) for path in tmp_path.rglob("*")}
    seen = set()
    for delay in range(12):
        here = tmp_path / str(delay)
        write_files(here, CONTENTS)
        process = start(here)
        while not (here / ".jvae_jax.lock").exists():
            time.sleep(0.001)
        time.sleep(delay * 0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        left = {path.name for path in here.rglob("*")}
        seen.add(frozenset(name.split(".")[0] for name in left))
        assert load(KMNIST, here).fingerprint == whole
        assert {path.relative_to(here) for path in here.rglob("*")} == kept
    assert len(seen) > 2  # so that they were killed at different stages


@pytest.mark.long
@pytest.mark.usefixtures("offline")
def test_the_full_mnist(mnist_files):
    dataset = data.load("auto", mnist_files, image_size=28)
    raw = gzip.decompress((mnist_files / "train-images-idx3-ubyte.gz").read_bytes())
    np.testing.assert_array_equal(dataset.train_images.ravel(), np.frombuffer(raw[16:], np.uint8))
    raw = gzip.decompress((mnist_files / "t10k-labels-idx1-ubyte.gz").read_bytes())
    np.testing.assert_array_equal(dataset.test_labels, np.frombuffer(raw[8:], np.uint8))
    started = time.monotonic()
    assert data.load("mnist", mnist_files, image_size=28).fingerprint == dataset.fingerprint
    assert time.monotonic() - started < 3
