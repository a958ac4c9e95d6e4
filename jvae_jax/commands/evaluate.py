"""``jvae evaluate``: evaluates a run, or a packaged model, on its whole test split."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn

import numpy as np

from jvae_jax import cli, data
from jvae_jax.commands._model_flags import ModelFlags, load_selected_run
from jvae_jax.evaluation import EvalClassifier, classifier, format_table
from jvae_jax.evaluation.classification_accuracy_score import classification_accuracy_score
from jvae_jax.evaluation.disentanglement import morphology_metrics
from jvae_jax.evaluation.likelihood import likelihood_metrics
from jvae_jax.evaluation.metrics import Evaluation
from jvae_jax.files import atomic_write
from jvae_jax.style_controls import style_control_metrics
from jvae_jax.training.loop import evaluate_run
from jvae_jax.training.run import Run
from jvae_jax.types import Variables
from jvae_jax.validation import require


@dataclass(frozen=True, kw_only=True)
class EvaluateFlags(ModelFlags):
    """Evaluation flags."""

    checkpoint: Literal["latest", "best"] = "latest"
    """Checkpoint to evaluate; best has the lowest negative ELBO on the test split."""
    data_dir: str | None = None
    """Folder of the data. By default the one used for training."""
    eval_classifier: bool = False
    """Also evaluate generated characters with a classifier of the same data, which is trained if it
    isn't cached, and measure style transfer and disentanglement."""
    cas: bool = False
    """Also train a classifier on 60,000 generated characters and test it on the test images
    (classification accuracy score), and another with generated characters added where a class is
    rare. Takes minutes on a CPU."""
    disentanglement: bool = False
    """Also measure how z relates to slant, thickness and other measures of characters (DCI, MIG,
    SAP, R^2), and how well these are controlled by name."""
    hands: bool = False
    """Also measure how well the style of a picture is kept in a text that is written in it."""
    likelihood: bool = False
    """Also estimate -log p(x) by importance sampling, which takes seconds per image on a CPU."""
    likelihood_samples: int = 5000
    """Samples of z for each image, for --likelihood."""
    likelihood_images: int | None = None
    """Number of test images, the first ones, for --likelihood. By default all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("likelihood_samples", "likelihood_images"):
            require(self, name, lambda value: value >= 1, "1 or more")
            if not self.likelihood and getattr(self, name) != getattr(type(self), name):
                raise ValueError(f"{name} has no effect without --likelihood; add it")


def run_command(flags: EvaluateFlags) -> None:
    """Evaluates, prints the metrics and writes them to the run's folder.

    Those of a packaged or downloaded model are only printed.
    """
    run = load_selected_run(flags)
    if flags.cas and not run.network.classes:
        raise ValueError(f"{run.config.objective.name} has no classes; leave out --cas")
    if flags.hands and not run.network.classes:
        raise ValueError(f"{run.config.objective.name} has no classes; leave out --hands")
    if flags.disentanglement and run.network.image_shape[-1] != 1:
        raise ValueError("disentanglement is measured of grey images; leave out --disentanglement")
    # First, as the data may take long.
    state = None if flags.is_read_only else run.load_state(flags.checkpoint)
    variables = run.model.variables if state is None else state.average
    dataset = run.load_dataset(flags.data_dir)
    progress = "" if state is None else f"step {int(state.step)} of {run.total_steps}, "
    print(f"{progress}{len(dataset.test_labels)} test images")
    run.check_data(dataset)  # before the work, which other data would waste
    extra_metrics = _likelihood(flags, run, variables, dataset)
    eval_classifier = None
    if flags.eval_classifier or flags.cas:
        # Nothing is written to a user's image folder.
        is_folder = dataset.name == "folder"
        cache_dir = data.DATA_DIR if is_folder else flags.data_dir or run.config.data_dir
        eval_classifier = classifier.load_or_train(dataset, cache_dir)
        if flags.cas:
            extra_metrics |= _cas(run, variables, dataset, eval_classifier)
    if flags.disentanglement:
        extra_metrics |= _disentanglement(flags, run, variables, dataset, eval_classifier)
    if flags.hands:
        # fontTools takes a moment to import.
        from jvae_jax.handwriting.metrics import hand_metrics

        model = run.make_model(variables)
        extra_metrics |= hand_metrics(model, dataset, run.key("test"), eval_classifier)
    eval_classifier = eval_classifier if flags.eval_classifier else None
    if state is None:
        metrics = run.make_model(variables).evaluate(dataset, eval_classifier)
        print(format_table(metrics | extra_metrics))
        return
    suffix = "" if flags.checkpoint == "latest" else f"-{flags.checkpoint}"
    filename = f"evaluation{suffix}.json"
    evaluation = evaluate_run(
        run,
        dataset,
        variables,
        step=int(state.step),
        filename=filename,
        eval_classifier=eval_classifier,
        extra_metrics=extra_metrics,
        keep_others=True,
    )
    print(format_table(evaluation))
    print(f"written to {run.workdir / filename}")
    if "confusion" in evaluation:
        from jvae_jax import plotting

        path = run.workdir / f"confusion{suffix}.png"
        counts = np.array(evaluation["confusion"])
        with atomic_write(path) as file:
            plotting.confusion_matrix(counts, run.data.class_names).savefig(file, format="png")
        print(f"confusion matrix of generated characters: {path}")


def _likelihood(
    flags: EvaluateFlags, run: Run, variables: Variables, dataset: data.Dataset
) -> Evaluation:
    """Returns the metrics of --likelihood; empty without it."""
    if not flags.likelihood:
        return {}
    images = dataset.test_images
    count = len(images) if flags.likelihood_images is None else flags.likelihood_images
    if count > len(images):
        raise ValueError(
            f"likelihood_images must be at most the {len(images)} test images, got {count}"
        )
    print(f"-log p(x) of {count} test images, from {flags.likelihood_samples} samples for each")
    return likelihood_metrics(
        run.network,
        variables,
        images[:count],
        run.key("test"),
        samples=flags.likelihood_samples,
    )


def _disentanglement(
    flags: EvaluateFlags,
    run: Run,
    variables: Variables,
    dataset: data.Dataset,
    eval_classifier: EvalClassifier | None,
) -> Evaluation:
    """Returns the metrics of --disentanglement; fits the style controls, and saves a run's."""
    metrics = morphology_metrics(run.network, variables, dataset, run.key("test"))
    model = run.make_model(variables)
    if model.has_classes:
        if model.style_controls is None:
            model = run.fit_style_controls(model, dataset, save=not flags.is_read_only)
        is_matched = run.unlabelled_classes and eval_classifier is not None
        matched = model.evaluate(dataset) if is_matched else {}
        metrics |= style_control_metrics(
            run.network,
            variables,
            model.controls_of(),
            run.key("test"),
            eval_classifier,
            category_to_class=matched.get("category_to_class"),
        )
    return metrics


def _cas(
    run: Run, variables: Variables, dataset: data.Dataset, eval_classifier: EvalClassifier
) -> Evaluation:
    """Returns the metrics of --cas."""
    matched = run.make_model(variables).evaluate(dataset) if run.unlabelled_classes else {}
    print("training classifiers on generated characters")
    return classification_accuracy_score(
        run.network,
        variables,
        eval_classifier,
        dataset,
        run.key("test"),
        category_to_class=matched.get("category_to_class"),
    )


def main(args: Sequence[str] | None = None, prog: str | None = None) -> NoReturn:
    """Runs the command."""
    description = "Evaluate a run, or a packaged model, on its whole test split."
    cli.run(run_command, EvaluateFlags, description=description, args=args, prog=prog)
