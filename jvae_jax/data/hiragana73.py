"""hiragana73: 80,000 images of 73 printed hiragana, by the National Diet Library of Japan."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from jvae_jax.data.archives import list_sizes, read_members
from jvae_jax.data.images import EncodedImage, decode_images
from jvae_jax.data.source import PreparedData

_CHARACTERS = (
    "あいうえおかがきぎくぐけげこごさざしじすずせぜそぞただちぢつづてでとどなにぬねの"
    "はばぱひびぴふぶぷへべぺほぼぽまみむめもやゆよらりるれろわゐゑをん"
)
_FOLDERS = {f"U{ord(character):04X}": character for character in _CHARACTERS}


@dataclass(frozen=True)
class Hiragana73:
    """A :class:`~jvae_jax.data.source.Source` in one zip, one tar.gz, or several partial zips.

    Attributes:
        image_size: height and width of the decoded images, in pixels.
    """

    image_size: int

    name = "hiragana73"
    class_names = tuple(_CHARACTERS)
    has_checksums = False
    homepage = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels: square and greyscale."""
        return self.image_size, self.image_size, 1

    @property
    def urls(self) -> dict[str, tuple[str, ...]]:
        """Address of the complete zip archive."""
        return {"hiragana73.zip": ("https://lab.ndl.go.jp/dataset/hiragana73.zip",)}

    def find(self, directory: Path) -> dict[str, Path] | None:
        """Finds hiragana73.zip, else hiragana73.tar.gz, else the partial hiragana73*.zip."""
        for folder in (directory / self.name, directory):
            for pattern in ("hiragana73.zip", "hiragana73.tar.gz", "hiragana73*.zip"):
                if paths := sorted(folder.glob(pattern)):
                    return {path.name: path for path in paths}
        return None

    def verify(self, name: str, path: Path) -> None:
        """Accepts any file: no checksum is known."""

    def read(self, paths: Mapping[str, Path]) -> PreparedData:
        """Decodes greyscale images with bright ink and holds out 10% of each class for testing."""
        source = ", ".join(map(str, paths.values()))
        if len(paths) > 1:
            source += " (all parts of a split archive are required)"
        decoded = decode_images(
            _read_images(paths.values()),
            self.class_names,
            self.image_size,
            source=source,
            count=sum(len(list_sizes(archive, _is_image)) for archive in paths.values()),
            grey=True,
        )
        return PreparedData(decoded.split(), decoded.notes)


def _read_images(archives: Iterable[Path]) -> Iterator[EncodedImage]:
    for archive in archives:
        for path, content in read_members(archive, _is_image):
            folder = path.parent.name
            yield EncodedImage(_FOLDERS[folder], f"{folder}/{path.name}", content)


def _is_image(path: PurePosixPath) -> bool:
    return path.parent.name in _FOLDERS and not path.name.startswith(".")
