"""Markdown tables from rows of results."""

import math
import statistics
from collections.abc import Mapping, Sequence

from jvae_jax import OBJECTIVES
from jvae_jax.evaluation.morphology import Morphology
from paper.studies import (
    BALANCED,
    EVAL_CLASSIFIER_IMAGE_SIZE,
    LABEL_METHODS,
    SUPERVISED_BASELINE,
    Row,
)

PAPER = {
    "vae": {"mse": 0.0068, "kl_z": 18.930},
    "annealed_vae": {"mse": 0.0219, "kl_z": 4.903},
    "joint_vae": {"mse": 0.0251, "kl_z": 4.958},
    "ours": {"mse": 0.0243, "kl_z": 4.986},
}
"""The paper's table 1. Its beta-VAE has a capacity term: its KL is close to 5."""

PUBLISHED = {
    "M2 (Kingma et al.)": {100: 0.8803, 1000: 0.9640},
    "M1+M2 (Kingma et al.)": {100: 0.9667, 1000: 0.9760},
    "M2 (pyro)": {100: 0.9319, 1000: 0.9487},
}
"""Accuracy on MNIST's test set: Kingma et al. (2014), table 1; Pyro's ss-vae example."""

COLUMNS = {
    "mse": ("MSE", 4),
    "mse_sampled": ("MSE (sampled)", 4),
    "kl_z": ("KL(z)", 3),
    "accuracy": ("accuracy", 4),
    "conditional_accuracy": ("conditional accuracy", 4),
    "linear_probe_accuracy": ("linear probe on z", 4),
    "mutual_information": ("I(c; y)", 3),
    "frechet_distance": ("Fréchet distance", 2),
    "intra_class_frechet_distance": ("intra-class Fréchet distance", 2),
}
"""Headings and decimals of metrics."""
CATEGORY_COLUMNS = {
    "mutual_information_c": ("I(x; c)", 3),
    "marginal_kl_c": ("KL(q(c) to p(c))", 3),
}
"""The same of the parts of KL(c)."""
PUBLISHED_NLL = {
    "published: convolutional VAE": "81.02 ± 0.05",
    "published: fully connected VAE": "86.83 ± 0.26",
    "published: fully connected VAE, 50 latents (Burda et al. 2016, table 1)": "86.76",
}
"""Published -log p(x) on binary MNIST, by importance sampling with 5,000 samples. The first two are
means and standard deviations of six runs, from a table of examples on GitHub, without a paper."""
SAMPLE_METRICS = (
    "kl_z",
    "mse",
    "accuracy",
    "conditional_accuracy",
    "frechet_distance",
    "intra_class_frechet_distance",
    "linear_probe_accuracy",
)
"""Metrics that describe both images and samples."""
CLUSTER_METRICS = (
    "accuracy",
    "conditional_accuracy",
    "mutual_information_c",
    "marginal_kl_c",
    "mse",
    "kl_z",
)
"""Metrics of the study of c without labels."""
_SUMMARY = (
    "mse",
    "kl_z",
    "accuracy",
    "conditional_accuracy",
    "linear_probe_accuracy",
    "frechet_distance",
)
"""Metrics of the short tables."""

_DISENTANGLEMENT = {
    "dci_disentanglement": ("disentanglement", 3),
    "dci_completeness": ("completeness", 3),
    "dci_informativeness": ("informativeness", 3),
    "mig": ("MIG", 3),
    "sap": ("SAP", 3),
}
"""Headings and decimals of disentanglement scores; the first three are DCI."""
_PHOTOGRAPHS = {
    "accuracy": ("accuracy", 4),
    "accuracy_of_files": ("accuracy on the files", 4),
    "refused": ("refused", 4),
    "mostly_ink": ("mostly ink", 4),
    "blank_refused": ("blank sheets refused", 4),
}
"""Headings and decimals of the test on photographs."""
_HANDS = {
    "nearest_hand_accuracy": ("nearest hand", 3),
    "nearest_hand_chance": ("chance", 3),
    "hand_r2": ("R² of z", 3),
    "hand_distance_one_picture": ("distance, one picture", 2),
    "hand_distance_several_pictures": ("distance, four pictures", 2),
    "font_accuracy": ("glyphs read", 4),
}
"""Headings and decimals of the study of hands."""
_CAS = {
    "cas": ("generated", 4),
    "cas_real": ("real", 4),
    "cas_augmented": ("real and generated", 4),
    "rare_class_accuracy_real": ("rare classes, real", 4),
    "rare_class_accuracy_augmented": ("rare classes, real and generated", 4),
}
"""Headings and decimals of classification accuracy scores."""

