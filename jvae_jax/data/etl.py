"""ETL Character Database: handwritten kana and kanji of Japan, in fixed-length records."""

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from jvae_jax.data.archives import damaged_file_error, list_sizes, read_members
from jvae_jax.data.images import EncodedImage, decode_images
from jvae_jax.data.source import PreparedData


class _Format(NamedTuple):
    """Layout of the records of a data set.

    Attributes:
        length: bytes of a record.
        code: position of the character code, in bytes.
        code_length: 1 for JIS X 0201, 2 for JIS X 0208.
        image: position of the image, in bytes.
        width: pixels of a row.
        height: number of rows.
        bits: bits of a pixel; the leftmost pixel has the highest bits of a byte.
        dummies: records before the first character of a file.
        reading: position of the reading, four characters of 6 bits, in bytes; None if JIS codes say
            everything.
    """

    length: int
    code: int
    code_length: int
    image: int
    width: int
    height: int
    bits: int
    dummies: int = 0
    reading: int | None = None


FORMATS = {
    "etl4": _Format(2952, 9, 1, 216, 72, 76, 4, reading=18),
    "etl7": _Format(2052, 6, 1, 32, 64, 63, 4),
    "etl8b": _Format(512, 2, 2, 8, 64, 63, 1, dummies=1),
    "etl8g": _Format(8199, 2, 2, 60, 128, 127, 4),
    "etl9b": _Format(576, 2, 2, 8, 64, 63, 1, dummies=1),
    "etl9g": _Format(8199, 2, 2, 64, 128, 127, 4),
}
"""Formats by dataset name, as published in http://etlcdb.db.aist.go.jp/etlcdb/etln/form_e9g.htm,
form_e9b.htm, form_e8g.htm, form_e8b.htm, form_m.htm (ETL7) and form_c.htm (ETL4)."""

_T56 = "0123456789[#@:>? ABCDEFGHI&.](<  JKLMNOPQR-$*);'|/STUVWXYZ ,%=\"!"
"""Characters of the 6-bit code T56."""
_OLD_KANA = {"WI": "ゐ", "WE": "ゑ"}
"""Kana by reading, of those that JIS X 0201 doesn't have."""
_MARKS = {"\u3099": "゛", "\u309a": "゜"}
"""Voicing marks by their combining forms."""


@dataclass(frozen=True)
class EtlSource:
    """A :class:`~jvae_jax.data.source.Source` in the zip archive that the publisher gives out.

    Attributes:
        name: name of the dataset, one of ``FORMATS``.
        image_size: height and width of the decoded images, in pixels.
    """

    name: str
    image_size: int

    class_names = None
    has_checksums = False
    homepage = "http://etlcdb.db.aist.go.jp"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels: square and greyscale."""
        return self.image_size, self.image_size, 1

    @property
    def urls(self) -> dict[str, tuple[str, ...]]:
        """No addresses: the publisher's terms of use must be agreed to."""
        return {f"{self.name.upper()}.zip": ()}

    def find(self, directory: Path) -> dict[str, Path] | None:
        """Finds the archive, such as ETL9G.zip; that of ETL8B may be called ETL8B2.zip."""
        for folder in (directory / self.name, directory):
            paths = sorted(folder.glob(f"{self.name.upper()}*.zip"))
            if archive := next(filter(Path.is_file, paths), None):
                return {archive.name: archive}
        return None

    def verify(self, name: str, path: Path) -> None:
        """Accepts any file: no checksum is known."""

    def read(self, paths: Mapping[str, Path]) -> PreparedData:
        """Decodes the records, and holds out 10% of each class for testing.

        Classes are the characters of the records, in the order of their Unicode code points.
        """
        (archive,) = paths.values()
        layout = FORMATS[self.name]
        sizes = list_sizes(archive, self._has_records)
        decoded = decode_images(
            self._read_images(archive),
            None,
            self.image_size,
            source=str(archive),
            count=sum(max(size // layout.length - layout.dummies, 0) for size in sizes),
        )
        if not decoded.paths:
            raise ValueError(f"{archive} contains no file {self.name.upper()}...")
        return PreparedData(decoded.split(), class_names=decoded.class_names)

    def _read_images(self, archive: Path) -> Iterator[EncodedImage]:
        layout = FORMATS[self.name]
        for path, content in read_members(archive, self._has_records):
            records = self._records(archive, path, content)
            characters = _characters(records, layout, f"{archive}, {path}")
            for index, pixels in enumerate(_pixels(records, layout)):
                yield EncodedImage(characters[index], f"{path.name}/{index}", pixels)

    def _has_records(self, path: PurePosixPath) -> bool:
        """Whether a member has records; ETL9INFO, say, describes them."""
        return path.name.startswith(self.name.upper()) and not path.name.endswith("INFO")

    def _records(self, archive: Path, path: PurePosixPath, content: bytes) -> np.ndarray:
        layout = FORMATS[self.name]
        if len(content) % layout.length:
            reason = f"{path} has {len(content):,} bytes, not a multiple of {layout.length:,}"
            raise damaged_file_error(archive, ValueError(reason))
        records = np.frombuffer(content, np.uint8).reshape(-1, layout.length)
        return records[layout.dummies :]


def _pixels(records: np.ndarray, layout: _Format) -> Iterator[np.ndarray]:
    """Yields the image of each record, uint8, (height, width)."""
    size = layout.width * layout.height * layout.bits // 8
    maximum = 2**layout.bits - 1
    shifts = np.arange(8 - layout.bits, -1, -layout.bits, dtype=np.uint8)
    for record in records:
        packed = record[layout.image : layout.image + size, None]
        levels = packed >> shifts & maximum
        yield (levels * (255 // maximum)).reshape(layout.height, layout.width)


def _characters(records: np.ndarray, layout: _Format, source: str) -> list[str]:
    """The character of each record."""
    fields = [records[:, layout.code : layout.code + layout.code_length]]
    if layout.reading is not None:
        fields.append(records[:, layout.reading : layout.reading + 3])
    keys, indices = np.unique(np.concatenate(fields, axis=1), axis=0, return_inverse=True)
    names = []
    for key in keys:
        code, reading = bytes(key[: layout.code_length]), bytes(key[layout.code_length :])
        try:
            name = _OLD_KANA.get(_decode_t56(reading)[-2:]) or _decode_jis(code)
        except UnicodeError as error:
            encoding = "JIS X 0208" if layout.code_length == 2 else "JIS X 0201"
            reason = f"code {code.hex()} isn't a character of {encoding}"
            raise damaged_file_error(source, ValueError(reason)) from error
        names.append(name)
    return [names[index] for index in indices.ravel()]


def _decode_jis(code: bytes) -> str:
    """Character of JIS X 0208, or hiragana of the katakana of JIS X 0201."""
    if len(code) == 2:
        return bytes(byte | 0x80 for byte in code).decode("euc_jp")
    character = unicodedata.normalize("NFKC", code.decode("shift_jis"))
    if "ァ" <= character <= "ヶ":
        return chr(ord(character) - ord("ァ") + ord("ぁ"))
    return _MARKS.get(character, character)


def _decode_t56(content: bytes) -> str:
    """Text in the 6-bit code T56."""
    bits = np.unpackbits(np.frombuffer(content, np.uint8)).reshape(-1, 6)
    return "".join(_T56[index] for index in bits @ (1 << np.arange(6)[::-1]))
