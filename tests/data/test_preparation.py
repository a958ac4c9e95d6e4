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


@pytest.mark.fault(
    "environment", "no network", "an error that names the missing files, or mnist_5k"
)
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
        dataset = preparation.load(replace(source, mirrors=(url,)), tmp_path / "new")
    np.testing.assert_array_equal(dataset.test_images[..., 0], arrays[2])


@pytest.mark.fault("data files", "truncated download", "removed, and downloaded again next time")
def test_discards_truncated_downloads(tmp_path):
    first, content = next(iter(CONTENTS.items()))
    write_files(tmp_path / "web", CONTENTS | {first: content[: len(content) // 2]})
    with serve(tmp_path / "web") as url:
        source = replace(KMNIST, mirrors=(url,))
        with pytest.raises(
            ConnectionError, match=r"downloading kmnist failed: .* isn't the released file"
        ):
            preparation.load(source, tmp_path / "new")
        assert not list((tmp_path / "new").glob("*.npz"))
        # The next attempt downloads the files again.
        write_files(tmp_path / "web", CONTENTS)
        assert len(preparation.load(source, tmp_path / "new").train_labels) == 30


@pytest.mark.fault("environment", "read-only folder of data", "cached in the user's cache folder")
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


@pytest.fixture(params=["array_record", "tensorflow_datasets"])
def without_tfds(request, monkeypatch):
    """One of the packages can't be imported, as on Windows."""
    monkeypatch.delitem(sys.modules, "jvae_jax.data.tfds", raising=False)
    monkeypatch.delattr(data, "tfds", raising=False)
    monkeypatch.setitem(sys.modules, request.param, None)
    return request.param


WITHOUT_TFDS = pytest.mark.fault(
    "environment",
    "array_record or tensorflow-datasets can't be imported, as on Windows",
    "released files are downloaded, verified and cached without them",
)


@WITHOUT_TFDS
@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", ["kmnist", "k49"])
def test_prepares_local_files_without_tfds(name, without_tfds, tmp_path, caplog):
    source, contents, arrays = make_release(RELEASES[name])
    write_files(tmp_path, contents)
    with caplog.at_level(logging.INFO, logger="jvae_jax"):
        dataset = preparation.load(source, tmp_path)
    assert f"preparing {name} without tensorflow-datasets (" in caplog.messages[0]
    assert without_tfds in caplog.messages[0]
    np.testing.assert_array_equal(dataset.train_images[..., 0], arrays[0])
    np.testing.assert_array_equal(dataset.test_labels, arrays[3])
    for file in contents:
        (tmp_path / file).unlink()
    assert preparation.load(source, tmp_path).fingerprint == dataset.fingerprint


@WITHOUT_TFDS
@pytest.mark.usefixtures("without_tfds")
def test_downloads_files_without_tfds(tmp_path):
    write_files(tmp_path / "web", CONTENTS)
    with serve(tmp_path / "web") as url:
        source = replace(KMNIST, mirrors=(url,))
        dataset = preparation.load(source, tmp_path / "new")
    assert len(dataset.train_labels) == 30
    # The files are kept, for a cache that is removed or damaged.
    (tmp_path / "new" / "kmnist_28x28.npz").write_bytes(b"")
    again = preparation.load(replace(source, mirrors=("http://127.0.0.1:9/",)), tmp_path / "new")
    assert again.fingerprint == dataset.fingerprint


@WITHOUT_TFDS
@pytest.mark.usefixtures("without_tfds")
def test_discards_damaged_downloads_without_tfds(tmp_path):
    first, content = next(iter(CONTENTS.items()))
    write_files(tmp_path / "web", CONTENTS | {first: content[: len(content) // 2]})
    with serve(tmp_path / "web") as url:
        source = replace(KMNIST, mirrors=(url,))
        message = rf"downloading kmnist failed: .*{first} isn't the released file"
        with pytest.raises(ConnectionError, match=message):
            preparation.load(source, tmp_path / "new")
        write_files(tmp_path / "web", CONTENTS)
        assert len(preparation.load(source, tmp_path / "new").train_labels) == 30


@WITHOUT_TFDS
@pytest.mark.usefixtures("without_tfds")
def test_resumes_interrupted_downloads_without_tfds(tmp_path, monkeypatch):
    """The server announces more bytes than it sends."""
    write_files(tmp_path / "web", CONTENTS)
    with serve(tmp_path / "web") as url:
        source = replace(KMNIST, mirrors=(url,))
        with monkeypatch.context() as patch:
            send = http.server.SimpleHTTPRequestHandler.send_header
            patch.setattr(
                http.server.SimpleHTTPRequestHandler,
                "send_header",
                lambda self, name, value: send(
                    self, name, str(int(value) + 9) if name == "Content-Length" else value
                ),
            )
            with pytest.raises(ConnectionError, match=r"kmnist failed: .* ended after .* bytes"):
                preparation.load(source, tmp_path / "new")
        assert [path.suffix for path in (tmp_path / "new").rglob("*.gz*")] == [".part"]
        assert len(preparation.load(source, tmp_path / "new").train_labels) == 30
        assert not list((tmp_path / "new").rglob("*.part"))


PROGRAM = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
from helpers import make_release
from jvae_jax.data import preparation, tfds
from jvae_jax.data.idx import RELEASES
KMNIST, *_ = make_release(RELEASES['kmnist'])
OPERATIONS = "open", "os.mkdir", "os.remove", "os.rename", "os.rmdir"
left = {file_operations}

def count_down(event, arguments):
    global left
    if event in OPERATIONS and {folder!r} in str(arguments[0]):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(count_down)
preparation.load(KMNIST, Path({folder!r}))
print(-left)
"""


def command(folder, killed_before=0):
    """Command that prepares the files in a folder.

    Args:
        folder: folder of the files.
        killed_before: number of the file operation in the folder, from 1, before which the process
            kills itself; if 0 it prints their number when it has finished.
    """
    program = PROGRAM.format(
        tests=str(Path(__file__).parents[1]), folder=str(folder), file_operations=killed_before
    )
    return [sys.executable, "-c", program]


@pytest.mark.fault("processes", "two prepare the same data at once", "the second waits, and reads")
@pytest.mark.long
def test_concurrent_processes_prepare_once(tmp_path):
    write_files(tmp_path, CONTENTS)
    processes = [subprocess.Popen(command(tmp_path)) for _ in range(2)]
    try:
        assert [process.wait(120) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    assert not list(tmp_path.rglob("*incomplete*"))
    assert len(preparation.load(KMNIST, tmp_path).train_labels) == 30


@pytest.mark.fault("processes", "SIGKILL while data are prepared", "prepared again, nothing left")
@pytest.mark.long
def test_recovers_from_sigkill_at_any_stage(tmp_path):
    write_files(tmp_path, CONTENTS)
    file_operations = int(subprocess.check_output(command(tmp_path), timeout=120))
    assert file_operations > 8
    expected = preparation.load(KMNIST, tmp_path).fingerprint
    expected_files = {path.relative_to(tmp_path) for path in tmp_path.rglob("*")}
    stages = set()
    for killed_before in np.linspace(1, file_operations, 8).astype(int):
        here = tmp_path / str(killed_before)
        write_files(here, CONTENTS)
        process = subprocess.run(command(here, killed_before), timeout=120, check=False)
        assert process.returncode == -signal.SIGKILL
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
