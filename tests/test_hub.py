"""Upload and download of models, on a local stand-in of the Hugging Face Hub."""

import json
import sys

import jax
import numpy as np
import pytest
import yaml
from hub_server import hub_server

import jvae_jax
from jvae_jax import hub
from jvae_jax.commands import export as export_command
from jvae_jax.commands import generate as generate_command
from jvae_jax.export import export


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The stand-in; huggingface_hub reads its settings when it is imported."""
    with hub_server() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", server.address)
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf")))
        patch.setenv("HF_TOKEN", "hf_test")
        patch.setenv("HF_HUB_DISABLE_XET", "1")
        import huggingface_hub.constants

        assert server.address == huggingface_hub.constants.ENDPOINT
        yield server


@pytest.fixture
def uploaded(server, reference, tmp_path):
    """Address of an uploaded model, and the run."""
    run, _ = reference
    export(run.model, run, tmp_path / "exported", onnx=False)
    url = hub.push_to_hub(tmp_path / "exported", "someone/bars")
    assert url == f"{server.address}/someone/bars"
    return "hf://someone/bars", run


def test_model_comes_back(uploaded, server):
    address, run = uploaded
    model = jvae_jax.load(address)
    jax.tree.map(np.testing.assert_array_equal, model.variables, run.model.variables)
    assert model.class_names == run.model.class_names
    assert model.metrics == run.evaluation()
    downloaded = hub.download(f"{address}@main")
    names = {path.name for path in downloaded.iterdir()}
    assert names == {"config.json", "model.safetensors", "evaluation.json"}
    assert server.repositories["someone/bars"].keys() >= names | {"README.md", "samples.png"}


def test_command_line(uploaded, tmp_path, capsys, server):
    """Exported to the Hub, and generated from there."""
    _, run = uploaded
    flags = [f"--workdir={run.workdir}", f"--output={tmp_path / 'again'}", "--hub=someone/again"]
    with pytest.raises(SystemExit) as stop:
        export_command.main(flags)
    assert stop.value.code == 0
    assert f"uploaded to {server.address}/someone/again" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        generate_command.main(["--model=hf://someone/again", f"--output={tmp_path / 'x.png'}"])
    assert stop.value.code == 0
    assert (tmp_path / "x.png").stat().st_size > 0


def test_damaged_download_is_refused(uploaded, server):
    address, _ = uploaded
    content = server.repositories["someone/bars"]["model.safetensors"]
    server.repositories["someone/damaged"] = {
        **server.repositories["someone/bars"],
        "model.safetensors": content[:-1] + bytes([content[-1] ^ 1]),
    }
    with pytest.raises(ValueError, match=r"model.safetensors is damaged"):
        jvae_jax.load(address.replace("bars", "damaged"))


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ("hf://someone", ValueError, "expected hf://owner/name or hf://owner/name@revision, got"),
        ("hf://someone/.x--y", ValueError, "can't be the address of a model"),
        ("hf://someone/none", FileNotFoundError, "there is no model hf://someone/none on the Hub"),
    ],
)
@pytest.mark.usefixtures("server")
def test_unknown_address(address, error, message):
    with pytest.raises(error, match=message):
        jvae_jax.load(address)


def test_offline(uploaded, monkeypatch):
    """What is in the cache is used; else one sentence says why there is nothing."""
    import huggingface_hub.constants

    address, _ = uploaded
    first = hub.download(address)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert hub.download(address) == first
    with pytest.raises(ConnectionError, match="hf://someone/other isn't in the cache, and the Hub"):
        jvae_jax.load("hf://someone/other")


def test_missing_network(uploaded, server, tmp_path, monkeypatch):
    """What is in the cache is used."""
    address, _ = uploaded
    first = hub.download(address)
    monkeypatch.setattr(server, "is_down", True)
    assert hub.download(address) == first
    with pytest.raises(ConnectionError, match="isn't in the cache, and the Hub can't be reached"):
        hub.download("hf://someone/other")
    with pytest.raises(ConnectionError, match="exported can't be uploaded to someone/bars: "):
        hub.push_to_hub(tmp_path / "exported", "someone/bars")


def test_second_upload_replaces_the_first(uploaded, server, tmp_path):
    del uploaded
    server.repositories["someone/bars"]["decoder.onnx"] = b""
    (tmp_path / "exported" / "evaluation.json").unlink()
    hub.push_to_hub(tmp_path / "exported", "someone/bars")
    names = {path.name for path in (tmp_path / "exported").iterdir()}
    assert server.repositories["someone/bars"].keys() == names


def test_upload_is_refused(uploaded, tmp_path, monkeypatch):
    del uploaded
    with pytest.raises(FileNotFoundError, match="export a model to it first"):
        hub.push_to_hub(tmp_path, "someone/bars")
    for name in ("bars", "a/b/c"):
        with pytest.raises(ValueError, match="expected OWNER/NAME on the Hugging Face Hub, got"):
            hub.push_to_hub(tmp_path / "exported", name)
    monkeypatch.setenv("HF_TOKEN", "")
    with pytest.raises(ConnectionError, match=r"exported can't be uploaded to someone/bars: .*401"):
        hub.push_to_hub(tmp_path / "exported", "someone/bars")


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModuleNotFoundError, match="need huggingface_hub: pip install"):
        jvae_jax.load("hf://someone/bars")


def test_header_of_the_card_is_yaml(uploaded, tmp_path):
    _, run = uploaded
    card = (tmp_path / "exported" / "README.md").read_text(encoding="utf-8")
    _, header, text = card.split("---\n", 2)
    fields = yaml.safe_load(header)
    assert "datasets" not in fields
    assert fields["library_name"] == "jvae_jax"
    (result,) = fields["model-index"][0]["results"]
    assert result["dataset"] == {"type": "custom", "name": "toy"}
    values = {each["type"]: each["value"] for each in result["metrics"]}
    evaluation = json.loads((run.workdir / "evaluation.json").read_text())
    assert values["mse"] == evaluation["mse"]
    assert fields["metrics"] == list(values)
    assert "](samples.png)" in text
