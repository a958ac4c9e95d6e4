"""Opens a page to explore a trained model: python experiments/explore.py --workdir=runs/digits"""

from dataclasses import dataclass

from jvae_jax import cli
from jvae_jax.pretrained import load
from jvae_jax.validation import option


@dataclass(frozen=True, kw_only=True)
class ExploreConfig:
    workdir: str = option("the run to explore, or the folder of an exported model")
    host: str = option("address to listen at; 0.0.0.0 lets other computers in", default="127.0.0.1")
    port: int | None = option("default: the first free one from 7860", default=None)


def run_command(config: ExploreConfig) -> None:
    trained = load(config.workdir)
    try:
        from jvae_jax.app.page import explorer, show
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"{error}; the page takes Gradio: pip install -e '.[explore]'"
        ) from error
    show(explorer(trained), host=config.host, port=config.port, wait=True)


def main() -> None:
    cli.run(run_command, ExploreConfig, description="Explore a trained model in the browser.")
