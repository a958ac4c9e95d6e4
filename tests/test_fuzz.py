"""Whatever the bytes, readers give what they promise or raise what they promise."""

import copy
import gzip
import io
import json
from dataclasses import asdict

import numpy as np
import pytest
from helpers import make_dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from jvae_jax import Dataset, TrainConfig
from jvae_jax.data import npz as npz_source
from jvae_jax.data.idx import Release
from jvae_jax.data.images import UnreadableError, decode
from jvae_jax.data.info import DatasetInfo
from jvae_jax.training.run import load_run

fuzzed = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@st.composite
def damaged(draw, whole):
    """A file's content, cut, lengthened or changed in places; or anything else."""
    content = bytearray(draw(st.sampled_from(whole)))
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


@fuzzed
@given(content=damaged(ARCHIVES) | st.binary(max_size=200))
def test_arrays(content, tmp_path):
    path = tmp_path / "fuzzed.npz"
    path.write_bytes(content)
    try:
        assert isinstance(npz_source.load(path), Dataset)
    except ValueError as error:
        assert "fuzzed.npz" in str(error)
    assert path.read_bytes() == content


IDX = [
    gzip.compress(b"\0\0\x08\x03" + b"\0\0\0\x02\0\0\0\x03\0\0\0\x03" + bytes(18), mtime=0),
    gzip.compress(b"\0\0\x08\x01" + b"\0\0\0\x02" + bytes(2), mtime=0),
]
FILES = dict.fromkeys(("images.gz", "labels.gz", "test_images.gz", "test_labels.gz"), "")
RELEASE = Release(name="fuzzed", url="", files=FILES, class_names=("a", "b"))


@fuzzed
@given(content=damaged(IDX) | st.binary(max_size=60).map(lambda some: gzip.compress(some, mtime=0)))
def test_releases(content, tmp_path):
    """Files that have no checksum, as some releases' have none."""
    paths = {name: tmp_path / name for name in FILES}
    for path in paths.values():
        path.write_bytes(content)
    try:
        read = RELEASE.read(paths, print)
    except ValueError as error:
        assert "is damaged" in str(error)
    else:
        assert read["train_images"].dtype == np.uint8


def picture(kind):
    file = io.BytesIO()
    Image.fromarray(IMAGES[0]).save(file, kind)
    return file.getvalue()


@fuzzed
@given(content=damaged([picture(kind) for kind in ("png", "jpeg", "gif", "bmp", "tiff")]))
def test_pictures(content):
    try:
        image = decode(content, 16)
    except UnreadableError:
        return
    assert image.dtype == np.uint8
    assert image.shape in ((16, 16, 1), (16, 16, 3))


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
values = scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.text(max_size=3), scalars)
WHOLE = {
    "config": asdict(TrainConfig(workdir="run", dataset="mnist_5k")),
    "data": asdict(DatasetInfo.of(make_dataset())),
}
places = st.sampled_from(
    [(part, name) for part, contents in WHOLE.items() for name in [*contents, "other"]]
    + [("config",), ("data",), ("other",)]
)


@fuzzed
@given(changes=st.lists(st.tuples(places, values), min_size=1, max_size=3))
def test_configs(changes, tmp_path, without_jaxtyping):
    del without_jaxtyping
    contents = copy.deepcopy(WHOLE)
    for (*outer, last), value in changes:
        inner = contents
        for name in outer:
            inner = inner[name]
        if isinstance(inner, dict):
            inner[last] = value
    check(json.dumps(contents), tmp_path)


@fuzzed
@given(text=st.text(max_size=60) | values.map(json.dumps))
def test_configs_that_are_none(text, tmp_path, without_jaxtyping):
    del without_jaxtyping
    check(text, tmp_path)


def check(text, folder):
    (folder / "config.json").write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        run = load_run(folder)
    except ValueError as error:
        assert "config.json can't be understood" in str(error)
        return
    assert run.config == TrainConfig(**asdict(run.config))
    assert isinstance(run.total_steps, int)
    assert isinstance(run.category_names, tuple)


@pytest.mark.parametrize("whole", ARCHIVES[:1], ids=["npz"])
def test_the_damage_reaches_what_is_whole(whole, tmp_path):
    """Undamaged, these are read: what the tests above feed isn't all refused at once."""
    path = tmp_path / "whole.npz"
    path.write_bytes(whole)
    assert len(npz_source.load(path).train_images) == 18
