"""Studies on small runs; tables from synthetic rows."""

import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import reproduce
from helpers import make_dataset
from paper import configs, tables

from jvae_jax import data, load, plotting, trained_model
from jvae_jax.evaluation import classifier
from jvae_jax.handwriting import metrics
from jvae_jax.objectives import OBJECTIVES, PRESETS, Ours
from jvae_jax.types import Posterior


def row(objective, seed, **metrics):
    common = {
        "dataset": "mnist",
        "epochs": 40,
        "examples": 10_000,
        "eval_classifier_accuracy": 0.996,
    }
    references = {
        "frechet_distance_real": 0.25,
        "intra_class_frechet_distance_real": 0.5,
        "majority_class_accuracy": 0.1135,
    }
    environment = {"python": "3.11", "jax": "0.10.2", "machine": "2 cores"}
    provenance = {"command": "python x", "trained_with": "abc", "environment": environment}
    return {"objective": objective, "seed": seed, **common, **references, **provenance, **metrics}


def test_table_shows_mean_deviation_and_paper_value():
    rows = [
        row(
            "ours",
            0,
            mse=0.015,
            kl_z=5.0,
            accuracy=0.99,
            conditional_accuracy=0.998,
            frechet_distance=1.0,
        ),
        row(
            "ours",
            1,
            mse=0.017,
            kl_z=5.2,
            accuracy=0.99,
            conditional_accuracy=1.0,
            frechet_distance=3.0,
        ),
        row("beta_vae", 0, mse=0.03, kl_z=2.5, frechet_distance=9.5),
    ]
    header, _, beta_vae, ours, _, about = tables.table1(rows).splitlines()
    assert header.startswith(
        "| objective | seeds | MSE | paper | MSE (sampled) | KL(z) | paper | accuracy |"
    )
    assert ours.startswith(
        "| `ours` | 2 | 0.0160 ± 0.0014 | 0.0243 |  | 5.100 ± 0.141 | 4.986 | "
        "0.9900 ± 0.0000 | 0.9990 ± 0.0014 |"
    )
    assert beta_vae == "| `beta_vae` | 1 | 0.0300 |  |  | 2.500 |  |  |  |  |  | 9.50 |  |"
    assert "40 epochs, 10,000 test images. Accuracy of the evaluation classifier 0.9960" in about
    assert about.endswith("`python x`; commit `abc`, Python 3.11, jax 0.10.2, 2 cores.")


def test_each_number_of_epochs_has_a_table():
    metrics = {"mse": 0.015, "kl_z": 5.0}
    rows = [row("ours", 0, **metrics), {**row("ours", 0, **metrics), "epochs": 100}]
    first, second = tables.table1(rows).split("\n\n| objective")
    assert "100 epochs" in first
    assert "40 epochs" in second


def test_settings_caption_lists_epochs_and_seeds():
    metrics = {"accuracy": 0.5, "mse": 0.015, "kl_z": 5.0}
    rows = [row("ours", 1, **metrics), {**row("ours", 0, **metrics), "epochs": 5}]
    assert "mnist, 5, 40 epochs, seed 0, 1, 10,000 test images." in tables.settings(rows)


def test_methods_of_the_labels_study_are_their_flags():
    methods = dict(reproduce.studies.LABEL_METHODS)
    in_tables_only = set(reproduce.figures._TABLES_ONLY)
    assert in_tables_only < methods.keys()
    assert methods.keys() - in_tables_only < reproduce.figures.TITLES.keys()
    presets = {
        "best --consistency_weight=100 --elastic_strength=1": {
            "consistency_weight": 100.0,
            "elastic_strength": 1.0,
        },
        "best --label_propagation --consistency_weight=100 --elastic_strength=1": {
            "consistency_weight": 100.0,
            "elastic_strength": 1.0,
        },
        "few_labels": {},
        "few_labels --unsupervised_epochs=0": {"unsupervised_epochs": 0},
    }
    for name, changes in presets.items():
        objective, settings = methods.pop(f"ours --preset={name}")
        settings = dict(settings)
        assert settings.pop("label_propagation", False) == ("--label_propagation" in name)
        assert OBJECTIVES[objective](**settings) == replace(PRESETS[name.split()[0]], **changes)
    assert [reproduce.studies.setting_name(*setting) for setting in methods.values()] == [*methods]


