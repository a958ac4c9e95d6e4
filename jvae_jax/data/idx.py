"""Datasets released as four IDX or .npz files: MNIST, Fashion-MNIST, KMNIST and EMNIST."""

import hashlib
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jvae_jax.data.archives import (
    damaged_file_error,
    decompress_gzip,
    read_arrays,
    read_members,
)
from jvae_jax.data.source import PreparedData

_UNSIGNED_BYTE = 8


@dataclass(frozen=True, kw_only=True)
class Release:
    """A :class:`~jvae_jax.data.source.Source` of 28x28 images with bright ink on dark background.

    Attributes:
        name: name of the dataset, as passed to :func:`jvae_jax.data.load`.
        mirrors: addresses of the folder of the files, or of the archive that contains them.
        files: checksums by file name, of training images, training labels, test images and test
            labels, in this order. A checksum is ``<algorithm> <digest>`` of the file,
            ``content <sha256>`` of the decompressed content, or empty if unknown.
        class_names: class names, in the order of the labels.
        archive: name and checksum of the zip archive that contains the files.
        first_label: label of the first class in the files.
        transposed: whether the images are stored with rows and columns swapped.
    """

    name: str
    mirrors: tuple[str, ...]
    files: Mapping[str, str]
    class_names: tuple[str, ...]
    archive: tuple[str, str] | None = None
    first_label: int = 0
    transposed: bool = False

    image_shape = 28, 28, 1
    homepage = None

    @property
    def has_checksums(self) -> bool:
        """Whether every file has a checksum."""
        return all(self.files.values())

    @property
    def urls(self) -> dict[str, tuple[str, ...]]:
        """Addresses of the archive or of each file, by file name."""
        names = self.files if self.archive is None else self.archive[:1]
        return {name: tuple(mirror + name for mirror in self.mirrors) for name in names}

    def find(self, directory: Path) -> dict[str, Path] | None:
        """Finds the files in the sub-folder named after the dataset, else in ``directory``."""
        for folder in (directory / self.name.split("/")[0], directory):
            for names in (self.files, self.urls):
                paths = {name: folder / name for name in names}
                if all(path.is_file() for path in paths.values()):
                    return paths
        return None

    def verify(self, name: str, path: Path) -> None:
        """Verifies the checksum of the archive or of a file, if it is known."""
        if self.archive is not None and name == self.archive[0]:
            _verify_file(path, self.archive[1])
        else:
            _verify_file(path, self.files[name])

    def read(self, paths: Mapping[str, Path]) -> PreparedData:
        """Verifies the checksums and reads the arrays."""
        for name, path in paths.items():
            self.verify(name, path)
        contents: Mapping[str, bytes]
        if self.archive is not None and self.archive[0] in paths:
            name, _ = self.archive
            contents = {
                path.name: content
                for path, content in read_members(paths[name], lambda path: path.name in self.files)
            }
        else:
            contents = {name: paths[name].read_bytes() for name in self.files}
        arrays = {
            name: _read_array(paths.get(name, name), contents[name], is_npz=name.endswith(".npz"))
            for name in self.files
        }
        names = list(self.files)
        for images_name, labels_name in (names[:2], names[2:]):
            images, labels = arrays[images_name], arrays[labels_name]
            if reason := self._image_fault(images):
                raise damaged_file_error(paths.get(images_name, images_name), ValueError(reason))
            if reason := self._label_fault(labels, len(images)):
                raise damaged_file_error(paths.get(labels_name, labels_name), ValueError(reason))
        images, labels, test_images, test_labels = arrays.values()
        return PreparedData(
            {
                "train_images": self._orient(images),
                "train_labels": labels.astype(np.int32) - self.first_label,
                "test_images": self._orient(test_images),
                "test_labels": test_labels.astype(np.int32) - self.first_label,
            }
        )

    def _image_fault(self, images: np.ndarray) -> str | None:
        if images.dtype != np.uint8 or images.shape[1:] != self.image_shape[:2] or not len(images):
            return f"images must be uint8, (examples, 28, 28), got {_describe(images)}"
        return None

    def _label_fault(self, labels: np.ndarray, images: int) -> str | None:
        if labels.dtype.kind not in "iu" or labels.shape != (images,):
            return f"labels of {images:,} images must be integers, got {_describe(labels)}"
        lowest, highest = self.first_label, self.first_label + len(self.class_names) - 1
        outside = labels[(labels < lowest) | (labels > highest)]
        if len(outside):
            return f"labels must be {lowest} to {highest}, got {outside[0]}"
        return None

    def _orient(self, images: np.ndarray) -> np.ndarray:
        return (images.swapaxes(1, 2) if self.transposed else images)[..., None]


def _verify_file(path: Path, checksum: str) -> None:
    algorithm, _, expected = checksum.partition(" ")
    if not algorithm:
        return
    if algorithm == "content":
        what, actual = "the sha256 of its content", hashlib.sha256(_decompress(path)).hexdigest()
    else:
        with path.open("rb") as file:
            what, actual = f"its {algorithm}", hashlib.file_digest(file, algorithm).hexdigest()
    if actual != expected:
        raise ValueError(
            f"{path} isn't the released file: {what} is {actual}, expected {expected}; delete or "
            "replace it, or put the released files into a sub-folder named after the dataset"
        )


