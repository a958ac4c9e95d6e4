"""hiragana73: 80,000 crops of 73 printed hiragana, by the National Diet Library of Japan."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from jvae_jax.data.archives import members
from jvae_jax.data.images import Picture, decode_all, divided, held_out
from jvae_jax.data.source import Arrays, Say

_CHARACTERS = (
    "あいうえおかがきぎくぐけげこごさざしじすずせぜそぞただちぢつづてでとどなにぬねの"
    "はばぱひびぴふぶぷへべぺほぼぽまみむめもやゆよらりるれろわゐゑをん"
)
_FOLDERS = {f"U{ord(character):04X}": character for character in _CHARACTERS}


@dataclass(frozen=True)
class Hiragana73:
    """A :class:`~jvae_jax.data.source.Source`: one zip, one tar.gz, or several part zips."""

    image_size: int

    name = "hiragana73"
    class_names = tuple(_CHARACTERS)
    checked = False

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Square and grey."""
        return self.image_size, self.image_size, 1

    @property
    def urls(self) -> dict[str, str]:
        """The one zip."""
        return {"hiragana73.zip": "https://lab.ndl.go.jp/dataset/hiragana73.zip"}

    def find(self, directory: Path) -> dict[str, Path] | None:
        """Looks for hiragana73.zip, else hiragana73.tar.gz, else hiragana73*.zip, the parts."""
        for folder in (directory / self.name, directory):
            for pattern in ("hiragana73.zip", "hiragana73.tar.gz", "hiragana73*.zip"):
                if paths := sorted(folder.glob(pattern)):
                    return {path.name: path for path in paths}
        return None

    def read(self, paths: Mapping[str, Path], say: Say) -> Arrays:
        """Grey images with bright ink, a tenth of each class held out."""
        where = ", ".join(map(str, paths.values()))
        if len(paths) > 1:
            where += " (of several parts, all must be there)"
        decoded = decode_all(
            _pictures(paths.values()),
            self.class_names,
            self.image_size,
            where=where,
            grey=True,
            say=say,
        )
        test = held_out(decoded.paths, decoded.labels, len(self.class_names))
        return divided(decoded.images, decoded.labels, test)


def _pictures(archives: Iterable[Path]) -> Iterator[Picture]:
    for archive in archives:
        for path, content in members(archive, _is_picture):
            folder = path.parent.name
            yield Picture(_FOLDERS[folder], f"{folder}/{path.name}", content)


def _is_picture(path: PurePosixPath) -> bool:
    return path.parent.name in _FOLDERS and not path.name.startswith(".")