def test_labels_figure_plots_the_epochs_of_the_most_numbers_of_labels():
    """The longer runs if there are as many, without the ablation."""
    short = row("ours", 0, num_labels=10, accuracy=0.5, conditional_accuracy=0.4)
    few = {**short, "num_labels": 100}
    longer = {**short, "epochs": 50, "accuracy": 0.9, "conditional_accuracy": 1.0}
    more = {**longer, "num_labels": 100, "accuracy": 0.99, "conditional_accuracy": 0.995}
    ablation = {**few, "objective": "ours --preset=few_labels --unsupervised_epochs=0"}
    figure = reproduce.figures.labels([short, few, longer, ablation])
    assert [len(axes.lines) for axes in figure.axes] == [1, 1]
    x = [axes.lines[0].get_xdata().tolist() for axes in figure.axes]
    assert x == [[10, 100], [10, 100]]
    figure = reproduce.figures.labels([more, short, few, longer])
    accuracy, conditional_accuracy = (axes.lines[0].get_xydata() for axes in figure.axes)
    np.testing.assert_allclose(accuracy, [[10, 0.1], [100, 0.01]])
    np.testing.assert_allclose(conditional_accuracy, [[10, 1e-4], [100, 0.005]])


def disentanglement_row(objective, seed, capacity_z, score, **metrics):
    factors = reproduce.figures.Morphology._fields
    scores = dict.fromkeys(
        ("dci_disentanglement", "dci_completeness", "dci_informativeness", "mig", "sap"), score
    )
    within_classes = {f"{name}_within_classes": value / 2 for name, value in scores.items()}
    return row(
        objective,
        seed,
        capacity_z=capacity_z,
        kl_z=5.0,
        kl_z_per_latent=[1.0, 4.0],
        factor_r2=dict.fromkeys(factors, score),
        factor_r2_within_classes=dict.fromkeys(factors, score / 2),
        factor_information={of: [0.5, index / 10] for index, of in enumerate(factors)},
        **scores,
        **within_classes,
        **metrics,
    )


C_INFORMATION = {"factor_c_information": dict.fromkeys(reproduce.figures.Morphology._fields, 0.25)}


def test_disentanglement_table_joins_seeds_and_their_ranking():
    rows = [
        disentanglement_row("vae", 0, None, 0.3),
        disentanglement_row("ours", 0, 10.0, 0.2, **C_INFORMATION),
        disentanglement_row("ours", 0, 5.0, 0.4, **C_INFORMATION),
        disentanglement_row("ours", 1, 5.0, 0.6, udr=[0.8, 0.9], **C_INFORMATION),
        # One more seed was added later.
        disentanglement_row("ours", 2, 5.0, 0.5, udr=[0.1, 0.3, 0.2], **C_INFORMATION),
    ]
    *parts, caption = tables.disentanglement(rows).split("\n\n")
    overall, within_classes, information = (part.splitlines()[-3:] for part in parts[1::2])
    score = " | 0.500 ± 0.100" * 11
    assert overall[0] == f"| `ours` | 5 | 3 | 5.000 ± 0.000 | 0.200 ± 0.100{score} |"
    assert overall[1] == "| `ours` | 10 | 1 | 5.000 | " + " | 0.200" * 11 + " |"
    assert overall[2] == "| `vae` | none | 1 | 5.000 | " + " | 0.300" * 11 + " |"
    assert within_classes[0] == "| `ours` | 5 | 3" + " | 0.250 ± 0.050" * 11 + " |"
    assert information[1:] == [
        "| `ours` | 5 | 3" + " | 0.250 ± 0.000" * 6 + " |",
        "| `ours` | 10 | 1" + " | 0.250" * 6 + " |",
    ]
    assert "seed 0, 1, 2" in caption


def test_disentanglement_figure_orders_dimensions_by_kl():
    rows = [
        disentanglement_row("vae", 0, None, 0.3),
        disentanglement_row("ours", 0, 5.0, 0.4, **C_INFORMATION),
        disentanglement_row("ours", 1, 5.0, 0.6, **C_INFORMATION),
    ]
    ours, vae, *_ = reproduce.figures.disentanglement(rows).axes
    assert [axes.get_title() for axes in (ours, vae)] == ["ours, 5 nats", "VAE"]
    assert [label.get_text() for label in ours.get_xticklabels()] == ["4.0", "1.0", "c"]
    np.testing.assert_array_equal(ours.images[0].get_array()[2], [0.2, 0.5, 0.25])
    assert [label.get_text() for label in vae.get_xticklabels()] == ["4.0", "1.0"]


def test_settings_are_named_by_their_flags():
    values = {"alpha": 1000.0, "penalty": "multiplier", "conditional_encoder": True}
    name = "cvae --alpha=1000 --penalty=multiplier --conditional_encoder"
    assert reproduce.studies.setting_name("cvae", values) == name


