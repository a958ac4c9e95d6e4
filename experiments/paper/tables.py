"""Rows to tables in Markdown."""

import statistics
from collections.abc import Mapping, Sequence

from jvae_jax import OBJECTIVES
from paper.studies import BALANCED, CHOSEN, LABELS_ALONE, Row, with_flags

PAPER = {
    "vae": {"mse": 0.0068, "kl_z": 18.930},
    "annealed_vae": {"mse": 0.0219, "kl_z": 4.903},
    "joint_vae": {"mse": 0.0251, "kl_z": 4.958},
    "ours": {"mse": 0.0243, "kl_z": 4.986},
}
"""Table 1. Its beta-VAE is the one with capacities, as its KL of nearly 5 shows."""

PUBLISHED = {
    "M2 (Kingma et al.)": {100: 0.8803, 1000: 0.9640},
    "M1+M2 (Kingma et al.)": {100: 0.9667, 1000: 0.9760},
    "M2 (pyro)": {100: 0.9319, 1000: 0.9487},
}
"""Labels read of MNIST's test set: Kingma et al. 2014, table 1; pyro's ss-vae example."""

COLUMNS = {
    "mse": ("MSE", 4),
    "mse_sampled": ("MSE, sampled", 4),
    "kl_z": ("KL(z)", 3),
    "accuracy": ("labels read", 4),
    "conditional_accuracy": ("drawn as asked", 4),
    "linear_probe_accuracy": ("labels read from z", 4),
    "mutual_information": ("c and label, nats", 3),
    "frechet_distance": ("Fréchet", 2),
    "intra_class_frechet_distance": ("Fréchet within class", 2),
}


def table1(rows: Sequence[Row]) -> str:
    """For each data set and length of training, a line for each objective."""
    tables = sorted({(row["dataset"], -row["epochs"]) for row in rows})
    return "\n".join(
        _objectives([row for row in rows if (row["dataset"], -row["epochs"]) == table])
        for table in tables
    )


def _objectives(rows: Sequence[Row]) -> str:
    """A line for each: mean ± standard deviation over seeds, and the paper's figure beside it."""
    first = rows[0]
    published = ("mse", "kl_z") if first["dataset"] == "mnist" else ()
    headers = ["objective", "seeds"]
    for name, (title, _) in COLUMNS.items():
        headers += [title, "paper"] if name in published else [title]
    lines = []
    for objective in (*OBJECTIVES, BALANCED):
        own = [row for row in rows if row["objective"] == objective]
        if not own:
            continue
        line = [f"`{objective}`", str(len(own))]
        for name, cell in zip(COLUMNS, _cells(own, COLUMNS), strict=True):
            line.append(cell)
            if name in published:
                paper = PAPER.get(objective, {}).get(name)
                line.append("" if paper is None else f"{paper:.{COLUMNS[name][1]}f}")
        lines.append(line)
    floor = ""
    if "intra_class_frechet_distance_real" in first:
        floor = f", within classes {first['intra_class_frechet_distance_real']:.2f}"
    return (
        _markdown(headers, lines)
        + f"\n{first['dataset']}, {first['epochs']} epochs, {first['examples']:,} test images. "
        f"The judge reads {first['eval_classifier_accuracy']:.4f} of their labels. Between training and test "
        f"images the Fréchet distance is {first['frechet_distance_real']:.2f}{floor}; naming the most "
        f"frequent label reads {first['majority_class_accuracy']:.4f} of them. {_origin(rows)}\n"
    )


def fixed_dimensions(rows: Sequence[Row]) -> str:
    """A line for each number of free dimensions, made either way."""
    columns = {
        name: COLUMNS[name]
        for name in (
            "mse",
            "kl_z",
            "accuracy",
            "conditional_accuracy",
            "linear_probe_accuracy",
            "frechet_distance",
        )
    }
    headers = ["free", "of", *(title for title, _ in columns.values())]
    ordered = sorted(rows, key=lambda row: (row["latents"] - row["fixed_latents"], row["latents"]))
    lines = [
        [str(row["latents"] - row["fixed_latents"]), str(row["latents"]), *_cells([row], columns)]
        for row in ordered
    ]
    return _markdown(headers, lines) + f"\n{_about(rows)}\n"