_IMAGE_SIZES = {
    **{name: COLUMNS[name] for name in SAMPLE_METRICS},
    "eval_classifier_accuracy": ("classifier on real images", 4),
    "drawing_ms": ("drawing (ms)", 2),
    "training_ms": ("training (ms)", 2),
}
"""Headings and decimals of the study of larger images."""


def table1(rows: Sequence[Row]) -> str:
    """One table per dataset and number of epochs, one line per objective."""
    tables = sorted({(row["dataset"], -row["epochs"]) for row in rows})
    return "\n".join(
        _objectives([row for row in rows if (row["dataset"], -row["epochs"]) == table])
        for table in tables
    )


def table1_summary(rows: Sequence[Row]) -> str:
    """The short form of table 1: fewer metrics of the longest training on MNIST."""
    rows = [row for row in rows if row["dataset"] == "mnist"]
    epochs = max(row["epochs"] for row in rows)
    longest = [row for row in rows if row["epochs"] == epochs]
    columns = {name: COLUMNS[name] for name in _SUMMARY}
    return _by_objective(longest, columns) + f"\n{_caption(longest)}\n"


def _by_objective(rows: Sequence[Row], columns: Mapping[str, tuple[str, int]]) -> str:
    """Mean ± standard deviation over seeds, and the paper's value where there is one."""
    published = ("mse", "kl_z") if rows[0]["dataset"] == "mnist" else ()
    headers = ["objective", "seeds"]
    for name, (title, _) in columns.items():
        headers += [title, "paper"] if name in published else [title]
    lines = []
    for objective in (*OBJECTIVES, BALANCED):
        seeds = [row for row in rows if row["objective"] == objective]
        if not seeds:
            continue
        line = [f"`{objective}`", str(len(seeds))]
        for name, cell in zip(columns, _cells(seeds, columns), strict=True):
            line.append(cell)
            if name in published:
                paper = PAPER.get(objective, {}).get(name)
                line.append("" if paper is None else f"{paper:.{COLUMNS[name][1]}f}")
        lines.append(line)
    return _markdown(headers, lines)


def _objectives(rows: Sequence[Row]) -> str:
    """All metrics of each objective, with reference values below."""
    first = rows[0]
    return (
        _by_objective(rows, COLUMNS)
        + f"\n{first['dataset']}, {first['epochs']} epochs, {first['examples']:,} test images. "
        f"{_reference_values(first)} {_provenance(rows)}\n"
    )


def _reference_values(row: Row) -> str:
    """Values of real images, for comparison."""
    intra_class = ""
    if "intra_class_frechet_distance_real" in row:
        intra_class = f", intra-class {row['intra_class_frechet_distance_real']:.2f}"
    return (
        f"Accuracy of the evaluation classifier {row['eval_classifier_accuracy']:.4f}; Fréchet "
        f"distance between training and test images {row['frechet_distance_real']:.2f}"
        f"{intra_class}; majority-class accuracy {row['majority_class_accuracy']:.4f}."
    )


def fixed_dimensions(rows: Sequence[Row]) -> str:
    """One line per number of free dimensions of z and size of z."""
    columns = {name: COLUMNS[name] for name in _SUMMARY}
    headers = ["free dimensions", "size of z", *(title for title, _ in columns.values())]
    ordered = sorted(rows, key=lambda row: (row["latents"] - row["fixed_latents"], row["latents"]))
    lines = [
        [str(row["latents"] - row["fixed_latents"]), str(row["latents"]), *_cells([row], columns)]
        for row in ordered
    ]
    return _markdown(headers, lines) + f"\n{_caption(rows)}\n"


def frontier(rows: Sequence[Row]) -> str:
    """One line per capacity and setting: mean ± standard deviation over seeds."""
    columns = {
        "train_kl_z": ("KL(z), training images", 3),
        **{name: COLUMNS[name] for name in SAMPLE_METRICS},
        "style_transfer_accuracy": ("style transfer accuracy", 4),
        "precision": ("precision", 4),
        "recall": ("recall", 4),
        "nll": ("-log p(x), grey", 2),
    }
    first = rows[0]
    return (
        _by_capacity(rows, columns)
        + f"\n{_caption(rows)} {_reference_values(first)} -log p(x) is of the first "
        f"{first['nll_images']:,} test images, with {first['nll_samples']} samples of z each.\n"
    )


