"""Reproduces the paper's table and figures, and further studies.

    python experiments/reproduce.py table1

Finished runs are skipped, interrupted runs are resumed. Each command saves its results as JSON;
``report`` rebuilds the tables and figures from it. ``frontier``, ``disentanglement``,
``batch-size``, ``image-size`` and the comparisons of settings leave out the rows that ``--output``
already holds.
"""

import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax
from paper import figures, studies
from paper.configs import (
    BatchSizeConfig,
    DisentanglementConfig,
    Figure3Config,
    FineTuningConfig,
    FixedDimensionsConfig,
    FrontierConfig,
    HiraganaSettingsConfig,
    ImageSizeConfig,
    LabelsConfig,
    LikelihoodConfig,
    ModelConfig,
    PhotographsConfig,
    ProtocolVariantsConfig,
    SettingsConfig,
    StudyConfig,
    Table1Config,
)
from paper.photographs import CONDITIONS, photograph_row
from paper.report import ReportConfig, report

from jvae_jax import OBJECTIVES, PRESETS, TrainConfig, TrainedModel, cli
from jvae_jax.data import Dataset
from jvae_jax.evaluation import classifier
from jvae_jax.evaluation.classification_accuracy_score import classification_accuracy_score
from jvae_jax.evaluation.classifier import EvalClassifier
from jvae_jax.evaluation.disentanglement import morphology_metrics
from jvae_jax.evaluation.likelihood import likelihood_metrics
from jvae_jax.files import write_json
from jvae_jax.handwriting.metrics import hand_metrics
from jvae_jax.training.provenance import environment
from jvae_jax.training.run import Run

LATENTS = (2, 4, 6, 10, 16)
FIXED_OF_10 = (4, 6, 8)
TRAVERSED_LABELS = (2, 4, 7)
"""Digits whose styles vary in different ways."""


def table1(config: Table1Config) -> None:
    dataset = config.load()
    eval_classifier = config.eval_classifier(dataset)
    # Seeds are the outer loop so that every objective has a result early.
    for seed in range(config.seeds):
        for objective in OBJECTIVES:
            _, row = config.train(objective, dataset, eval_classifier, seed)
            _save_row(config, "table1", row, ("dataset", "objective", "epochs", "seed"))
    _print_table(config, "table1")


def figure2(config: StudyConfig) -> None:
    dataset = config.load()
    eval_classifier = config.eval_classifier(dataset)
    pairs = [
        config.train(objective, dataset, eval_classifier) for objective in ("ours", "joint_vae")
    ]
    _save_grid(config, "figure2", figures.figure2([run for run, _ in pairs]), pairs)


def figure3(config: Figure3Config) -> None:
    dataset = config.load()
    eval_classifier = config.eval_classifier(dataset)
    pairs = [
        config.train(objective, dataset, eval_classifier) for objective in ("ours", "joint_vae")
    ]
    _, balanced = config.train("ours", dataset, eval_classifier, balance_classes=True)
    for row in (*(row for _, row in pairs), {**balanced, "objective": studies.BALANCED}):
        _save_row(config, "hiragana", row, ("dataset", "objective", "epochs", "seed"))
    grid = figures.figure3([run for run, _ in pairs], dataset, eval_classifier)
    _save_grid(config, "figure3", grid, pairs)


def hiragana_settings(config: HiraganaSettingsConfig) -> None:
    dataset = config.load()
    eval_classifier = config.eval_classifier(dataset)
    study = "hiragana-settings"
    _compare_settings(config, study, studies.HIRAGANA_SETTINGS, dataset, eval_classifier)
    # The finished run is opened again or, if its folder is gone, trained again.
    setting = studies.HIRAGANA_SETTINGS[0]
    run_config = _setting_config(config, study, setting, seed=0)
    run, row = studies.train_and_evaluate(run_config, dataset, eval_classifier)
    row = {**row, "objective": studies.setting_name(*setting)}
    grid = figures.figure3([run], dataset, eval_classifier)
    _save_grid(config, "figure3-best-preset", grid, [(run, row)])


