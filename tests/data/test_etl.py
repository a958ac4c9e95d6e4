"""The ETL Character Database, from records packed by the published field lists."""

import struct

import numpy as np
import pytest
from helpers import write_zip

from jvae_jax import data
from jvae_jax.data import etl, preparation
from jvae_jax.data.images import decode_images

T56 = "0123456789[#@:>? ABCDEFGHI&.](<  JKLMNOPQR-$*);'|/STUVWXYZ ,%=\"!"
"""The 6-bit code, as the publisher's sample script has it."""


def t56(text):
    """Characters of 6 bits, packed into bytes."""
    bits = "".join(f"{T56.index(character):06b}" for character in text)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def nibbles(pixels):
    """Two pixels of 4 bits in a byte, the left one in the higher bits."""
    left, right = pixels.reshape(-1, 2).T
    return (16 * left + right).astype(np.uint8).tobytes()


def g_type(undefined, tail):
    """A record of ETL8G or ETL9G: sheet, code, reading, 13 numbers, undefined bytes and image."""

    def pack(code, pixels, number):
        head = struct.pack(">2H8sI4B4H2B", number, code, b"AI.MEDER", number, *[0] * 10)
        return head + bytes(undefined) + nibbles(pixels) + bytes(tail)

    return pack


def b_type(tail):
    """A record of ETL8B or ETL9B: sheet, code, reading and binary image."""

    def pack(code, pixels, number):
        image = np.packbits(pixels).tobytes()
        return struct.pack(">2H4s", number, code, b"AI.M") + image + bytes(tail)

    return pack


def m_type(code, pixels, number):
    """A record of ETL7; the JIS code is its seventh byte."""
    head = struct.pack(">H2sH6BI4H4B4x", number, b" A", number, code, *[0] * 5, number, *[0] * 8)
    return head + nibbles(pixels) + bytes(4)


def c_type(code, pixels, number):
    """A record of ETL4: fields of 36 bits, the JIS and EBCDIC code in the left 8, and a reading."""
    code, reading = code
    fields = number << 108 | number << 72 | (code << 28) << 36
    return fields.to_bytes(18, "big") + t56(reading) + bytes(195) + nibbles(pixels)


RECORDS = {
    # width, height, levels, function, records before the first, codes and their characters
    "etl4": (72, 76, 16, c_type, 0, {
        (0xB1, "H  A"): "あ", (0xB6, "H KA"): "か", (0xB2, "H WI"): "ゐ", (0xB2, "H  I"): "い",
    }),
    "etl7": (64, 63, 16, m_type, 0, {0xB1: "あ", 0xDD: "ん", 0xDE: "゛", 0xDF: "゜"}),
    "etl8b": (64, 63, 2, b_type(0), 1, {0x2422: "あ", 0x3021: "亜", 0x2443: "っ"}),
    "etl8g": (128, 127, 16, g_type(30, 11), 0, {0x2422: "あ", 0x3021: "亜"}),
    "etl9b": (64, 63, 2, b_type(64), 1, {0x2473: "ん", 0x4F53: "腕"}),
    "etl9g": (128, 127, 16, g_type(34, 7), 0, {0x2473: "ん", 0x4F53: "腕", 0x3021: "亜"}),
}  # fmt: skip
LENGTHS = {"etl4": 2952, "etl7": 2052, "etl8b": 512, "etl8g": 8199, "etl9b": 576, "etl9g": 8199}
PER_CLASS = 10