def disentanglement(rows: Sequence[Row]) -> str:
    """Scores of z against morphology, overall and within classes, and information of c.

    One line per capacity and objective: mean ± standard deviation over seeds.
    """
    # The row of the last seed holds the ranking of all seeds.
    udr = {
        (row["objective"], row["capacity_z"], seed): {"udr": score}
        for row in sorted(rows, key=lambda row: row["seed"])
        for seed, score in enumerate(row.get("udr", ()))
    }
    by_factor = ("factor_r2", "factor_r2_within_classes", "factor_c_information")
    flat = [
        {name: value for name, value in row.items() if name != "udr"}
        | {f"{name} {of}": value for name in by_factor for of, value in row.get(name, {}).items()}
        | udr.get((row["objective"], row["capacity_z"], row["seed"]), {})
        for row in rows
    ]

    def scores(suffix: str) -> dict[str, tuple[str, int]]:
        return {
            **{f"{name}{suffix}": column for name, column in _DISENTANGLEMENT.items()},
            **{f"factor_r2{suffix} {of}": (f"R^2 of {of}", 3) for of in Morphology._fields},
        }

    information = {f"factor_c_information {of}": (of, 3) for of in Morphology._fields}
    return (
        "Overall:\n\n"
        + _by_capacity(flat, {"kl_z": COLUMNS["kl_z"], "udr": ("UDR", 3), **scores("")})
        + "\nWithin classes:\n\n"
        + _by_capacity(flat, scores("_within_classes"))
        + "\nMutual information of c and each factor, nats:\n\n"
        + _by_capacity([row for row in flat if "factor_c_information" in row], information)
        + f"\n{_caption(rows)}\n"
    )


def likelihood(rows: Sequence[Row]) -> str:
    """-log p(x) with its standard error per dimension of z, and published values."""
    lines = [
        [
            f"`{row['objective']}`, {row['latents']} latents",
            f"{row['nll']:.2f} ± {row['nll_standard_error']:.2f}",
            f"{row['reconstruction_nll_sampled'] + row['kl_z']:.2f}",
        ]
        for row in rows
    ]
    lines += [[name, value, ""] for name, value in PUBLISHED_NLL.items()]
    first = rows[0]
    return (
        _markdown(["model", "-log p(x)", "-ELBO"], lines)
        + f"\nNats per image, of {first['nll_images']:,} test images of {first['dataset']}, 28 x "
        f"28 pixels, statically binarized; {first['nll_samples']:,} samples of z each. -ELBO is of "
        f"all {first['examples']:,}. ± is the standard error due to the choice of images; of "
        "published values, the standard deviation of six runs of a table of examples on GitHub, "
        f"without a paper. {first['epochs']} epochs, seed {first['seed']}. {_provenance(rows)}\n"
    )


def settings(
    rows: Sequence[Row],
    images: str = "test images",
    metrics: Sequence[str] = ("accuracy", "conditional_accuracy", "mse", "kl_z"),
) -> str:
    """One line per setting: mean ± standard deviation over seeds.

    Args:
        rows: rows, one per setting and seed.
        images: description of the evaluated images.
        metrics: metrics of the table, if the rows have them.
    """
    known = COLUMNS | CATEGORY_COLUMNS
    columns = {name: known[name] for name in metrics if name in rows[0]}
    lines = []
    for objective in dict.fromkeys(row["objective"] for row in rows):
        seeds = [row for row in rows if row["objective"] == objective]
        lines.append([f"`{objective}`", str(len(seeds)), *_cells(seeds, columns)])
    headers = ["objective", "seeds", *(title for title, _ in columns.values())]
    return _markdown(headers, lines) + f"\n{_caption(rows, images)}\n"


