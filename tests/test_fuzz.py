"""Fuzzing: for arbitrary bytes, readers return valid data or raise the documented errors."""

import copy
import gzip
import io
import json
import re
from dataclasses import asdict

import numpy as np
import pytest
from helpers import encode_image, make_dataset, write_files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from jvae_jax import Dataset, TrainConfig
from jvae_jax.data import npz as npz_source
from jvae_jax.data.dataset import DatasetInfo
from jvae_jax.data.idx import Release
from jvae_jax.data.images import UnreadableImageError, decode_image
from jvae_jax.training.run import FORMAT, load_run

fuzzed = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@st.composite
def damaged(draw, contents):
    """Content of a file with random bytes replaced, truncated or extended by a byte."""
    content = bytearray(draw(st.sampled_from(contents)))
    for _ in range(draw(st.integers(0, 4))):
        if content:
            content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    cut = draw(st.integers(0, len(content)))
    return draw(st.sampled_from([bytes(content), bytes(content[:cut]), bytes(content) + b"\0"]))


def npz(**contents):
    file = io.BytesIO()
    np.savez(file, **contents)
    return file.getvalue()


IMAGES, LABELS = np.arange(20 * 64, dtype=np.uint8).reshape(20, 8, 8), np.arange(20) % 2
ARCHIVES = [
    npz(images=IMAGES, labels=LABELS),
    npz(images=IMAGES, labels=LABELS, class_names=["a", "b"]),
    npz(train_images=IMAGES, train_labels=LABELS, test_images=IMAGES, test_labels=LABELS),
]


@pytest.mark.fault(
    "data files", "random damage to npz, IDX and image files", "valid data or one sentence"
)
@fuzzed
@given(content=damaged(ARCHIVES) | st.binary(max_size=200))
def test_npz_files(content, tmp_path):
    path = tmp_path / "fuzzed.npz"
    path.write_bytes(content)
    try:
        assert isinstance(npz_source.load(path), Dataset)
    except ValueError as error:
        assert "fuzzed.npz" in str(error)
    assert path.read_bytes() == content


INTACT = {
    "images.gz": gzip.compress(
        b"\0\0\x08\x03\0\0\0\2\0\0\0\x1c\0\0\0\x1c" + bytes(2 * 28**2), mtime=0
    ),
    "labels.gz": gzip.compress(b"\0\0\x08\x01\0\0\0\2" + bytes(2), mtime=0),
}
INTACT |= {f"test_{name}": content for name, content in INTACT.items()}
FILES = dict.fromkeys(INTACT, "")
RELEASE = Release(name="fuzzed", mirrors=(), files=FILES, class_names=("a", "b"))


@pytest.mark.fault(
    "data files", "random damage to npz, IDX and image files", "valid data or one sentence"
)
@fuzzed
@given(
    name=st.sampled_from(list(INTACT)),
    content=damaged(list(INTACT.values()))
    | st.binary(max_size=60).map(lambda some: gzip.compress(some, mtime=0)),
)
def test_idx_files(name, content, tmp_path):
    """Files without checksums, as in EMNIST, one of them damaged."""
    write_files(tmp_path, INTACT | {name: content})
    paths = {name: tmp_path / name for name in INTACT}
    try:
        data = RELEASE.read(paths)
    except ValueError as error:
        assert "is damaged" in str(error)
    else:
        assert data.arrays["train_images"].dtype == np.uint8


ENCODED = [
    encode_image(Image.fromarray(IMAGES[0]), kind) for kind in ("png", "jpeg", "gif", "bmp", "tiff")
]


@pytest.mark.fault(
    "data files", "random damage to npz, IDX and image files", "valid data or one sentence"
)
@fuzzed
@given(content=damaged(ENCODED))
def test_images(content):
    try:
        image = decode_image(content, 16)
    except UnreadableImageError:
        return
    assert image.dtype == np.uint8
    assert image.shape in ((16, 16, 1), (16, 16, 3))


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
values = scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.text(max_size=3), scalars)
VALID_CONFIG = {
    "format": FORMAT,
    "config": TrainConfig(workdir="run", dataset="mnist_5k").to_json(),
    "data": asdict(DatasetInfo.from_dataset(make_dataset())),
}
locations = st.sampled_from(
    [(part, name) for part in ("config", "data") for name in [*VALID_CONFIG[part], "other"]]
    + [("config", "objective", name) for name in [*VALID_CONFIG["config"]["objective"], "other"]]
    + [("format",), ("config",), ("data",), ("other",)]
)


@pytest.mark.fault("run folder", "random damage to config.json", "a valid run or one sentence")
@fuzzed
@given(changes=st.lists(st.tuples(locations, values), min_size=1, max_size=3))
def test_configs(changes, tmp_path, without_jaxtyping):
    del without_jaxtyping
    contents = copy.deepcopy(VALID_CONFIG)
    for (*outer, last), value in changes:
        inner = contents
        for name in outer:
            inner = inner.get(name) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            inner[last] = value
    check(json.dumps(contents), tmp_path)


@pytest.mark.fault("run folder", "random damage to config.json", "a valid run or one sentence")
@fuzzed
@given(text=st.text(max_size=60) | values.map(json.dumps))
def test_arbitrary_configs(text, tmp_path, without_jaxtyping):
    del without_jaxtyping
    check(text, tmp_path)


def check(text, folder):
    (folder / "config.json").write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        run = load_run(folder)
    except ValueError as error:
        assert re.search("config.json (is invalid|has format)", str(error))
        return
    assert run.config == TrainConfig.from_json(run.config.to_json())
    assert isinstance(run.total_steps, int)
    assert isinstance(run.make_model({}).category_names, tuple)


@pytest.mark.parametrize("content", ARCHIVES[:1], ids=["npz"])
def test_reads_undamaged_files(content, tmp_path):
    """Without damage, the fuzzed content is valid."""
    path = tmp_path / "undamaged.npz"
    path.write_bytes(content)
    assert len(npz_source.load(path).train_images) == 18