def traversals(config: StudyConfig) -> None:
    dataset = config.load()
    run, row = config.train("ours", dataset, config.eval_classifier(dataset))
    grid = figures.traversals(run, row, TRAVERSED_LABELS)
    _save_grid(config, "traversals", grid, [(run, row)])


def reconstructions(config: StudyConfig) -> None:
    dataset = config.load()
    eval_classifier = config.eval_classifier(dataset)
    pairs = [config.train(objective, dataset, eval_classifier) for objective in OBJECTIVES]
    grid = figures.reconstructions([run for run, _ in pairs], dataset)
    _save_grid(config, "reconstructions", grid, pairs)


def fixed_dimensions(config: FixedDimensionsConfig) -> None:
    dataset = config.load()
    eval_classifier = config.eval_classifier(dataset)
    for latents, fixed in [(size, 0) for size in LATENTS] + [(10, fixed) for fixed in FIXED_OF_10]:
        sizes = {"latents": latents, "fixed_latents": fixed}
        run_config = config.train_config(
            "ours", f"{latents}-latents-{fixed}-fixed-{config.epochs}-epochs", **sizes
        )
        _, row = studies.train_and_evaluate(run_config, dataset, eval_classifier, **sizes)
        _save_row(config, "fixed-dimensions", row, ("dataset", "epochs", *sizes))
    _print_table(config, "fixed-dimensions")


def protocol_variants(config: ProtocolVariantsConfig) -> None:
    identity = ("dataset", "objective", "epochs", "protocol")
    for objective in ("joint_vae", "ours"):
        for index, (variant, values) in enumerate(studies.PROTOCOL_VARIANTS.items()):
            dataset = config.load(values.get("image_size", 32))
            run_config = config.train_config(
                objective, f"{objective}-{index}-{config.epochs}-epochs", **values
            )
            run, row = studies.train_and_evaluate(run_config, dataset, None, protocol=variant)
            state = run.load_state()
            weights = {variant: state.average}
            if not values:
                weights["last weights"] = state.variables
            for name, variables in weights.items():
                mse = studies.mse_by_protocol(run, variables, dataset)
                row = {**row, "protocol": name, "mse_by_protocol": mse}
                _save_row(config, "protocol-variants", row, identity)
    _print_table(config, "protocol-variants")


def ablations(config: SettingsConfig) -> None:
    dataset = config.load()
    eval_classifier = config.eval_classifier(dataset)
    _compare_settings(config, "ablations", studies.ABLATIONS, dataset, eval_classifier)


def model_selection(config: SettingsConfig) -> None:
    dataset = studies.validation_split(config.load())
    _compare_settings(config, "model-selection", studies.MODEL_SELECTION, dataset, None)


def preset_selection(config: SettingsConfig) -> None:
    dataset = studies.validation_split(config.load())
    eval_classifier = config.eval_classifier(dataset)
    _compare_settings(
        config, "preset-selection", studies.PRESET_SELECTION, dataset, eval_classifier
    )


def cluster_selection(config: SettingsConfig) -> None:
    dataset = studies.validation_split(config.load())
    _compare_settings(
        config,
        "cluster-selection",
        studies.CLUSTER_SELECTION,
        dataset,
        None,
        studies.category_usage,
    )


def clusters(config: SettingsConfig) -> None:
    dataset = config.load()
    eval_classifier = config.eval_classifier(dataset)
    _compare_settings(
        config, "clusters", studies.CLUSTERS, dataset, eval_classifier, studies.category_usage
    )


def frontier(config: FrontierConfig) -> None:
    dataset = config.load()
    eval_classifier = config.eval_classifier(dataset)
    identity = ("dataset", "objective", "epochs", "seed", "capacity_z")
    settings = itertools.product(range(config.seeds), config.capacities(), studies.FRONTIER)
    for seed, capacity, method in settings:
        values = (dataset.name, method, config.epochs, seed, capacity)
        if _is_kept(config, "frontier", dict(zip(identity, values, strict=True))):
            continue
        objective = studies.frontier_objective(method, capacity)
        rate = "elbo" if capacity is None else f"{capacity:g}-nats"
        folder = f"{method.replace(' --', '-')}-{rate}-{config.epochs}-epochs-{seed}"
        run_config = config.train_config(objective.name, folder, seed=seed, **asdict(objective))
        run, row = studies.train_and_evaluate(
            run_config, dataset, eval_classifier, capacity_z=capacity
        )
        row |= {
            "objective": method,
            "settings": asdict(run.config.objective),
            "train_kl_z": studies.train_kl_z(run, dataset),
            **likelihood_metrics(
                run.network,
                run.model.variables,
                dataset.test_images[: studies.FRONTIER_NLL_IMAGES],
                run.key("test"),
                samples=studies.FRONTIER_NLL_SAMPLES,
            ),
        }
        _save_row(config, "frontier", row, identity)
    _print_table(config, "frontier")


