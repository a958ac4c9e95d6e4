"""Records for TensorBoard and Weights & Biases, and the figure of the curves."""

import json
import struct
from dataclasses import replace

import pytest
from helpers import SMALL, make_dataset
from PIL import Image

from jvae_jax import fit
from jvae_jax.training import logbook

pytestmark = pytest.mark.filterwarnings("ignore")


def tensorboard_events(folder):
    """The events of all files, read by the format of their records."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    for path in sorted(folder.rglob("events.out.*")):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])  # then a checksum of 4 bytes
            yield event_pb2.Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]


def test_tensorboard_has_the_terms_and_samples(tmp_path):
    pytest.importorskip("tensorboardX")
    config = replace(SMALL, epochs=2, log="tensorboard", workdir=str(tmp_path / "run"))
    run = fit(config, make_dataset())
    values = [
        (event.step, value)
        for event in tensorboard_events(run.workdir / "tensorboard")
        for value in event.summary.value
    ]
    recorded = {(step, each.tag): each.simple_value for step, each in values if each.tag}
    for line in run.metrics_path.read_text().splitlines():
        epoch = json.loads(line)
        for split in ("train", "test"):
            for name, value in epoch[split].items():
                assert recorded[epoch["step"], f"{split}/{name}"] == pytest.approx(value, rel=1e-6)
    images = [(step, each.image) for step, each in values if each.HasField("image")]
    assert [step for step, _ in images] == [6, 12]
    with Image.open(run.workdir / "samples.png") as samples:
        assert (images[1][1].width, images[1][1].height) == samples.size
    assert recorded[12, "final/test/kl_z"] == recorded[12, "test/kl_z"]


@pytest.mark.long
def test_wandb_records_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    config = replace(SMALL, epochs=1, log="wandb", workdir=str(tmp_path / "run"))
    run = fit(config, make_dataset())
    (folder,) = (run.workdir / "wandb").glob("offline-run-*")
    (record,) = folder.glob("*.wandb")
    assert b"gradient_norm" in record.read_bytes()
    (image,) = folder.rglob("samples*.png")
    assert image.read_bytes() == (run.workdir / "samples.png").read_bytes()


@pytest.mark.parametrize(("kind", "module"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_missing_library(kind, module, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(RuntimeError, match=rf"log={kind} needs it: pip install -e '.\[{kind}\]'"):
        logbook.open_logbook(kind, tmp_path, {}, 0)


@pytest.mark.long
def test_log_may_change_on_resume(tmp_path):
    config = replace(SMALL, epochs=1, workdir=str(tmp_path / "run"))
    fit(config, make_dataset())
    assert fit(replace(config, log="tensorboard"), make_dataset()).config.log == "none"


def test_curves(reference):
    with Image.open(reference[0].workdir / "curves.png") as image:
        assert image.width > image.height > 300
