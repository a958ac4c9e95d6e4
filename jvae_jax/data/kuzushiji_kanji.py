"""Kuzushiji-Kanji: 140,424 images of 3,832 cursive kanji, by CODH."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from jvae_jax.data.archives import read_members
from jvae_jax.data.images import EncodedImage, decode_images, holdout_mask, split_arrays
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
        images = [
            EncodedImage(chr(int(path.parent.name[2:], 16)), "/".join(path.parts[-2:]), content)
            for path, content in read_members(archive, _is_image)
        ]
        class_names = tuple(sorted({image.class_name for image in images}))
        if not class_names:
            raise ValueError(f"{archive} contains no folder of images such as U+5275")
        decoded = decode_images(
            images, class_names, self.image_size, source=str(archive), grey=True
        )
        test = holdout_mask(decoded.paths, decoded.labels, len(class_names))
        arrays = split_arrays(decoded.images, decoded.labels, test)
        notes = decoded.notes
        if len(images) != _IMAGES:  # a truncated tar archive may look like a shorter one
            notes += (f"{archive} holds {len(images):,} of the {_IMAGES:,} released images",)
        return PreparedData(arrays, notes, class_names)


def _is_image(path: PurePosixPath) -> bool:
    return bool(_FOLDER.fullmatch(path.parent.name)) and not path.name.startswith(".")