def disentanglement(config: DisentanglementConfig) -> None:
    dataset = config.load()
    identity = ("dataset", "objective", "epochs", "seed", "capacity_z")
    for seed, (objective, capacity) in itertools.product(range(config.seeds), config.settings()):
        values = (dataset.name, objective, config.epochs, seed, capacity)
        if _is_kept(config, "disentanglement", dict(zip(identity, values, strict=True))):
            continue
        given = {} if capacity is None else {"capacity_z": capacity}
        name = studies.setting_name(objective, given).replace(" --", "-")
        pairs = []
        # The row of the last seed holds the ranking of all seeds, whose finished runs are reopened.
        for each in range(0 if seed == config.seeds - 1 else seed, seed + 1):
            folder = f"{name}-{config.epochs}-epochs-{each}"
            run_config = config.train_config(objective, folder, seed=each, **given)
            pairs.append(studies.train_and_evaluate(run_config, dataset, None, capacity_z=capacity))
        run, row = pairs[-1]
        row |= morphology_metrics(run.network, run.model.variables, dataset, run.key("test"))
        if len(pairs) > 1:
            row["udr"] = studies.disentanglement_ranking(pairs, dataset)
        _save_row(config, "disentanglement", row, identity)
    _print_table(config, "disentanglement")


def likelihood(config: LikelihoodConfig) -> None:
    dataset = config.load(28, binarize=True)
    for latents in studies.LIKELIHOOD_LATENTS:
        values = {"latents": latents, "image_size": 28, "binarize": True}
        run_config = config.train_config(
            "vae", f"vae-{latents}-latents-{config.epochs}-epochs", **values
        )
        run, row = studies.train_and_evaluate(run_config, dataset, None, latents=latents)
        row |= likelihood_metrics(
            run.network,
            run.model.variables,
            dataset.test_images[: config.images],
            run.key("test"),
            samples=config.samples,
        )
        _save_row(config, "likelihood", row, ("dataset", "objective", "epochs", "latents"))
    _print_table(config, "likelihood")


def labels(config: LabelsConfig) -> None:
    dataset = config.load()
    eval_classifier = config.eval_classifier(dataset)
    identity = ("dataset", "objective", "epochs", "num_labels", "seed")
    for (seed, count), method in itertools.product(config.subsets(), config.methods()):
        values = (dataset.name, method, config.epochs, count, seed)
        if _is_kept(config, "labels", dict(zip(identity, values, strict=True))):
            continue
        if method == studies.SUPERVISED_BASELINE:
            row = studies.supervised_baseline_row(dataset, count, seed, config.epochs)
        else:
            run_config = _method_config(config, method, count, seed)
            adds_labels = run_config.pseudo_labels_from or run_config.label_propagation
            if adds_labels and count == "all":
                continue
            if run_config.pseudo_labels_from:
                first_config = _method_config(config, studies.PSEUDO_LABELLING, count, seed)
                studies.train_and_evaluate(first_config, dataset, None)
            _, row = studies.train_and_evaluate(
                run_config, dataset, eval_classifier, num_labels=count
            )
        _save_row(config, "labels", {**row, "objective": method}, identity)
    _print_table(config, "labels")


