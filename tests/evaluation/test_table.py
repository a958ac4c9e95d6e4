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


def test_many_categories_are_not_listed():
    few = {"mse": 0.0, "category_to_class": [2, 0, 1]}
    assert "2 0 1" in format_table(few)
    assert "category_to_class" not in format_table({**few, "category_to_class": [0] * 21})
