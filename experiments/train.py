"""Trains one objective: python experiments/train.py --objective=ours"""

from jvae_jax import TrainConfig, cli, data, evaluation, fit, hosts, runs


def main(config: TrainConfig) -> None:
    hosts.connect(config.coordinator, config.num_processes, config.process_id)
    name = runs.dataset_name(config)
    dataset = data.load(name, config.data_dir, image_size=config.image_size, say=hosts.tell)
    run = fit(config, dataset)
    if hosts.is_first():
        print(evaluation.format_table(run.evaluation()))


if __name__ == "__main__":
    cli.run(main, TrainConfig, description="Train one objective, or go on training it.")