def _method_config(
    config: LabelsConfig, method: str, num_labels: int | str, seed: int
) -> TrainConfig:
    """Configuration of a run of the few-label study."""
    objective, settings = studies.LABEL_METHODS[method]
    name = studies.setting_name(objective, settings).replace(" --", "-")
    folder = f"{name}-{num_labels}-labels-{config.epochs}-epochs-{seed}"
    if "pseudo_labels_from" in settings:
        first_config = _method_config(config, studies.PSEUDO_LABELLING, num_labels, seed)
        settings = {**settings, "pseudo_labels_from": first_config.workdir}
    return config.train_config(objective, folder, seed=seed, num_labels=num_labels, **settings)


def fine_tuning(config: FineTuningConfig) -> None:
    identity = ("dataset", "epochs", "tuned", "seed", "new_classes", "images", "source_epochs")
    for seed in range(config.seeds):
        others, new = studies.divide_classes(config.load(), config.new_classes, seed)
        eval_classifier = config.eval_classifier(new)
        objective = asdict(PRESETS["best"])
        source = config.train_config(
            "ours",
            f"{config.new_classes}-new-{config.epochs}-epochs-{seed}",
            seed=seed,
            **objective,
        )
        studies.train_and_evaluate(source, others, None)
        few = studies.keep_images(new, config.images, seed)
        for epochs, is_tuned in itertools.product(studies.FINE_TUNING_EPOCHS, (False, True)):
            start = f"{config.epochs}-epochs" if is_tuned else "random"
            folder = f"{config.new_classes}-new-{config.images}-images-{start}-{epochs}-{seed}"
            init_from = source.workdir if is_tuned else None
            run_config = replace(
                config.train_config("ours", folder, seed=seed, init_from=init_from, **objective),
                epochs=epochs,
            )
            _, row = studies.train_and_evaluate(run_config, few, eval_classifier, tuned=is_tuned)
            row |= {
                "new_classes": config.new_classes,
                "images": config.images,
                "source_epochs": config.epochs,
            }
            _save_row(config, "fine-tuning", row, identity)
    _print_table(config, "fine-tuning")


def batch_size(config: BatchSizeConfig) -> None:
    dataset = config.load()
    default = TrainConfig()
    for size, (rule, exponent) in itertools.product(
        studies.BATCH_SIZES, studies.LEARNING_RATE_RULES.items()
    ):
        if size == default.batch_size and exponent:  # the rules agree
            continue
        setting = {"dataset": dataset.name, "batch_size": size, "rule": rule}
        setting["epochs"] = config.epochs
        if _is_kept(config, "batch-size", setting):
            continue
        rate = default.learning_rate * (size / default.batch_size) ** exponent
        run_config = config.train_config(
            "ours",
            f"{dataset.name}-{size}-{rule.replace(' ', '-')}-{config.epochs}-epochs",
            batch_size=size,
            learning_rate=rate,
        )
        _, row = studies.train_and_evaluate(
            run_config, dataset, None, batch_size=size, rule=rule, learning_rate=rate
        )
        _save_row(config, "batch-size", row, ("dataset", "batch_size", "rule", "epochs", "seed"))
    _print_table(config, "batch-size")


def image_size_selection(config: ImageSizeConfig) -> None:
    _compare_sizes(
        config, "image-size-selection", studies.IMAGE_SIZE_SELECTION, studies.validation_split
    )


def image_size(config: ImageSizeConfig) -> None:
    _compare_sizes(config, "image-size", studies.IMAGE_SIZES, lambda dataset: dataset)


def _compare_sizes(
    config: ImageSizeConfig,
    study: str,
    settings: Sequence[tuple[int, float, int]],
    split: Callable[[Dataset], Dataset],
) -> None:
    """Compares sizes, weights of c's terms and depths, by one classifier."""
    eval_classifier = config.eval_classifier(split(config.load(studies.EVAL_CLASSIFIER_IMAGE_SIZE)))
    identity = ("dataset", "image_size", "weights", "depth", "epochs", "seed")
    best = asdict(PRESETS["best"])
    for size, weights, depth in settings:
        dataset = split(config.load(size))
        setting = {"image_size": size, "weights": weights, "depth": depth}
        if _is_kept(config, study, {**setting, "dataset": dataset.name, "epochs": config.epochs}):
            continue
        weighted = {name: weights * best[name] for name in ("gamma", "information_weight")}
        run_config = config.train_config(
            "ours",
            f"{study}-{dataset.name}-{size}-pixels-{weights:g}-{depth}-{config.epochs}-epochs",
            image_size=size,
            depth=depth,
            **{**best, **weighted},
        )
        averaging = studies.AveragingClassifier.of(eval_classifier, dataset)
        run, row = studies.train_and_evaluate(run_config, dataset, averaging, **setting)
        row |= studies.processor_time(run, dataset)
        _save_row(config, study, row, identity)
    _print_table(config, study)