def make_archive(name):
    """Files of an archive in two parts, and the pixels and character of each record."""
    width, height, levels, pack, dummies, codes = RECORDS[name]
    rng = np.random.default_rng(0)
    files, expected = {f"{name.upper()}/{name.upper()}INFO": b"records"}, []
    for part in range(2):
        content = bytes(dummies * LENGTHS[name])
        for number in range(PER_CLASS // 2):
            for code, character in codes.items():
                # Bright ink on a dark border, in any level of grey.
                pixels = np.zeros((height, width), int)
                pixels[20:40, 30:40] = rng.integers(levels // 2, levels, (20, 10))
                record = pack(code, pixels, number + 1)
                assert len(record) == LENGTHS[name]
                content += record
                expected.append((pixels * (255 // (levels - 1)), character))
        files[f"{name.upper()}/{name.upper()}_{part + 1}"] = content
    return files, expected


@pytest.fixture
def offline(monkeypatch):
    def fail(_url):
        raise AssertionError("ETL must not be downloaded")

    monkeypatch.setattr(preparation, "connection_failure", fail)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", RECORDS)
def test_counts_records_before_reading_them(name, tmp_path, monkeypatch):
    files, expected = make_archive(name)
    write_zip(tmp_path / f"{name.upper()}.zip", files)
    counts = []

    def spy(images, *args, count, **options):
        counts.append(count)
        return decode_images(images, *args, count=count, **options)

    monkeypatch.setattr(etl, "decode_images", spy)
    data.load(name, tmp_path)
    assert counts == [len(expected)]


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", RECORDS)
def test_reads_records(name, tmp_path):
    """At their own size, where images are padded to squares alone."""
    files, expected = make_archive(name)
    write_zip(tmp_path / f"{name.upper()}.zip", files)
    width, height, *_, codes = RECORDS[name]
    size = max(width, height)
    dataset = data.load(name, tmp_path, image_size=size)
    assert dataset.class_names == tuple(sorted(codes.values()))
    top, left = (size - height) // 2, (size - width) // 2

    def keys(images, labels):
        for image, label in zip(images, labels, strict=True):
            own = image[top : top + height, left : left + width, 0]
            assert own.sum() == image.sum()
            yield own.astype(np.uint8).tobytes(), dataset.class_names[label]

    assert len(dataset.test_labels) == len(codes)
    assert sorted(np.bincount(dataset.train_labels)) == [PER_CLASS - 1] * len(codes)
    found = {*keys(dataset.train_images, dataset.train_labels)}
    found |= {*keys(dataset.test_images, dataset.test_labels)}
    assert found == {(pixels.astype(np.uint8).tobytes(), name) for pixels, name in expected}
    # From the cache, without the archive.
    (tmp_path / f"{name.upper()}.zip").unlink()
    again = data.load(name, tmp_path, image_size=size)
    assert (again.class_names, again.fingerprint) == (dataset.class_names, dataset.fingerprint)


@pytest.mark.usefixtures("offline")
def test_resizes_and_names_the_archive(tmp_path):
    files, _ = make_archive("etl8b")
    (tmp_path / "etl8b").mkdir()
    write_zip(tmp_path / "etl8b" / "ETL8B2.zip", files)
    dataset = data.load("etl8b", tmp_path)
    assert dataset.image_shape == (32, 32, 1)
    assert dataset.train_images.max() > 200
    assert np.median(dataset.train_images) == 0


@pytest.mark.usefixtures("offline")
def test_says_where_the_archive_is_to_be_had(tmp_path):
    message = r"etl9g is not in .*; get ETL9G\.zip from http://etlcdb\.db\.aist\.go"
    with pytest.raises(ConnectionError, match=message):
        data.load("etl9g", tmp_path)


@pytest.mark.fault(
    "data files", "damaged records of the ETL Character Database", "an error that names the file"
)
@pytest.mark.usefixtures("offline")
def test_rejects_damaged_records(tmp_path):
    files, _ = make_archive("etl9g")
    write_zip(tmp_path / "ETL9G.zip", {**files, "ETL9G/ETL9G_2": files["ETL9G/ETL9G_2"][:-1]})
    with pytest.raises(ValueError, match="ETL9G_2 has 122,984 bytes, not a multiple of 8,199"):
        data.load("etl9g", tmp_path)
    damaged = bytearray(files["ETL9G/ETL9G_2"])
    damaged[2:4] = b"\0\0"
    write_zip(tmp_path / "ETL9G.zip", {**files, "ETL9G/ETL9G_2": bytes(damaged)})
    with pytest.raises(ValueError, match=r"ETL9G_2 is damaged \(code 0000 isn't a character of"):
        data.load("etl9g", tmp_path)
    write_zip(tmp_path / "ETL9G.zip", {"ETL9INFO": b"records"})
    with pytest.raises(ValueError, match=r"ETL9G\.zip contains no file ETL9G"):
        data.load("etl9g", tmp_path)
