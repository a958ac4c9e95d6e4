from jvae_jax.evaluation import format_table


def test_values_are_aligned():
    evaluation = {"step": 3, "mse": 0.01414, "kl_z": 5.08, "conditional_accuracy": 0.9997}
    assert [line[:29] for line in format_table(evaluation).splitlines()] == [
        "mse                    0.0141",
        "kl_z                    5.080",
        "conditional_accuracy   0.9997",
    ]


def test_missing_values_per_latent_are_dashes():
    assert " 0.25 -  " in format_table({"style_r2_per_latent": [0.25, None]})


def test_undefined_values_have_no_row():
    assert format_table({"nll": 1.5, "nll_standard_error": None}).split()[:2] == ["nll", "1.50"]
    assert "nll_standard_error" not in format_table({"nll_standard_error": None})


def test_many_categories_are_not_listed():
    few = {"mse": 0.0, "category_to_class": [2, 0, 1]}
    assert "2 0 1" in format_table(few)
    assert "category_to_class" not in format_table({**few, "category_to_class": [0] * 21})


DECIMALS = {
    "mse": 4,
    "mse_sampled": 4,
    "reconstruction_nll": 2,
    "reconstruction_nll_sampled": 2,
    "nll": 2,
    "nll_standard_error": 2,
    "nll_images": 0,
    "nll_samples": 0,
    "kl_z": 3,
    "kl_c_uniform": 4,
    "kl_c_label": 4,
    "accuracy": 4,
    "accuracy_unlabelled": 4,
    "mutual_information": 4,
    "label_entropy": 4,
    "linear_probe_accuracy": 4,
    "majority_class_accuracy": 4,
    "eval_classifier_accuracy": 4,
    "conditional_accuracy": 4,
    "style_transfer_accuracy": 4,
    "style_r2": 4,
    "style_r2_shuffled": 4,
    "frechet_distance": 2,
    "frechet_distance_real": 2,
    "intra_class_frechet_distance": 2,
    "intra_class_frechet_distance_real": 2,
}


def test_every_metric_has_a_row_with_its_decimals():
    """In this order, whatever that of the evaluation, followed by the values per latent."""
    per_latent = {
        "kl_z_per_latent": [1 / 3, 2.0],
        "class_flip_rate_per_latent": [0.125, 1.0],
        "style_r2_per_latent": [None, -0.5],
    }
    evaluation = {**per_latent, **dict.fromkeys(reversed(DECIMALS), 2 / 3), "examples": 9}
    rows = [line.split(maxsplit=2) for line in format_table(evaluation).splitlines()]
    assert [(name, value) for name, value, _ in rows] == [
        *((name, f"{2 / 3:.{decimals}f}") for name, decimals in DECIMALS.items()),
        ("kl_z_per_latent", "0.33"),
        ("class_flip_rate_per_latent", "0.12"),
        ("style_r2_per_latent", "-"),
    ]
    assert [rest[:5] for *_, rest in rows[-3:]] == ["2.00 ", "1.00 ", "-0.50"]
    width = len("intra_class_frechet_distance_real")
    assert all(
        line[width] == " " != line[width + 1 :].lstrip()[0]
        for line in format_table(evaluation).splitlines()
    )


def test_twenty_categories_are_listed_and_none_are_not():
    listed = format_table({"category_to_class": [*range(20)]})
    assert listed.split()[:21] == ["category_to_class", *map(str, range(20))]
    assert format_table({"category_to_class": []}) == ""
    assert format_table({"unknown": 1}) == ""


def test_values_per_factor_are_named():
    (line,) = format_table({"factor_r2": {"slant": 0.934, "width": -0.1}}).splitlines()
    assert line.split()[:5] == ["factor_r2", "slant", "0.93,", "width", "-0.10"]
