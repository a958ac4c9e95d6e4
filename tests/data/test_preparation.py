"""Preparation of local and downloaded files, by interrupted and concurrent processes."""

import contextlib
import gzip
import http.server
import logging
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
    monkeypatch.setattr(preparation, "connection_failure", lambda _url: "no network")


@pytest.fixture(autouse=True)
def _no_warnings(caplog):
    yield
    records = caplog.get_records("call")
    assert not [record for record in records if record.levelno >= logging.WARNING]


@contextlib.contextmanager
def serve(folder):
    """Serves a folder on localhost and yields the URL."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.mark.usefixtures("offline")
def test_prepares_local_files_once(tmp_path):
    write_files(tmp_path, CONTENTS)
    first = preparation.load(KMNIST, tmp_path)
    for name in CONTENTS:
        (tmp_path / name).unlink()
    assert preparation.load(KMNIST, tmp_path).fingerprint == first.fingerprint
    # A truncated cache is rewritten from the data that tensorflow-datasets prepared.
    cached = tmp_path / "kmnist_28x28.npz"
    content = cached.read_bytes()
    cached.write_bytes(content[: len(content) // 2])
    assert preparation.load(KMNIST, tmp_path).fingerprint == first.fingerprint
    assert cached.stat().st_size == len(content)


@pytest.mark.usefixtures("offline")
def test_reports_missing_files_without_network(tmp_path):
    message = rf"k49 is not in {tmp_path}/new and .* \(no network\); put k49-train-imgs\.npz, k49"
    with pytest.raises(ConnectionError, match=message):
        data.load("k49", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["kmnist", "k49"])
def test_downloads_files(name, tmp_path):
    source, contents, arrays = make_release(RELEASES[name])
    write_files(tmp_path / "web", contents)
    with serve(tmp_path / "web") as url:
        dataset = preparation.load(replace(source, url=url), tmp_path / "new")
    np.testing.assert_array_equal(dataset.test_images[..., 0], arrays[2])


def test_discards_truncated_downloads(tmp_path):
    first, content = next(iter(CONTENTS.items()))
    write_files(tmp_path / "web", CONTENTS | {first: content[: len(content) // 2]})
    with serve(tmp_path / "web") as url:
        source = replace(KMNIST, url=url)
        with pytest.raises(
            ConnectionError, match=r"downloading kmnist failed: .* isn't the released file"
        ):
            preparation.load(source, tmp_path / "new")
        assert not list((tmp_path / "new").glob("*.npz"))
        # The next attempt downloads the files again.
        write_files(tmp_path / "web", CONTENTS)
        assert len(preparation.load(source, tmp_path / "new").train_labels) == 30


def test_caches_elsewhere_if_the_folder_is_read_only(tmp_path, monkeypatch):
    write_files(tmp_path / "data", CONTENTS)
    monkeypatch.setattr(cache, "CACHE_DIR", tmp_path / "cache")
    monkeypatch.setattr(
        preparation.os, "access", lambda path, mode: path != tmp_path / "data" or mode != os.W_OK
    )
    before = sorted((tmp_path / "data").iterdir())
    assert len(preparation.load(KMNIST, tmp_path / "data").train_labels) == 30
    assert sorted((tmp_path / "data").iterdir()) == before
    assert (tmp_path / "cache" / "kmnist_28x28.npz").exists()


PROGRAM = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
from helpers import make_release
from jvae_jax.data import preparation, tfds
from jvae_jax.data.idx import RELEASES
KMNIST, *_ = make_release(RELEASES['kmnist'])
preparation.load(KMNIST, Path({folder!r}))
"""


def start(folder):
    program = PROGRAM.format(tests=str(Path(__file__).parents[1]), folder=str(folder))
    return subprocess.Popen([sys.executable, "-c", program])


@pytest.mark.long
def test_concurrent_processes_prepare_once(tmp_path):
    write_files(tmp_path, CONTENTS)
    processes = [start(tmp_path) for _ in range(2)]
    assert [process.wait(120) for process in processes] == [0, 0]
    assert not list(tmp_path.rglob("*incomplete*"))
    assert len(preparation.load(KMNIST, tmp_path).train_labels) == 30


@pytest.mark.long
def test_recovers_from_sigkill_at_any_stage(tmp_path):
    write_files(tmp_path, CONTENTS)
    expected = preparation.load(KMNIST, tmp_path).fingerprint
    expected_files = {path.relative_to(tmp_path) for path in tmp_path.rglob("*")}
    stages = set()
    for delay in range(12):
        here = tmp_path / str(delay)
        write_files(here, CONTENTS)
        process = start(here)
        while not (here / ".jvae_jax.lock").exists():
            time.sleep(0.001)
        time.sleep(delay * 0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        leftovers = {path.name for path in here.rglob("*")}
        stages.add(frozenset(name.split(".")[0] for name in leftovers))
        assert preparation.load(KMNIST, here).fingerprint == expected
        assert {path.relative_to(here) for path in here.rglob("*")} == expected_files
    assert len(stages) > 2  # the processes were killed at different stages


@pytest.mark.long
@pytest.mark.usefixtures("offline")
def test_loads_the_full_mnist(mnist_files):
    dataset = data.load("auto", mnist_files, image_size=28)
    raw = gzip.decompress((mnist_files / "train-images-idx3-ubyte.gz").read_bytes())
    np.testing.assert_array_equal(dataset.train_images.ravel(), np.frombuffer(raw[16:], np.uint8))
    raw = gzip.decompress((mnist_files / "t10k-labels-idx1-ubyte.gz").read_bytes())
    np.testing.assert_array_equal(dataset.test_labels, np.frombuffer(raw[8:], np.uint8))
    started = time.monotonic()
    assert data.load("mnist", mnist_files, image_size=28).fingerprint == dataset.fingerprint
    assert time.monotonic() - started < 3
