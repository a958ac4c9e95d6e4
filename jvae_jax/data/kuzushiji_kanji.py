"""Kuzushiji-Kanji: 140,424 images of 3,832 cursive kanji, by CODH."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from jvae_jax.data.archives import read_members
from jvae_jax.data.images import EncodedImage, decode_images
from jvae_jax.data.source import PreparedData

_IMAGES = 140_424
_FOLDER = re.compile(r"U\+([0-9A-F]{4,5})")


@dataclass(frozen=True)
class KuzushijiKanji:
    """A :class:`~jvae_jax.data.source.Source` in one tar archive, a folder for each character.

    Attributes:
        image_size: height and width of the decoded images, in pixels.
    """

    image_size: int

    name = "kuzushiji_kanji"
    class_names = None
    has_checksums = False
    homepage = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels: square and greyscale."""
        return self.image_size, self.image_size, 1

    @property
    def urls(self) -> dict[str, tuple[str, ...]]:
        """Address of the archive."""
        folder = "codh.rois.ac.jp/kmnist/dataset/kkanji/kkanji.tar"
        return {"kkanji.tar": (f"http://{folder}", f"https://{folder}")}

    def find(self, directory: Path) -> dict[str, Path] | None:
        """Finds kkanji.tar."""
        for folder in (directory / self.name, directory):
            if (path := folder / "kkanji.tar").is_file():
                return {path.name: path}
        return None

    def verify(self, name: str, path: Path) -> None:
        """Accepts any file: no checksum is known."""

    def read(self, paths: Mapping[str, Path]) -> PreparedData:
        """Decodes greyscale images with bright ink and holds out 10% of each class for testing.

        Classes are in the order of their Unicode code points.
        """
        (archive,) = paths.values()
        decoded = decode_images(
            _read_images(archive),
            None,
            self.image_size,
            source=str(archive),
            count=_IMAGES,
            grey=True,
        )
        if not decoded.class_names:
            raise ValueError(f"{archive} contains no folder of images such as U+5275")
        notes = decoded.notes
        count = len(decoded.paths) + decoded.unreadable
        if count != _IMAGES:  # a truncated tar archive may look like a shorter one
            notes += (f"{archive} holds {count:,} of the {_IMAGES:,} released images",)
        return PreparedData(decoded.split(), notes, decoded.class_names)


def _read_images(archive: Path) -> Iterator[EncodedImage]:
    for path, content in read_members(archive, _is_image):
        character = chr(int(path.parent.name[2:], 16))
        yield EncodedImage(character, "/".join(path.parts[-2:]), content)


def _is_image(path: PurePosixPath) -> bool:
    return bool(_FOLDER.fullmatch(path.parent.name)) and not path.name.startswith(".")
