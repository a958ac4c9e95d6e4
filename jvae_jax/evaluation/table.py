"""Text tables of metrics."""

from jvae_jax.evaluation.metrics import Evaluation

_SCALARS = (
    ("mse", 4, "reconstruction MSE per pixel (mean z, most probable c)"),
    ("mse_sampled", 4, "reconstruction MSE per pixel (one sample of z and c)"),
    ("reconstruction_nll", 2, "-log p(x|z,c), nats per image (mean z, most probable c)"),
    ("reconstruction_nll_sampled", 2, "-log p(x|z,c), nats per image (one sample of z and c)"),
    ("nll", 2, "-log p(x) by importance sampling, nats per image"),
    ("nll_standard_error", 2, "its standard error due to the choice of images"),
    ("nll_images", 0, "images of which it is the mean"),
    ("nll_samples", 0, "samples of z for each of them"),
    ("kl_z", 3, "KL of q(z|x) to the prior, nats per image"),
    ("kl_c_uniform", 4, "KL of q(c|x) to the uniform prior, nats per image"),
    ("kl_c_label", 4, "KL of q(c|x) to the label prior, nats per image"),
    ("accuracy", 4, "fraction of test images classified correctly by q(c|x)"),
    ("accuracy_unlabelled", 4, "the same for classes without labels in training"),
    ("mutual_information", 4, "I(c; y) of most probable c and label, nats"),
    ("label_entropy", 4, "H(y), upper bound of I(c; y), nats"),
    (
        "linear_probe_accuracy",
        4,
        "fraction of test images classified correctly by a linear probe on z",
    ),
    ("majority_class_accuracy", 4, "fraction of test images in the most frequent class"),
    (
        "eval_classifier_accuracy",
        4,
        "fraction of test images classified correctly by the classifier",
    ),
    ("conditional_accuracy", 4, "fraction of generated characters classified as requested"),
    ("cas", 4, "test accuracy of a classifier trained on generated characters alone"),
    ("cas_real", 4, "test accuracy of the classifier trained on real images"),
    ("cas_augmented", 4, "the same with generated characters added to the rare classes"),
    ("rare_class_accuracy_real", 4, "cas_real on the rare classes alone"),
    ("rare_class_accuracy_augmented", 4, "cas_augmented on the rare classes alone"),
    ("mig", 4, "mutual information gap of z and the measures of characters"),
    ("mig_within_classes", 4, "the same within classes"),
    ("sap", 4, "separated attribute predictability"),
    ("sap_within_classes", 4, "the same within classes"),
    ("dci_disentanglement", 4, "disentanglement of DCI"),
    ("dci_disentanglement_within_classes", 4, "the same within classes"),
    ("dci_completeness", 4, "completeness of DCI"),
    ("dci_completeness_within_classes", 4, "the same within classes"),
    ("dci_informativeness", 4, "informativeness of DCI: mean R^2 of random forests"),
    ("dci_informativeness_within_classes", 4, "the same within classes"),
    ("style_transfer_accuracy", 4, "fraction of restyled test images classified as requested"),
    ("style_r2", 4, "R^2 of z re-encoded from restyled images"),
    ("style_r2_shuffled", 4, "the same for shuffled pairs"),
    ("hand_r2", 4, "R^2 of z between hands and those estimated from texts in them"),
    ("nearest_hand_accuracy", 4, "fraction of texts whose own hand is the nearest of all"),
    ("nearest_hand_chance", 4, "that of random guesses"),
    ("hand_distance_one_picture", 2, "of a character in a hand of one picture from one left out"),
    ("hand_distance_several_pictures", 2, "the same in a hand of four pictures"),
    ("font_accuracy", 4, "fraction of glyphs of fonts classified as their character"),
    ("frechet_distance", 2, "generated characters to test images"),
    ("frechet_distance_real", 2, "training images to test images"),
    ("precision", 4, "fraction of generated characters in the 3-NN manifold of test images"),
    ("recall", 4, "fraction of test images in the 3-NN manifold of generated characters"),
    ("precision_real", 4, "the same precision of training images"),
    ("recall_real", 4, "the same recall of training images"),
    ("intra_class_frechet_distance", 2, "generated characters to test images, mean over classes"),
    ("intra_class_frechet_distance_real", 2, "training images to test images, mean over classes"),
)
"""Name, decimal places and description."""
_PER_LATENT = (
    ("kl_z_per_latent", "nats per image"),
    ("class_flip_rate_per_latent", "fraction of predictions changed by a traversal from -2 to 2"),
    ("style_r2_per_latent", "R^2 per latent, - if its mean hardly varies"),
)
_PER_FACTOR = (
    ("factor_r2", "R^2 of measures of characters from z"),
    ("factor_r2_within_classes", "the same within classes"),
    ("factor_c_information", "I(c; measure), nats"),
    ("style_control_r2", "R^2 within classes of requested and measured values"),
    ("hand_factor_r2", "squared correlation of a hand's picture and text"),
    ("style_control_conditional_accuracy", "conditional accuracy at requested values"),
)
_MAX_CATEGORIES = 20
"""Largest number of categories for which ``category_to_class`` fits into a line."""


def format_table(evaluation: Evaluation) -> str:
    """Formats metrics as a text table with the columns name, value, description.

    Args:
        evaluation: metrics by name, of any module of this package. Other entries are left out.
    """
    rows = [
        (name, f"{evaluation[name]:.{digits}f}", description)
        for name, digits, description in _SCALARS
        if evaluation.get(name) is not None
    ]
    for name, description in _PER_LATENT:
        if name in evaluation:
            values = ["-" if value is None else f"{value:.2f}" for value in evaluation[name]]
            rows.append((name, " ".join(values), description))
    for name, description in _PER_FACTOR:
        if name in evaluation:
            values = [f"{factor} {value:.2f}" for factor, value in evaluation[name].items()]
            rows.append((name, ", ".join(values), description))
    category_to_class = evaluation.get("category_to_class", ())
    if 0 < len(category_to_class) <= _MAX_CATEGORIES:
        values = " ".join(map(str, category_to_class))
        rows.append(("category_to_class", values, "class of each category c"))
    width = max([13, *(len(name) for name, *_ in rows)])
    return "\n".join(
        f"{name:{width}} {value:>8}  {description}" for name, value, description in rows
    )