def test_saved_row_replaces_previous_one(tmp_path):
    path = tmp_path / "rows.json"
    for seed, mse in ((0, 0.5), (1, 0.4), (0, 0.3)):
        reproduce.studies.save_row(path, {"seed": seed, "mse": mse}, ["seed"])
    assert reproduce.studies.load_rows(path) == [{"seed": 0, "mse": 0.3}, {"seed": 1, "mse": 0.4}]


def test_packed_panels_round_trip():
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8, 1), np.uint8) / np.float32(255)
    grid = [[plotting.Panel(images=images, title="t", row_names=["a", "b"])]]
    packed = json.loads(json.dumps(reproduce.figures.pack(grid)))
    ((panel,),) = reproduce.figures.unpack(packed)
    np.testing.assert_array_equal(panel.images, images)
    assert (panel.title, panel.row_names) == ("t", ["a", "b"])


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Options of a study on small images, and its output folder."""
    dataset = make_dataset(train=120)
    eval_classifier = classifier.train(dataset, steps=60)
    monkeypatch.setattr(
        configs.data,
        "load",
        lambda *_args, binarize, **_options: dataset.binarized() if binarize else dataset,
    )
    monkeypatch.setattr(configs.classifier, "load_or_train", lambda *_args: eval_classifier)
    for name in ("conditional_metrics", "style_transfer_metrics"):  # of 10,000 characters
        metrics = getattr(trained_model, name)
        monkeypatch.setattr(trained_model, name, partial(metrics, characters=200))
    output = tmp_path / "results"
    return {"epochs": 1, "runs": str(tmp_path / "runs"), "output": str(output)}, output


def test_traversals_are_named_by_the_factor_that_changes():
    """Of bars that become wider, that lean over, and that stay."""

    def bar(thickness, slant):
        y, x = np.mgrid[:32, :32] - 15.5
        distance = np.abs(x + np.tan(np.deg2rad(slant)) * y)
        return ((thickness / 2 + 0.5 - distance).clip(0, 1) * (np.abs(y) <= 10))[..., None]

    steps = np.linspace(0, 1, 5)
    rows = np.stack(
        [
            [bar(2 + 3 * step, 0) for step in steps],
            [bar(2, 30 * step - 10) for step in steps],
            [bar(2, 0) for step in steps],
        ]
    )
    panels = [reproduce.figures.Panel(images=rows, row_names=("1.00", "0.50", "0.00"))] * 2
    ((first, second),) = reproduce.figures.name_by_factor([panels])
    assert [name.split()[0] for name in first.row_names] == ["width", "slant", "0.00"]
    low, high = first.row_names[1].removesuffix("°, 0.50 nats").split()[1::2]
    assert (float(low), float(high)) == pytest.approx((-10, 20), abs=0.5)
    assert first.row_names[2] == "0.00 nats"
    assert not second.row_names


def test_capacity_steps_are_those_of_the_setting_or_of_the_study():
    study = reproduce.FrontierConfig(capacity_steps=7)
    config = study.train_config("ours", "run", **asdict(PRESETS["best"]))
    assert config.objective.capacity_steps == 7
    config = study.train_config("ours", "run", capacity_steps=0)
    assert config.objective.capacity_steps == 0
    assert study.train_config("cvae", "run").objective == OBJECTIVES["cvae"]()


@pytest.mark.long
def test_table1_and_figures(small, monkeypatch, capsys):
    options, output = small
    three = {name: OBJECTIVES[name] for name in ("vae", "joint_vae", "ours")}
    monkeypatch.setattr(reproduce, "OBJECTIVES", three)
    config = reproduce.Table1Config(seeds=1, **options)
    reproduce.table1(config)
    rows = reproduce.studies.load_rows(output / "table1.json")
    assert [row["objective"] for row in rows] == list(three)
    table = (output / "table1.md").read_text()
    assert table in capsys.readouterr().out

    (output / "table1.md").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(reproduce.studies, "evaluate_run", pytest.fail)
        reproduce.table1(config)
    assert reproduce.studies.load_rows(output / "table1.json") == rows
    assert (output / "table1.md").read_text() == table

    study = reproduce.StudyConfig(**options)
    monkeypatch.setattr(reproduce, "TRAVERSED_LABELS", (0, 2))
    for name in ("figure2", "traversals", "reconstructions"):
        getattr(reproduce, name)(study)
    monkeypatch.setattr(reproduce.figures, "HIRAGANA_GROUPS", ("ac",))
    reproduce.figure3(reproduce.Figure3Config(**options))
    settings = ("ours", {"consistency_weight": 30.0}), ("ours", {})
    monkeypatch.setattr(reproduce.studies, "HIRAGANA_SETTINGS", settings)
    for _ in range(2):  # the second time, its rows are kept
        reproduce.hiragana_settings(reproduce.HiraganaSettingsConfig(**options))
        rows = reproduce.studies.load_rows(output / "hiragana-settings.json")
        assert [row["objective"] for row in rows] == ["ours --consistency_weight=30", "ours"]
    shapes = {
        "figure2": 2,
        "traversals": 2,
        "reconstructions": 1,
        "figure3": 3,
        "figure3-best-preset": 2,
    }
    for name, panels in shapes.items():
        contents = json.loads((output / f"{name}.json").read_text())
        assert {len(row) for row in contents["panels"]} == {panels}
        assert (output / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    rows = reproduce.studies.load_rows(output / "hiragana.json")
    assert [row["objective"] for row in rows] == ["ours", "joint_vae", "ours --balance_classes"]
    originals, *reconstructions = panels_of(output / "reconstructions.json")[0][0].images
    dataset = make_dataset(train=120)
    np.testing.assert_allclose(originals[0] * 255, dataset.test_images[0], atol=0.01)
    assert len(reconstructions) == len(three)
    assert len(panels_of(output / "figure3.json")) == 2
    assert panels_of(output / "figure3.json")[0][0].images.shape[:2] == (2, 1)


@pytest.mark.parametrize(
    ("posterior", "information", "marginal_kl"),
    [
        ([[1, 0], [0, 1]], np.log(2), 0.0),
        ([[1, 0], [1, 0]], 0.0, np.log(2)),
        ([[0.5, 0.5], [0.5, 0.5]], 0.0, 0.0),
        (
            [[1, 0], [0.5, 0.5]],
            0.75 * np.log(4 / 3),
            np.log(2) + 0.75 * np.log(0.75) + np.log(0.25) / 4,
        ),
    ],
)
def test_usage_of_categories(posterior, information, marginal_kl):
    with np.errstate(divide="ignore"):
        logits = np.log(posterior)
    model = SimpleNamespace(encode=lambda images: Posterior(images, images, logits))
    usage = reproduce.studies.category_usage(SimpleNamespace(model=model), make_dataset())
    assert usage["mutual_information_c"] == pytest.approx(information, abs=1e-12)
    assert usage["marginal_kl_c"] == pytest.approx(marginal_kl, abs=1e-12)


def test_settings_without_labels_are_those_of_the_preset():
    ((objective, settings),) = reproduce.studies.CLUSTERS
    assert objective == "joint_vae"
    assert Ours(**settings, unsupervised_epochs=-1) == PRESETS["few_labels"]


@pytest.mark.long
def test_fixed_dimensions(small, monkeypatch):
    options, output = small
    monkeypatch.setattr(reproduce, "LATENTS", (2,))
    monkeypatch.setattr(reproduce, "FIXED_OF_10", (8,))
    reproduce.fixed_dimensions(reproduce.FixedDimensionsConfig(**options))
    rows = reproduce.studies.load_rows(output / "fixed-dimensions.json")
    assert [(row["latents"], row["fixed_latents"]) for row in rows] == [(2, 0), (10, 8)]
    assert rows[1]["kl_z_per_latent"][2:] == [0.0] * 8
    lines = (output / "fixed-dimensions.md").read_text().splitlines()
    assert [line[:9] for line in lines[2:4]] == ["| 2 | 2 |", "| 2 | 10 "]
    assert (output / "fixed-dimensions.png").exists()


@pytest.mark.long
def test_labels(small, monkeypatch):
    options, output = small
    monkeypatch.setattr(configs, "NUM_LABELS", (6, "all"))
    monkeypatch.setattr(configs, "MAX_REPEATED_NUM_LABELS", 6)
    baseline = reproduce.studies.supervised_baseline
    monkeypatch.setattr(baseline, "test_accuracy", partial(baseline.test_accuracy, steps=50))
    methods = reproduce.studies.LABEL_METHODS
    first, *_, last = methods
    few = {name: methods[name] for name in (first, last)}
    monkeypatch.setattr(reproduce.studies, "LABEL_METHODS", few)
    monkeypatch.setattr(tables, "LABEL_METHODS", few)
    reproduce.labels(reproduce.LabelsConfig(draws=2, **options))
    rows = reproduce.studies.load_rows(output / "labels.json")
    names = ["supervised baseline", *few]
    assert [row["objective"] for row in rows] == 3 * names
    assert [(row["num_labels"], row["seed"]) for row in rows[::3]] == [(6, 0), ("all", 0), (6, 1)]
    lines = (output / "labels.md").read_text().splitlines()
    assert lines[2] == "| method | epochs | 6 | all |"
    assert [line.split(" | ")[0] for line in lines[4:8]] == [
        "| `ours`",
        f"| `{names[-1]}`",
        "| supervised baseline",
        "| M2 (Kingma et al.)",
    ]
    assert lines[4].startswith("| `ours` | 1 | ")
    assert lines[4].count("±") == 1
    assert "1 epochs, seed 0, 1, " in lines[-1]
    assert reproduce.LabelsConfig(method="ours").methods() == ("ours",)
    with pytest.raises(ValueError, match="unknown method 'our'; methods: supervised"):
        reproduce.LabelsConfig(method="our")
    one = reproduce.LabelsConfig(
        draws=2, method="ours", **{**options, "output": str(output / "one")}
    )
    reproduce.labels(one)
    only = reproduce.studies.load_rows(output / "one" / "labels.json")
    assert [row["objective"] for row in only] == 3 * ["ours"]
    kept = [row["accuracy"] for row in rows]
    with monkeypatch.context() as patch:  # kept rows are neither trained nor evaluated
        patch.setattr(reproduce.studies, "train_and_evaluate", None)
        patch.setattr(reproduce.studies, "supervised_baseline_row", None)
        reproduce.labels(reproduce.LabelsConfig(draws=2, **options))
    rows = reproduce.studies.load_rows(output / "labels.json")
    assert [row["accuracy"] for row in rows] == kept


def test_second_runs_have_the_labels_of_the_first(small, monkeypatch):
    options, _ = small
    configs, rows = [], []
    monkeypatch.setattr(
        reproduce.studies,
        "train_and_evaluate",
        lambda config, *_args, **_extra: configs.append(config) or (None, {"accuracy": 0.5}),
    )
    monkeypatch.setattr(reproduce, "_save_row", lambda _config, _name, row, _: rows.append(row))
    monkeypatch.setattr(reproduce, "_print_table", lambda *_: None)
    (method,) = (name for name in reproduce.studies.LABEL_METHODS if "pseudo" in name)
    for num_labels in (6, "all"):
        reproduce.labels(
            reproduce.LabelsConfig(draws=2, num_labels=num_labels, method=method, **options)
        )
    assert [row["objective"] for row in rows] == [method] * 2
    for seed, (first, second) in enumerate(zip(configs[::2], configs[1::2], strict=True)):
        assert first.objective == PRESETS["few_labels"]
        assert second.pseudo_labels_from == first.workdir != second.workdir
        assert second.objective == Ours(consistency_weight=100.0, elastic_strength=1.0)
        same = [(each.seed, each.num_labels, each.epochs) for each in (first, second)]
        assert same == [(seed, 6, 1)] * 2
    assert len(configs) == 4


@pytest.mark.long
def test_compared_settings(small, monkeypatch):
    options, output = small
    settings = (
        ("ours", {"num_labels": 6}),
        ("ours", {"num_labels": 6, "consistency_weight": 30.0}),
    )
    compared = (
        ("model-selection", 1),
        ("preset-selection", 2),
        ("ablations", 1),
        ("cluster-selection", 1),
        ("clusters", 1),
    )
    for study, seeds in compared:
        name = study.replace("-", "_")
        monkeypatch.setattr(reproduce.studies, name.upper(), settings)
        getattr(reproduce, name)(reproduce.SettingsConfig(seeds=seeds, **options))
        rows = reproduce.studies.load_rows(output / f"{study}.json")
        names = ["ours --num_labels=6", "ours --num_labels=6 --consistency_weight=30"]
        assert [row["objective"] for row in rows] == seeds * names
        assert [row["seed"] for row in rows] == [seed for seed in range(seeds) for _ in names]
        lines = (output / f"{study}.md").read_text().splitlines()
        assert lines[3].startswith(f"| `{names[1]}` | {seeds} | ")
        assert ("held-out" in lines[-1]) == study.endswith("selection")
    assert {"mutual_information_c", "marginal_kl_c"} <= rows[0].keys()


@pytest.mark.long
def test_frontier(small, monkeypatch):
    options, output = small
    monkeypatch.setattr(reproduce.studies, "FRONTIER_NLL_IMAGES", 2)
    for capacity in (5.0, 0.0):
        reproduce.frontier(reproduce.FrontierConfig(capacity_z=capacity, **options))
    rows = reproduce.studies.load_rows(output / "frontier.json")
    assert [(row["objective"], row["capacity_z"]) for row in rows] == [
        ("ours", 5.0),
        ("ours --preset=best", 5.0),
        ("cvae", 5.0),
        ("ours", None),
        ("ours --preset=best", None),
        ("cvae", None),
    ]
    assert [row["settings"]["penalty"] for row in rows] == [
        "absolute",
        "multiplier",
        "multiplier",
        "absolute",
        "absolute",
        "absolute",
    ]
    # The ELBO's KL(z) has the weight 1 and no capacity.
    for row in rows[3:]:
        assert (row["settings"]["beta"], row["settings"]["capacity_z"] or 0) == (1.0, 0)
    lines = (output / "frontier.md").read_text().splitlines()
    order = [line.split(" | ")[:2] for line in lines[2:8]]
    assert order[0] == ["| `ours`", "5"]
    assert order[5] == ["| `cvae`", "none"]
    assert all(row["train_kl_z"] != row["kl_z"] > 0 for row in rows)
    assert (output / "frontier.png").exists()


@pytest.mark.long
def test_likelihood(small, monkeypatch):
    options, output = small
    monkeypatch.setattr(reproduce.studies, "LIKELIHOOD_LATENTS", (2, 3))
    reproduce.likelihood(reproduce.LikelihoodConfig(images=2, samples=5, **options))
    rows = reproduce.studies.load_rows(output / "likelihood.json")
    assert [row["latents"] for row in rows] == [2, 3]
    lines = (output / "likelihood.md").read_text().splitlines()
    assert lines[2].startswith(f"| `vae`, 2 latents | {rows[0]['nll']:.2f} ± ")
    assert lines[4] == "| published: convolutional VAE | 81.02 ± 0.05 |  |"


@pytest.mark.long
def test_protocol_variants(small, monkeypatch):
    options, output = small
    monkeypatch.setattr(reproduce.studies, "PROTOCOL_VARIANTS", {"default": {}})
    reproduce.protocol_variants(reproduce.ProtocolVariantsConfig(**options))
    rows = reproduce.studies.load_rows(output / "protocol-variants.json")
    assert [row["protocol"] for row in rows] == 2 * ["default", "last weights"]
    for average, last in (rows[:2], rows[2:]):
        mse = average["mse_by_protocol"]
        assert mse["mean z, most probable c"] == pytest.approx(average["mse"], rel=1e-5)
        assert mse["sampled z, most probable c"] != mse["mean z, most probable c"]
        # After one step, the moving average equals the last weights.
        assert last["mse_by_protocol"] == mse


def test_settings_of_disentanglement():
    settings = reproduce.DisentanglementConfig().settings()
    held = [(name, 5.0) for name in ("annealed_vae", "joint_vae", "ours")]
    others = [(name, None) for name in ("vae", "cvae", "beta_vae")]
    assert settings[:3] == held
    assert settings[9:] == others
    assert len(settings) == 12
    assert reproduce.DisentanglementConfig(capacity_z=5.0).settings() == held
    assert reproduce.DisentanglementConfig(capacity_z=0.0).settings() == others


@pytest.mark.long
def test_disentanglement(small, monkeypatch):
    """A second seed leaves out the rows of the first, and ranks its run with that one."""
    options, output = small
    two = {name: OBJECTIVES[name] for name in ("annealed_vae", "ours")}
    monkeypatch.setattr(configs, "OBJECTIVES", two)
    train_and_evaluate = reproduce.studies.train_and_evaluate
    trained = []

    def record(config, *args, **extra):
        trained.append((config.objective.name, config.seed))
        return train_and_evaluate(config, *args, **extra)

    monkeypatch.setattr(reproduce.studies, "train_and_evaluate", record)
    for seeds in (1, 2):
        config = reproduce.DisentanglementConfig(capacity_z=5.0, seeds=seeds, **options)
        reproduce.disentanglement(config)
    first_seed = [(name, 0) for name in two]
    assert trained == first_seed + [(name, seed) for name in two for seed in range(2)]
    rows = reproduce.studies.load_rows(output / "disentanglement.json")
    assert [(row["objective"], row["seed"]) for row in rows] == [
        (name, seed) for seed in range(2) for name in two
    ]
    assert [len(row.get("udr", ())) for row in rows] == [0, 0, 2, 2]
    assert all(0 <= score <= 1 for score in rows[-1]["udr"])
    assert ["factor_c_information" in row for row in rows] == 2 * [False, True]
    table = (output / "disentanglement.md").read_text()
    assert "| `annealed_vae` | 5 | 2 | " in table
    assert (output / "disentanglement.png").exists()


def test_divides_classes_and_keeps_images_of_each():
    dataset = make_dataset(train=60, test=30, classes=5)
    parts = reproduce.studies.divide_classes(dataset, 2, seed=0)
    assert [len(part.class_names) for part in parts] == [3, 2]
    assert sorted(parts[0].class_names + parts[1].class_names) == list("abcde")
    for part in parts:
        for images, labels, originals, numbers in (
            (part.train_images, part.train_labels, dataset.train_images, dataset.train_labels),
            (part.test_images, part.test_labels, dataset.test_images, dataset.test_labels),
        ):
            found = {(bytes(i), part.class_names[j]) for i, j in zip(images, labels, strict=True)}
            expected = {
                (bytes(image), dataset.class_names[label])
                for image, label in zip(originals, numbers, strict=True)
                if dataset.class_names[label] in part.class_names
            }
            assert found == expected
    few = reproduce.studies.keep_images(parts[0], 4, seed=1)
    assert np.bincount(few.train_labels).tolist() == [4, 4, 4]
    assert {bytes(each) for each in few.train_images} < {bytes(i) for i in parts[0].train_images}
    np.testing.assert_array_equal(few.test_images, parts[0].test_images)
    with pytest.raises(ValueError, match="new_classes must be below 5, got 5"):
        reproduce.studies.divide_classes(dataset, 5, seed=0)


@pytest.mark.long
def test_fine_tuning(small, monkeypatch):
    options, output = small
    dataset = make_dataset(train=280, test=40, classes=4)
    monkeypatch.setattr(configs.data, "load", lambda *_args, **_options: dataset)
    monkeypatch.setattr(
        configs.classifier,
        "load_or_train",
        lambda dataset, _: classifier.train(dataset, steps=20),
    )
    monkeypatch.setattr(reproduce.studies, "FINE_TUNING_EPOCHS", (2,))
    config = reproduce.FineTuningConfig(seeds=1, new_classes=2, images=35, **options)
    reproduce.fine_tuning(config)
    rows = reproduce.studies.load_rows(output / "fine-tuning.json")
    assert [(row["tuned"], row["epochs"]) for row in rows] == [(False, 2), (True, 2)]
    assert all(np.isfinite(row["mse"]) and row["examples"] == 20 for row in rows)
    lines = (output / "fine-tuning.md").read_text().splitlines()
    assert lines[2].startswith("| 2 | random | 1 | ")
    assert lines[3].startswith("| 2 | other classes | 1 | ")
    assert "2 classes with 35 training images each" in lines[-1]


@pytest.mark.long
def test_batch_size(small, monkeypatch):
    options, output = small
    monkeypatch.setattr(reproduce.studies, "BATCH_SIZES", (64, 100))
    monkeypatch.setattr(reproduce.studies, "LEARNING_RATE_RULES", {"constant": 0.0, "root": 0.5})
    config = reproduce.BatchSizeConfig(**options)
    for _ in range(2):  # the second time, nothing is left to do
        reproduce.batch_size(config)
    rows = reproduce.studies.load_rows(output / "batch-size.json")
    assert [(row["batch_size"], row["rule"]) for row in rows] == [
        (64, "constant"),
        (100, "constant"),
        (100, "root"),
    ]
    assert [row["learning_rate"] for row in rows] == [1e-3, 1e-3, 1.25e-3]
    lines = (output / "batch-size.md").read_text().splitlines()
    assert lines[4].startswith("| 100 | root | 0.00125 | 1 | ")


@pytest.mark.long
def test_image_size(small, monkeypatch):
    """Images of twice the size, each pixel repeated, are classified as the original ones."""
    options, output = small
    original = configs.data.load(binarize=False)
    size = original.image_shape[0]

    def repeated(_name, _data_dir, *, image_size, **_options):
        times = image_size // size
        images = (original.train_images, original.test_images)
        train, test = (each.repeat(times, axis=1).repeat(times, axis=2) for each in images)
        return replace(original, train_images=train, test_images=test)

    monkeypatch.setattr(configs.data, "load", repeated)
    monkeypatch.setattr(reproduce.studies, "EVAL_CLASSIFIER_IMAGE_SIZE", size)
    monkeypatch.setattr(reproduce.studies, "IMAGE_SIZES", ((size, 1.0, 3), (2 * size, 4.0, 4)))
    reproduce.image_size(reproduce.ImageSizeConfig(**options))
    rows = reproduce.studies.load_rows(output / "image-size.json")
    settings = [(row["image_size"], row["weights"], row["depth"]) for row in rows]
    assert settings == [(size, 1.0, 3), (2 * size, 4.0, 4)]
    [config] = Path(options["runs"]).glob("*-pixels-4-4-*/config.json")
    objective = json.loads(config.read_text())["config"]["objective"]
    best = PRESETS["best"]
    assert objective["gamma"] == 4 * best.gamma
    assert objective["information_weight"] == 4 * best.information_weight
    accuracy = configs.classifier.load_or_train().accuracy
    assert [row["eval_classifier_accuracy"] for row in rows] == pytest.approx([accuracy] * 2)
    assert all(row["training_ms"] > row["drawing_ms"] > 0 for row in rows)
    lines = (output / "image-size.md").read_text().splitlines()
    assert lines[3].startswith(f"| toy | {2 * size} x {2 * size} | 4 | 4 | ")


@pytest.mark.long
def test_photographs():
    digits = data.load("mnist_5k")
    model = load("digits")
    rows = [
        reproduce.photograph_row(model, digits, condition, 10, 0)
        for condition in ("plain", "everything")
    ]
    assert all(row["accuracy_of_files"] == 1.0 and row["mostly_ink"] == 0.0 for row in rows)
    assert rows[0]["accuracy"] == 1.0
    assert rows[0]["blank_refused"] == 1.0
    assert rows[1]["accuracy"] >= 0.7
    again = reproduce.photograph_row(model, digits, "plain", 10, 0)
    assert again["accuracy"] == rows[0]["accuracy"]
    table = tables.photographs(rows).splitlines()
    assert table[2].startswith("| plain | 1.0000 | 1.0000 | 0.0000 | 0.0000 | 1.0000 |")
    assert "10 test images and as many blank sheets" in table[-1]


@pytest.mark.long
def test_cas(monkeypatch, tmp_path):
    """Of the packaged digits, with short training."""
    score = partial(reproduce.classification_accuracy_score, characters=1000, steps=120)
    monkeypatch.setattr(reproduce, "classification_accuracy_score", score)
    monkeypatch.setattr(
        reproduce.classifier,
        "load_or_train",
        lambda dataset, _: classifier.train(dataset, steps=120),
    )
    reproduce.cas(reproduce.ModelConfig(dataset="mnist_5k", output=str(tmp_path)))
    (row,) = reproduce.studies.load_rows(tmp_path / "cas.json")
    assert 0.7 < row["cas"] <= row["cas_real"] + 0.05
    line = (tmp_path / "cas.md").read_text().splitlines()[2]
    assert line == f"| ours, mnist | {row['cas']:.4f} | {row['cas_real']:.4f} |  |  |  |"


@pytest.mark.long
def test_hands(monkeypatch, tmp_path):
    """Of the packaged digits: a hand is kept, and four pictures tell more of it than one."""
    monkeypatch.setattr(metrics, "_FONTS", 1)
    monkeypatch.setattr(
        reproduce.classifier,
        "load_or_train",
        lambda dataset, _: classifier.train(dataset, steps=200),
    )
    config = reproduce.ModelConfig(dataset="mnist_5k", output=str(tmp_path))
    reproduce.hands(config)
    (row,) = reproduce.studies.load_rows(tmp_path / "hands.json")
    assert row["nearest_hand_accuracy"] > 0.9 > row["nearest_hand_chance"] == 1 / 200
    assert 0.8 < row["hand_r2"] < 1
    assert row["hand_distance_several_pictures"] < row["hand_distance_one_picture"]
    assert 0.5 < row["hand_factor_r2"]["slant"] < 1
    assert row["font_accuracy"] >= 0.8
    line = (tmp_path / "hands.md").read_text().splitlines()[2]
    assert line.startswith(f"| ours, mnist | {row['nearest_hand_accuracy']:.3f} | 0.005 | ")


@pytest.mark.fault("flags", "unknown command", "one line that lists the commands; exit status 2")
def test_unknown_study_is_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        reproduce.reproduce("tabel1")
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("reproduce.py: error: unknown command tabel1 (did you mean table1?); ")
    assert error.endswith(f" {', '.join(reproduce.COMMANDS)}\n")


def test_validation_split_excludes_test_images():
    dataset = make_dataset(train=120)
    split = reproduce.studies.validation_split(dataset)
    assert (len(split.train_labels), len(split.test_labels)) == (100, 20)
    parts = np.concatenate([split.train_images, split.test_images])
    assert sorted(map(bytes, parts)) == sorted(map(bytes, dataset.train_images))


def panels_of(path):
    return reproduce.figures.unpack(json.loads(path.read_text())["panels"])


@pytest.mark.long
def test_supervised_baseline_learns_labelled_classes_only():
    dataset = make_dataset()
    test_accuracy = reproduce.studies.supervised_baseline.test_accuracy
    assert test_accuracy(dataset, 0, steps=100) == 1.0
    two_labels = dataset.with_labels(2, 0)
    assert test_accuracy(two_labels, 0, steps=100) < 0.75