def _decompress(path: Path) -> bytes:
    try:
        return decompress_gzip(path.read_bytes())
    except ValueError as error:
        raise damaged_file_error(path, error) from error


def _read_array(path: Path | str, content: bytes, *, is_npz: bool) -> np.ndarray:
    """Reads the array of an .npz file or of a gzipped IDX file of unsigned bytes."""
    try:
        if is_npz:
            return read_arrays(io.BytesIO(content), ("arr_0",))["arr_0"]
        content = decompress_gzip(content)
    except (OSError, ValueError) as error:
        raise damaged_file_error(path, error) from error
    try:
        return _parse_idx(content)
    except ValueError as error:
        raise damaged_file_error(path, error) from error


def _parse_idx(content: bytes) -> np.ndarray:
    start = 4 + 4 * int.from_bytes(content[3:4])
    if content[:3] != bytes([0, 0, _UNSIGNED_BYTE]) or len(content) < start:
        raise ValueError("not an IDX file of unsigned bytes")
    shape = tuple(np.frombuffer(content[4:start], ">u4").tolist())
    claimed, held = math.prod(shape), len(content) - start
    if claimed != held:
        raise ValueError(f"its header claims {claimed:,} bytes, shape {shape}, but it has {held:,}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _describe(array: np.ndarray) -> str:
    return f"{array.dtype} of shape {array.shape}"


def _idx_files(train: str, test: str, *checksums: str) -> dict[str, str]:
    """Checksums by file name of the four IDX files, given the prefixes of their names."""
    names = [
        f"{prefix}-{kind}-ubyte.gz"
        for prefix in (train, test)
        for kind in ("images-idx3", "labels-idx1")
    ]
    return dict(zip(names, checksums, strict=True))


def _emnist(split: str, class_names: str, *, first_label: int = 0) -> Release:
    """Release of one of EMNIST's splits, which share an archive."""
    return Release(
        name=f"emnist/{split}",
        mirrors=(
            "https://biometrics.nist.gov/cs_links/EMNIST/",
            "https://www.itl.nist.gov/iaui/vip/cs_links/EMNIST/",
        ),
        archive=(
            "gzip.zip",
            "sha256 fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e",
        ),
        files=_idx_files(f"emnist-{split}-train", f"emnist-{split}-test", "", "", "", ""),
        class_names=tuple(class_names),
        first_label=first_label,
        transposed=True,
    )


_DIGITS = "0123456789"
_CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_RELEASES = (
    Release(
        name="mnist",
        mirrors=(
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
        ),
        files=_idx_files(
            "train",
            "t10k",
            "content ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "content 65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "content 0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "content ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
        class_names=tuple(_DIGITS),
    ),
    Release(
        name="fashion_mnist",
        mirrors=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        ),
        files=_idx_files(
            "train",
            "t10k",
            "content c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "content bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "content 5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "content 0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
        class_names=(
            "T-shirt",
            "trouser",
            "pullover",
            "dress",
            "coat",
            "sandal",
            "shirt",
            "sneaker",
            "bag",
            "boot",
        ),
    ),
    Release(
        name="kmnist",
        mirrors=(
            "http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
            "https://codh.rois.ac.jp/kmnist/dataset/kmnist/",
        ),
        files=_idx_files(
            "train",
            "t10k",
            "sha256 51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
            "sha256 e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
            "sha256 edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
            "sha256 20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
        ),
        class_names=tuple("おきすつなはまやれを"),
    ),
    Release(
        name="k49",
        mirrors=(
            "http://codh.rois.ac.jp/kmnist/dataset/k49/",
            "https://codh.rois.ac.jp/kmnist/dataset/k49/",
        ),
        files={
            "k49-train-imgs.npz": "md5 7ac088b20481cf51dcd01ceaab89d821",
            "k49-train-labels.npz": "md5 44a8e1b893f81e63ff38d73cad420f7a",
            "k49-test-imgs.npz": "md5 d352e201d846ce6b94f42c990966f374",
            "k49-test-labels.npz": "md5 4da6f7a62e67a832d5eb1bd85c5ee448",
        },
        class_names=tuple(
            "あいうえおかきくけこさしすせそたちつてとなにぬねのはひふへほまみむめもやゆよらりるれろわゐゑをんゝ"
        ),
    ),
    _emnist("digits", _DIGITS),
    _emnist("mnist", _DIGITS),
    _emnist("letters", _CAPITALS, first_label=1),
    _emnist("balanced", f"{_DIGITS}{_CAPITALS}abdefghnqrt"),
    _emnist("bymerge", f"{_DIGITS}{_CAPITALS}abdefghnqrt"),
    _emnist("byclass", f"{_DIGITS}{_CAPITALS}{_CAPITALS.lower()}"),
)
RELEASES = {release.name: release for release in _RELEASES}
"""Releases by dataset name."""
