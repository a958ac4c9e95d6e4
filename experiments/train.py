"""Trains one objective: python experiments/train.py --objective=ours"""

from jvae_jax import TrainConfig, cli, data, evaluation, fit, runs


def main(config: TrainConfig) -> None:
    name = runs.dataset_name(config)
    dataset = data.load(name, config.data_dir, image_size=config.image_size, say=print)
    run = fit(config, dataset)
    print(evaluation.format_table(run.evaluation()))


if __name__ == "__main__":
    cli.run(main, TrainConfig, description="Train one objective, or go on training it.")