def labels(rows: Sequence[Row]) -> str:
    """Accuracy, conditional accuracy and MSE per number of labels; published accuracies."""
    counts = sorted({row["num_labels"] for row in rows}, key=label_count)
    lines = dict.fromkeys(
        (method, row["epochs"])
        for method in (*LABEL_METHODS, SUPERVISED_BASELINE)
        for row in sorted(rows, key=lambda row: row["epochs"])
        if row["objective"] == method
    )

    def cell(method: str, epochs: int, count: int | str, metric: str) -> str:
        identity = {"objective": method, "epochs": epochs, "num_labels": count}
        draws = [row for row in rows if identity.items() <= row.items()]
        return _cells(draws, {metric: COLUMNS[metric]})[0]

    def table(metric: str) -> list[list[str]]:
        return [
            [
                f"`{method}`" if method in LABEL_METHODS else method,
                str(epochs),
                *(cell(method, epochs, count, metric) for count in counts),
            ]
            for method, epochs in lines
            if method != SUPERVISED_BASELINE or metric == "accuracy"
        ]

    published = [
        [name, "", *(f"{of[count]:.4f}" if count in of else "" for count in counts)]
        for name, of in PUBLISHED.items()
    ]
    headers = ["method", "epochs", *map(str, counts)]
    return (
        "Accuracy per number of labels:\n\n"
        + _markdown(headers, table("accuracy") + published)
        + "\nConditional accuracy:\n\n"
        + _markdown(headers, table("conditional_accuracy"))
        + "\nMSE per pixel:\n\n"
        + _markdown(headers, table("mse"))
        + f"\n{_caption(rows)}\n"
    )


def fine_tuning(rows: Sequence[Row]) -> str:
    """Metrics on new classes, per number of epochs, from random and from trained weights."""
    starts = {False: "random", True: "other classes"}
    columns = {name: COLUMNS[name] for name in SAMPLE_METRICS}
    lines = [
        [str(epochs), starts[is_tuned], str(len(group)), *_cells(group, columns)]
        for epochs in dict.fromkeys(row["epochs"] for row in rows)
        for is_tuned in starts
        if (group := [row for row in rows if (row["epochs"], row["tuned"]) == (epochs, is_tuned)])
    ]
    headings = [heading for heading, _ in columns.values()]
    first = rows[0]
    return (
        _markdown(["epochs", "initial weights", "seeds", *headings], lines, words=2)
        + f"\n{first['dataset']}, {first['new_classes']} classes with {first['images']} training "
        f"images each; weights of {first['source_epochs']} epochs on the other classes. "
        f"{_reference_values(first)} {_provenance(rows)}\n"
    )


def batch_sizes(rows: Sequence[Row]) -> str:
    """One line per batch size and rule for the learning rate."""
    columns = {name: COLUMNS[name] for name in ("mse", "kl_z", "accuracy")}
    lines = [
        [
            str(row["batch_size"]),
            row["rule"],
            f"{row['learning_rate']:.3g}",
            str(row["step"]),
            *_cells([row], columns),
        ]
        for row in rows
    ]
    headings = ["batch size", "rule", "learning rate", "steps"]
    headings += [heading for heading, _ in columns.values()]
    return _markdown(headings, lines, words=2) + f"\n`ours`. {_caption(rows)}\n"


def image_sizes(rows: Sequence[Row], images: str = "test images") -> str:
    """One line per dataset, image size, factor of the weights and depth."""
    headings = [heading for heading, _ in _IMAGE_SIZES.values()]
    size = EVAL_CLASSIFIER_IMAGE_SIZE
    lines = [
        [
            row["dataset"],
            f"{row['image_size']} x {row['image_size']}",
            f"{row['weights']:g}",
            str(row["depth"]),
            str(row["epochs"]),
            *_cells([row], _IMAGE_SIZES),
        ]
        for row in rows
    ]
    return (
        _markdown(["dataset", "pixels", "weights", "depth", "epochs", *headings], lines, words=2)
        + f"\nOn {images}. Weights: the factor of the preset's gamma and information weight. "
        f"Processor time of each image. Larger images are averaged to {size} x {size} before the "
        f"evaluation classifier. Seed {rows[0]['seed']}. {_provenance(rows)}\n"
    )


def photographs(rows: Sequence[Row]) -> str:
    """Accuracy on synthetic photographs under each condition, and on the images themselves."""
    lines = [[row["condition"], *_cells([row], _PHOTOGRAPHS)] for row in rows]
    first = rows[0]
    return (
        _markdown(["condition", *(heading for heading, _ in _PHOTOGRAPHS.values())], lines)
        + f"\n{first['model']}; {first['examples']:,} test images and as many blank sheets under "
        f"each condition, seed {first['seed']}. {_provenance(rows)}\n"
    )


