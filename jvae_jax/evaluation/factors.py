"""Disentanglement scores: how the dimensions of z relate to factors of variation.

Factors are measured quantities such as :class:`~jvae_jax.evaluation.morphology.Morphology`. Every
score is of arrays, and so of any model.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float

Latents = Float[np.ndarray, "examples latents"]
Factors = Float[np.ndarray, "examples factors"]
PerFactor = Float[np.ndarray, "factors"]
Matrix = Float[np.ndarray, "latents factors"]

_BINS = 20
"""Bins of equal width into which values are discretised for mutual information."""
_TREES = 20
"""Trees of each random forest of DCI."""
_INFORMATIVE_KL = 0.01
"""KL above which a dimension of z is informative, in nats, as in Duan et al."""


def linear_r2(
    train_z: Latents,
    train_factors: Factors,
    test_z: Float[np.ndarray, "others latents"],
    test_factors: Float[np.ndarray, "others factors"],
) -> PerFactor:
    """R^2 on the test split of a linear regression of each factor from z.

    Args:
        train_z: latents to fit the regression to, (examples, latents).
        train_factors: their factors, (examples, factors).
        test_z: latents to predict factors from, (others, latents).
        test_factors: their factors, (others, factors).

    Returns:
        R^2, (factors,): 1 for perfect predictions, 0 for the mean; below 0 for worse.
    """
    # sklearn takes a second to import.
    from sklearn.linear_model import LinearRegression
    from sklearn.metrics import r2_score

    predicted = LinearRegression().fit(train_z, train_factors).predict(test_z)
    return np.asarray(r2_score(test_factors, predicted, multioutput="raw_values"))


def dci(
    train_z: Latents,
    train_factors: Factors,
    test_z: Float[np.ndarray, "others latents"],
    test_factors: Float[np.ndarray, "others factors"],
) -> dict[str, float]:
    """Disentanglement, completeness and informativeness.

    A random forest predicts each factor from z. Disentanglement is high if each dimension of z is
    important for one factor, weighted by the dimension's total importance; completeness if for each
    factor one dimension is important.

    Args:
        train_z: latents to fit the forests to, (examples, latents).
        train_factors: their factors, (examples, factors).
        test_z: latents to predict factors from, (others, latents).
        test_factors: their factors, (others, factors).

    Returns:
        ``disentanglement`` and ``completeness``, from 0 to 1, and ``informativeness``, the mean R^2
        of the forests on the test split.

    References:
        Eastwood and Williams, *A Framework for the Quantitative Evaluation of Disentangled
        Representations*, 2018.
    """
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.metrics import r2_score

    importances, scores = [], []
    for train_factor, test_factor in zip(train_factors.T, test_factors.T, strict=True):
        forest: Any = RandomForestRegressor(_TREES, random_state=0).fit(train_z, train_factor)
        importances.append(forest.feature_importances_)
        scores.append(r2_score(test_factor, forest.predict(test_z)))
    matrix = np.stack(importances, axis=1)
    weights = matrix.sum(axis=1) / matrix.sum()
    return {
        "disentanglement": float(weights @ _concentration(matrix)),
        "completeness": float(_concentration(matrix.T).mean()),
        "informativeness": float(np.mean(scores)),
    }


def _concentration(importances: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows"]:
    """1 minus the entropy of each row, relative to that of equal importances."""
    from scipy.stats import entropy

    columns = importances.shape[1]
    if columns == 1:
        return np.ones(len(importances))
    rows = np.where(importances.sum(axis=1, keepdims=True) > 0, importances, 1)
    return 1 - np.asarray(entropy(rows, axis=1)) / np.log(columns)


def mutual_information(z: Latents, factors: Factors, *, discrete_z: bool = False) -> Matrix:
    """Mutual information of each dimension of z and each factor, in nats, (latents, factors).

    Both are discretised into 20 bins of equal width, but for z if it is discrete already.
    """
    from sklearn.metrics import mutual_info_score

    binned_z, binned_factors = list(z.T) if discrete_z else _binned(z), _binned(factors)
    return np.array(
        [[mutual_info_score(latent, factor) for factor in binned_factors] for latent in binned_z]
    )


def mutual_information_gap(z: Latents, factors: Factors) -> float:
    """Mean over factors of the gap between the two most informative dimensions of z.

    The gap of mutual information is divided by the factor's entropy, and so from 0 to 1.

    References:
        Chen, Li, Grosse and Duvenaud, *Isolating Sources of Disentanglement in VAEs*, 2018.
    """
    from sklearn.metrics import mutual_info_score

    entropies = [mutual_info_score(factor, factor) for factor in _binned(factors)]
    return float(np.mean(_gap(mutual_information(z, factors)) / entropies))


def separated_attribute_predictability(z: Latents, factors: Factors) -> float:
    """Mean over factors of the gap between the R^2 of the two most predictive dimensions of z.

    R^2 is that of a linear regression of the factor from one dimension.

    References:
        Kumar, Sattigeri and Balakrishnan, *Variational Inference of Disentangled Latent Concepts
        from Unlabeled Observations*, 2018.
    """
    return float(np.mean(_gap(_correlations(z, factors) ** 2)))


def _binned(values: Float[np.ndarray, "examples columns"]) -> list[np.ndarray]:
    return [np.digitize(column, np.histogram_bin_edges(column, _BINS)[1:-1]) for column in values.T]


def _correlations(z: Latents, factors: Factors) -> Matrix:
    """Pearson correlations; 0 for a constant."""

    def standardise(values: Float[np.ndarray, "examples columns"]) -> np.ndarray:
        deviations = values.std(axis=0, dtype=np.float64)
        centred = values - values.mean(axis=0, dtype=np.float64)
        return centred / np.where(deviations > 0, deviations, 1)

    return standardise(z).T @ standardise(factors) / len(z)


def _gap(values: Matrix) -> PerFactor:
    """Difference between the two highest values of each factor."""
    second, first = np.sort(values, axis=0)[-2:]
    return first - second


def unsupervised_disentanglement_ranking(
    latents: Sequence[Latents], kls: Sequence[Float[np.ndarray, "latents"]]
) -> Float[np.ndarray, "models"]:
    """Scores models by the similarity of their latents, up to order and sign, to those of others.

    Similarity is Spearman's rank correlation. A dimension of one model counts if it resembles one
    informative dimension of the other model and no second one.

    Args:
        latents: of each model, latents of the same examples, (examples, latents).
        kls: of each model, the KL divergence of each dimension in nats, (latents,); dimensions
            below 0.01 nats aren't informative.

    Returns:
        The median of each model's pairwise scores, from 0 to 1, (models,).

    Raises:
        ValueError: if there are fewer than two models.

    References:
        Duan et al., *Unsupervised Model Selection for Variational Disentangled Representation
        Learning*, 2020.
    """
    from scipy.stats import rankdata

    if len(latents) < 2:
        raise ValueError(f"the ranking compares two or more models, got {len(latents)}")
    ranks = [rankdata(z, axis=0) for z in latents]
    scores = np.full((len(latents), len(latents)), np.nan)
    for first, second in combinations(range(len(latents)), 2):
        similarity = np.abs(_correlations(ranks[first], ranks[second]))
        informative = [kls[model] > _INFORMATIVE_KL for model in (first, second)]
        total = sum(
            _specific(matrix, *of)
            for matrix, of in ((similarity, informative), (similarity.T, informative[::-1]))
        )
        count = sum(int(each.sum()) for each in informative)
        scores[first, second] = scores[second, first] = total / max(count, 1)
    return np.nanmedian(scores, axis=1)


def _specific(
    similarity: Float[np.ndarray, "latents others"],
    informative: np.ndarray,
    others_informative: np.ndarray,
) -> float:
    """Sum over informative latents of the highest similarity squared, over the sum of all."""
    similarity = similarity[informative][:, others_informative]
    if not similarity.size:
        return 0.0
    totals = similarity.sum(axis=1)
    return float(np.sum(similarity.max(axis=1) ** 2 / np.where(totals > 0, totals, 1)))