def photographs(config: PhotographsConfig) -> None:
    model, dataset = config.load()
    for condition in CONDITIONS:
        row = photograph_row(model, dataset, condition, config.images, config.seed)
        _save_row(config, "photographs", row, ("dataset", "model", "seed", "condition"))
    _print_table(config, "photographs")


def hands(config: ModelConfig) -> None:
    _evaluate_model(config, "hands", hand_metrics)


def cas(config: ModelConfig) -> None:
    def score(
        model: TrainedModel, dataset: Dataset, key: jax.Array, eval_classifier: EvalClassifier
    ) -> dict[str, Any]:
        return classification_accuracy_score(
            model.network, model.variables, eval_classifier, dataset, key
        )

    _evaluate_model(config, "cas", score)


def _evaluate_model(
    config: ModelConfig,
    study: str,
    measure: Callable[[TrainedModel, Dataset, jax.Array, EvalClassifier], dict[str, Any]],
) -> None:
    model, dataset = config.load()
    eval_classifier = classifier.load_or_train(dataset, config.data_dir)
    current = environment()
    row = {
        "model": model.name,
        "dataset": dataset.name,
        "seed": config.seed,
        "command": studies.command(),
        "trained_with": current["commit"],
        **measure(model, dataset, jax.random.key(config.seed), eval_classifier),
        "environment": current,
    }
    _save_row(config, study, row, ("dataset", "model", "seed"))
    _print_table(config, study)


def _compare_settings(
    config: Table1Config,
    study: str,
    settings: Sequence[studies.Setting],
    dataset: Dataset,
    eval_classifier: EvalClassifier | None,
    measure: Callable[[Run, Dataset], studies.Row] = lambda *_: {},
) -> None:
    for seed in range(config.seeds):
        for objective, values in settings:
            name = studies.setting_name(objective, values)
            setting = {"dataset": dataset.name, "objective": name, "epochs": config.epochs}
            if _is_kept(config, study, {**setting, "seed": seed}):
                continue
            run_config = _setting_config(config, study, (objective, values), seed)
            run, row = studies.train_and_evaluate(run_config, dataset, eval_classifier)
            row = {**row, **measure(run, dataset), "objective": name}
            _save_row(config, study, row, ("dataset", "objective", "epochs", "seed"))
    _print_table(config, study)


def _setting_config(
    config: StudyConfig, study: str, setting: studies.Setting, seed: int
) -> TrainConfig:
    """Configuration of a run of ``_compare_settings``."""
    objective, values = setting
    name = studies.setting_name(objective, values).replace(" --", "-")
    folder = f"{study}-{name}-{config.epochs}-epochs-{seed}"
    return config.train_config(objective, folder, seed=seed, **values)


def _is_kept(config: ReportConfig, name: str, identity: studies.Row) -> bool:
    """Whether the results hold a row with these entries."""
    rows = studies.load_rows(Path(config.output) / f"{name}.json")
    return any(identity.items() <= row.items() for row in rows)


def _save_row(config: ReportConfig, name: str, row: studies.Row, identity: tuple[str, ...]) -> None:
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    studies.save_row(output / f"{name}.json", row, identity)
    report(config)


def _save_grid(
    config: ReportConfig, name: str, grid: figures.Grid, pairs: list[tuple[Run, studies.Row]]
) -> None:
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    common = ("objective", "seed", "epochs", "dataset", "trained_with")
    contents = {
        "command": studies.command(),
        "environment": environment(),
        "runs": [{name: row[name] for name in common} for _, row in pairs],
        "panels": figures.pack(grid),
    }
    write_json(output / f"{name}.json", contents)
    report(config)
    print(f"{output / name}.png and .pdf")