def cas(rows: Sequence[Row]) -> str:
    """One line per model: test accuracy of classifiers by their training images."""
    headings = [heading for heading, _ in _CAS.values()]
    lines = [[row["model"], *_cells([row], _CAS)] for row in rows]
    return _markdown(["model", *headings], lines) + f"\n{_provenance(rows)}\n"


def hands(rows: Sequence[Row]) -> str:
    """One line per model: how well hands are kept, and each factor of their style."""
    factors = list(rows[0]["hand_factor_r2"])
    headings = [heading for heading, _ in _HANDS.values()]
    lines = [
        [
            row["model"],
            *_cells([row], _HANDS),
            *(f"{row['hand_factor_r2'][factor]:.2f}" for factor in factors),
        ]
        for row in rows
    ]
    return _markdown(["model", *headings, *factors], lines) + f"\n{_provenance(rows)}\n"


def label_count(num_labels: int | str) -> int:
    """Number of labels; ``"all"`` are MNIST's 60,000."""
    return num_labels if isinstance(num_labels, int) else 60_000


def protocol_variants(rows: Sequence[Row]) -> str:
    """One line per training protocol, one column per evaluation protocol."""
    headers = ["objective", "protocol", "KL(z)", *rows[0]["mse_by_protocol"]]
    lines = [
        [
            f"`{row['objective']}`",
            row["protocol"],
            f"{row['kl_z']:.3f}",
            *(f"{mse:.4f}" for mse in row["mse_by_protocol"].values()),
        ]
        for row in rows
    ]
    return (
        _markdown(headers, lines, words=2)
        + f"\nMSE per pixel; KL(z) of the averaged weights. {_caption(rows)}\n"
    )


def _by_capacity(rows: Sequence[Row], columns: Mapping[str, tuple[str, int]]) -> str:
    """One line per capacity and objective: mean ± standard deviation over seeds.

    Those without a capacity come last.
    """
    groups = dict.fromkeys((row["capacity_z"], row["objective"]) for row in rows)
    lines = []
    for capacity, objective in sorted(
        groups, key=lambda group: math.inf if group[0] is None else group[0]
    ):
        same = [
            row for row in rows if (row["capacity_z"], row["objective"]) == (capacity, objective)
        ]
        name = "none" if capacity is None else f"{capacity:g}"
        lines.append([f"`{objective}`", name, str(len(same)), *_cells(same, columns)])
    headers = ["objective", "C_z", "seeds", *(title for title, _ in columns.values())]
    return _markdown(headers, lines)


def _cells(rows: Sequence[Row], columns: Mapping[str, tuple[str, int]]) -> list[str]:
    """Mean ± standard deviation per column; empty without values."""
    cells = []
    for name, (_, digits) in columns.items():
        values = [row[name] for row in rows if name in row]
        cell = f"{statistics.mean(values):.{digits}f}" if values else ""
        if len(values) > 1:
            cell += f" ± {statistics.stdev(values):.{digits}f}"
        cells.append(cell)
    return cells


def _markdown(headers: Sequence[str], lines: Sequence[Sequence[str]], words: int = 1) -> str:
    """A Markdown table; all but the first ``words`` columns are aligned right."""
    rule = ["---"] * words + ["---:"] * (len(headers) - words)
    return "".join(f"| {' | '.join(line)} |\n" for line in (headers, rule, *lines))


def _caption(rows: Sequence[Row], images: str = "test images") -> str:
    first = rows[0]
    epochs, seeds = (
        ", ".join(map(str, sorted({row[name] for row in rows}))) for name in ("epochs", "seed")
    )
    return (
        f"{first['dataset']}, {epochs} epochs, seed {seeds}, "
        f"{first['examples']:,} {images}. {_provenance(rows)}"
    )


def _provenance(rows: Sequence[Row]) -> str:
    """Commands, commits, versions and machines."""
    commands = dict.fromkeys(f"`{row['command']}`" for row in rows)
    commits = dict.fromkeys(f"`{row['trained_with']}`" for row in rows)
    environments = dict.fromkeys(
        f"Python {environment['python']}, jax {environment['jax']}, {environment['machine']}"
        for environment in (row["environment"] for row in rows)
    )
    return f"{', '.join(commands)}; commit {', '.join(commits)}, {'; or '.join(environments)}."
