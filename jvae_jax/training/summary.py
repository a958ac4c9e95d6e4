"""What a run says of itself before it starts."""

import math
from collections.abc import Iterator

import jax

from jvae_jax.data import Dataset
from jvae_jax.objectives import AnnealedVAE, Objective, Ours
from jvae_jax.training.run import Run
from jvae_jax.types import Devices


def announcement(
    run: Run, objective: Objective, dataset: Dataset, devices: Devices
) -> Iterator[str]:
    """What is to be trained, on what, and what may surprise."""
    processes = jax.process_count()
    together = f" of {processes} processes" if processes > 1 else ""
    yield (
        f"{run.config.objective}: {run.total_steps} steps, {run.config.epochs} epochs of "
        f"{run.steps_per_epoch}, on {len(devices)} x {devices[0].device_kind}{together}, into "
        f"{run.workdir}"
    )
    if isinstance(objective, AnnealedVAE):
        yield f"capacities rise from 0 over {objective.capacity_steps} steps"
    if isinstance(objective, Ours):
        asked = 0.0 if dataset.all_labelled else objective.unlabelled_capacity_c
    else:
        asked = getattr(objective, "capacity_c", 0.0)
    if run.config.reads_labels and not dataset.all_labelled:
        yield from _labels(run, dataset)
    classes = len(dataset.class_names)
    if asked > math.log(classes):
        yield (
            f"C_c rises only to log {classes} = {math.log(classes):.3f} nats, all that {classes} "
            f"classes can hold, not to the {asked:g} asked for"
        )
    if run.model.classes and not "".join(run.category_names).isascii():
        from jvae_jax import plotting

        if hint := plotting.font_hint(run.category_names):
            yield hint


def _labels(run: Run, dataset: Dataset) -> Iterator[str]:
    counts, config = run.data.labels_per_class, run.config
    if not any(counts):
        yield "no training image has a label, so c is unsupervised"
        return
    per_batch = config.labelled_per_batch(dataset.train_labels)
    share = "" if per_batch is None else f", {per_batch} of every {config.batch_size} in a batch"
    fewest, most = min(counts), max(counts)
    each = f"{most} of each class" if fewest == most else f"{fewest} to {most} of a class"
    yield f"{sum(counts)} of {run.data.train_examples} training images have a label, {each}{share}"
    without = [run.data.class_names[index] for index in run.unlabelled_classes]
    if without:
        yield f"no image of these has a label, so c doesn't tell them apart: {', '.join(without)}"
