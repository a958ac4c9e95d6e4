"""Writes that fail, special files in the way, and checksums of arrays."""

import errno
import json
import os

import numpy as np
import pytest
from helpers import file_size_limit, log_messages
from safetensors.numpy import load_file, save_file

from jvae_jax import files
from jvae_jax.files import append, atomic_write, load_arrays, save_arrays, write_json

ARRAYS = {
    "a/kernel": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "a/bias": np.array([1.0, 2.0, 3.0], np.float32),
    "b/bias": np.array([3.0, 2.0, 1.0], np.float32),
    "accuracy": np.array(0.5),
}


@pytest.mark.fault(
    "output", "full disk", "one sentence that names the file; what was there stays whole"
)
def test_failed_write_keeps_file_and_names_it(tmp_path):
    path = tmp_path / "evaluation.json"
    write_json(path, {"mse": 1})
    before = path.read_bytes()
    with file_size_limit(1000), pytest.raises(OSError, match=r"File too large: .*evaluation.json"):
        write_json(path, list(range(10_000)))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with file_size_limit(100), pytest.raises(OSError, match=r"File too large: .*evaluation.json"):
        append(path, "x" * 200)


def make_special(path, kind, outside):
    if kind == "folder":
        path.mkdir()
    elif kind == "FIFO":
        os.mkfifo(path)
    else:
        path.symlink_to(outside if kind == "link" else outside.with_name("nothing"))


@pytest.mark.fault(
    "output",
    "link, dangling link, FIFO or folder in the place of a file",
    "refused, naming it; nothing is written elsewhere",
)
@pytest.mark.parametrize("kind", ["link", "dangling link", "FIFO", "folder"])
def test_refuses_special_files(kind, tmp_path):
    outside, path = tmp_path / "outside", tmp_path / "out.json"
    outside.write_text("mine")
    make_special(path, kind, outside)
    before = path.lstat()
    reason = "a symbolic link" if "link" in kind else "not a regular file"
    with pytest.raises(FileExistsError, match=f"out.json is {reason}"):
        write_json(path, {})
    assert path.lstat() == before
    assert outside.read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.fault(
    "output",
    "temporary file of a killed process with the same ID, or a link of this name",
    "replaced; nothing is written elsewhere",
)
@pytest.mark.parametrize("is_link", [True, False])
def test_replaces_stale_temporary_file(is_link, tmp_path):
    outside, stale = tmp_path / "outside", tmp_path / f".out.json.{os.getpid()}"
    outside.write_text("mine")
    if is_link:
        stale.symlink_to(outside)
    else:
        stale.write_text("half a fi")
    write_json(tmp_path / "out.json", {"a": 1})
    assert json.loads((tmp_path / "out.json").read_text()) == {"a": 1}
    assert outside.read_text() == "mine"
    assert not os.path.lexists(stale)


def test_failed_context_keeps_file(tmp_path):
    path = tmp_path / "out"
    path.write_text("before")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def assert_equal_arrays(arrays, expected):
    assert arrays.keys() == expected.keys()
    for name, array in arrays.items():
        assert array.dtype == expected[name].dtype
        np.testing.assert_array_equal(array, expected[name])


def test_arrays_round_trip(tmp_path):
    path = tmp_path / "model.safetensors"
    save_arrays(path, ARRAYS)
    assert_equal_arrays(load_arrays(path), ARRAYS)
    assert_equal_arrays(load_file(path), ARRAYS)


@pytest.mark.fault(
    "data files", "flipped bit in model.safetensors", "refused by its checksum, naming the file"
)
def test_flipped_bit_in_arrays_is_detected(tmp_path):
    """Flips one bit of each byte in turn; the header has bits that change nothing."""
    path = tmp_path / "model.safetensors"
    save_arrays(path, ARRAYS)
    intact = path.read_bytes()
    values = intact.index(b"}}") + 2
    detected = 0
    for index in range(len(intact)):
        damaged = bytearray(intact)
        damaged[index] ^= 1 << index % 8
        path.write_bytes(damaged)
        try:
            arrays = load_arrays(path)
        except ValueError as error:
            assert str(error).startswith(f"{path} is damaged: ")
            detected += index >= values
        else:
            assert_equal_arrays(arrays, ARRAYS)
    assert detected >= sum(array.nbytes for array in ARRAYS.values())


def test_arrays_without_checksum_are_loaded_and_swapped_ones_are_not(tmp_path):
    path = tmp_path / "model.safetensors"
    contiguous = {name: np.ascontiguousarray(array) for name, array in ARRAYS.items()}
    save_file(contiguous, path)
    assert_equal_arrays(load_arrays(path), contiguous)
    save_arrays(path, ARRAYS)
    swapped = path.read_bytes().replace(b"a/bias", b"_/bias").replace(b"b/bias", b"a/bias")
    path.write_bytes(swapped.replace(b"_/bias", b"b/bias"))
    np.testing.assert_array_equal(load_file(path)["a/bias"], ARRAYS["b/bias"])
    with pytest.raises(ValueError, match="damaged: the checksum of its arrays doesn't match"):
        load_arrays(path)


@pytest.mark.fault("run folder", "file system without locks", "a warning; nobody is excluded")
def test_lock_on_file_system_without_locks(tmp_path, monkeypatch):
    def acquire(*_, **__):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.FileLock, "acquire", acquire)
    with log_messages() as messages, files.lock_file(tmp_path / "lock", wait=False):
        pass
    (message,) = messages
    assert "the file system has no locks" in message


def test_lock_reports_other_errors(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"), files.lock_file(tmp_path / "file" / "lock"):
        pass
