import pytest

from jvae_jax import TrainConfig, data, fit
from jvae_jax.__main__ import main


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a finished run of 8x8 digits, which has one checkpoint."""
    folder = tmp_path_factory.mktemp("user")
    dataset = data.load("mnist_5k", image_size=8)
    config = TrainConfig(
        dataset="mnist_5k",
        image_size=8,
        batch_size=200,
        latents=3,
        epochs=1,
        data_dir="data",
        workdir=str(folder / "run"),
    )
    fit(config, dataset)
    return folder


@pytest.fixture
def call(capsys):
    """Runs ``jvae``; returns its exit status, stdout and stderr."""

    def call_main(*args):
        with pytest.raises(SystemExit) as stop:
            main(list(map(str, args)))
        output = capsys.readouterr()
        return stop.value.code, output.out, output.err

    return call_main
