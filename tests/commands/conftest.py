import pytest

from jvae_jax import TrainConfig, data, fit


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
