"""Trains one objective: python experiments/train.py --objective=ours"""

from jvae_jax import TrainConfig, cli, data, fit
from jvae_jax.evaluation import metrics
from jvae_jax.training import distributed
from jvae_jax.training.run import dataset_name


def run_command(config: TrainConfig) -> None:
    distributed.connect(config.coordinator, config.num_processes, config.process_id)
    name = dataset_name(config)
    dataset = data.load(name, config.data_dir, image_size=config.image_size, say=distributed.tell)
    run = fit(config, dataset)
    if distributed.is_first():
        print(metrics.format_table(run.evaluation()))


def main() -> None:
    cli.run(run_command, TrainConfig, description="Train one objective, or go on training it.")