def settings(rows: Sequence[Row], images: str = "test images") -> str:
    """A line for each setting: mean ± standard deviation over seeds."""
    names = [
        name for name in ("accuracy", "conditional_accuracy", "mse", "kl_z") if name in rows[0]
    ]
    columns = {name: COLUMNS[name] for name in names}
    lines = []
    for objective in dict.fromkeys(row["objective"] for row in rows):
        own = [row for row in rows if row["objective"] == objective]
        lines.append([f"`{objective}`", str(len(own)), *_cells(own, columns)])
    headers = ["objective", "seeds", *(title for title, _ in columns.values())]
    return _markdown(headers, lines) + f"\n{_about(rows, images)}\n"


def labels(rows: Sequence[Row]) -> str:
    """Labels read for each number of labels, the published figures beside; then what is drawn."""
    counts = sorted({row["num_labels"] for row in rows}, key=label_count)
    trained = [with_flags(*setting) for setting in CHOSEN]
    objectives = [*trained, LABELS_ALONE]

    def cell(name: str, count: int | str, objective: str) -> str:
        own = [row for row in rows if row["num_labels"] == count and row["objective"] == objective]
        return _cells(own, {name: COLUMNS[name]})[0]

    read = [
        [
            str(count),
            *(cell("accuracy", count, objective) for objective in objectives),
            *(f"{of[count]:.4f}" if count in of else "" for of in PUBLISHED.values()),
        ]
        for count in counts
    ]
    drawn, errors = (
        [[str(count), *(cell(name, count, objective) for objective in trained)] for count in counts]
        for name in ("conditional_accuracy", "mse")
    )
    names = [f"`{name}`" for name in trained]
    return (
        "Labels read:\n\n"
        + _markdown(["labels", *names, LABELS_ALONE, *PUBLISHED], read, words=0)
        + "\nDrawn as asked:\n\n"
        + _markdown(["labels", *names], drawn, words=0)
        + "\nMSE per pixel:\n\n"
        + _markdown(["labels", *names], errors, words=0)
        + f"\n{_about(rows)}\n"
    )


def label_count(num_labels: int | str) -> int:
    """For sorting and plotting: all are MNIST's 60,000."""
    return num_labels if isinstance(num_labels, int) else 60_000


def readings(rows: Sequence[Row]) -> str:
    """A line for each reading of training, a column for each of measuring."""
    headers = ["objective", "reading", "KL(z)", *rows[0]["mse_by_protocol"]]
    lines = [
        [
            f"`{row['objective']}`",
            row["reading"],
            f"{row['kl_z']:.3f}",
            *(f"{mse:.4f}" for mse in row["mse_by_protocol"].values()),
        ]
        for row in rows
    ]
    return _markdown(headers, lines, words=2) + f"\nMSE per pixel. {_about(rows)}\n"


def _cells(rows: Sequence[Row], columns: Mapping[str, tuple[str, int]]) -> list[str]:
    """Mean ± standard deviation, as far as there are values."""
    cells = []
    for name, (_, digits) in columns.items():
        values = [row[name] for row in rows if name in row]
        cell = f"{statistics.mean(values):.{digits}f}" if values else ""
        if len(values) > 1:
            cell += f" ± {statistics.stdev(values):.{digits}f}"
        cells.append(cell)
    return cells


def _markdown(headers: Sequence[str], lines: Sequence[Sequence[str]], words: int = 1) -> str:
    """A table whose first columns are words, the others numbers."""
    rule = ["---"] * words + ["---:"] * (len(headers) - words)
    return "".join(f"| {' | '.join(line)} |\n" for line in (headers, rule, *lines))


def _about(rows: Sequence[Row], images: str = "test images") -> str:
    first = rows[0]
    epochs, seeds = (
        ", ".join(map(str, sorted({row[name] for row in rows}))) for name in ("epochs", "seed")
    )
    return (
        f"{first['dataset']}, {epochs} epochs, seed {seeds}, "
        f"{first['examples']:,} {images}. {_origin(rows)}"
    )


def _origin(rows: Sequence[Row]) -> str:
    """Where the figures come from."""
    commands = dict.fromkeys(f"`{row['command']}`" for row in rows)
    commits = dict.fromkeys(f"`{row['trained_with']}`" for row in rows)
    environment = rows[0]["environment"]
    return (
        f"{', '.join(commands)}; commit {', '.join(commits)}, Python {environment['python']}, "
        f"jax {environment['jax']}, {environment['machine']}."
    )