def _print_table(config: ReportConfig, name: str) -> None:
    print((Path(config.output) / f"{name}.md").read_text(encoding="utf-8"))


COMMANDS: dict[str, tuple[Callable[[Any], None], type, str]] = {
    "table1": (table1, Table1Config, "Table 1: six objectives, several seeds."),
    "figure2": (figure2, StudyConfig, "Figure 2: samples of ours and Joint-VAE; rows share c."),
    "figure3": (figure3, Figure3Config, "Figure 3: samples of similar hiragana."),
    "hiragana-settings": (
        hiragana_settings,
        HiraganaSettingsConfig,
        "Ours on hiragana, with the best preset and consistency, and with ten labels a class.",
    ),
    "traversals": (traversals, StudyConfig, "Traversals of each dimension of z."),
    "reconstructions": (
        reconstructions,
        StudyConfig,
        "Reconstructions of test images by each objective.",
    ),
    "fixed-dimensions": (
        fixed_dimensions,
        FixedDimensionsConfig,
        "Ours with fewer free dimensions of z: a smaller z, or some dimensions fixed at 0.",
    ),
    "model-selection": (
        model_selection,
        SettingsConfig,
        "Settings for few labels, compared on a sixth of the training images.",
    ),
    "preset-selection": (
        preset_selection,
        SettingsConfig,
        "Settings for good samples at 16 nats, compared on a sixth of the training images.",
    ),
    "ablations": (
        ablations,
        SettingsConfig,
        "Ablations of Joint-VAE and ours, without labels and with all of them.",
    ),
    "cluster-selection": (
        cluster_selection,
        SettingsConfig,
        "Settings for classes without labels, compared on a sixth of the training images.",
    ),
    "clusters": (
        clusters,
        SettingsConfig,
        "Joint-VAE without labels, with the selected settings.",
    ),
    "frontier": (
        frontier,
        FrontierConfig,
        "Ours, its best preset and the CVAE at several capacities of z, and at none.",
    ),
    "disentanglement": (
        disentanglement,
        DisentanglementConfig,
        "Dimensions of z against the morphology of characters: six objectives, several capacities.",
    ),
    "likelihood": (
        likelihood,
        LikelihoodConfig,
        "-log p(x) of a VAE on binary images of 28 x 28 pixels, beside published values.",
    ),
    "labels": (labels, LabelsConfig, "Ours and the CVAE with few labels."),
    "fine-tuning": (
        fine_tuning,
        FineTuningConfig,
        "New classes with few images, from random weights and from those of other classes.",
    ),
    "batch-size": (
        batch_size,
        BatchSizeConfig,
        "Larger batches, with three rules for their learning rate.",
    ),
    "image-size-selection": (
        image_size_selection,
        ImageSizeConfig,
        "Weights and depths on larger images, compared on a sixth of the training images.",
    ),
    "image-size": (
        image_size,
        ImageSizeConfig,
        "The best preset on larger images.",
    ),
    "photographs": (
        photographs,
        PhotographsConfig,
        "Accuracy of a model on synthetic photographs of test images.",
    ),
    "cas": (
        cas,
        ModelConfig,
        "Classification accuracy score: a classifier trained on generated characters alone.",
    ),
    "hands": (
        hands,
        ModelConfig,
        "How well a model keeps the style of a picture in a text and a font.",
    ),
    "protocol-variants": (
        protocol_variants,
        ProtocolVariantsConfig,
        "Variants of the training and evaluation protocol that the paper leaves open.",
    ),
    "report": (report, ReportConfig, "Rebuilds tables and figures from the JSON in --output."),
}


def reproduce(name: str = "--help", *args: str) -> None:
    if name in COMMANDS:
        main, config_class, description = COMMANDS[name]
        cli.run(main, config_class, description=description, args=args)
    elif name in ("-h", "--help"):
        print(f"usage: reproduce.py {{{','.join(COMMANDS)}}} [--help]")
    else:
        cli.unknown_command("reproduce.py", name, COMMANDS)


if __name__ == "__main__":
    cli.exit_after(lambda: reproduce(*sys.argv[1:]), debug="--debug" in sys.argv)
