"""Selection of the labels that semi-supervised training keeps."""

import numpy as np
import pytest

from jvae_jax.data.labels import keep_labels

LABELS = np.array([0] * 50 + [1] * 40 + [2] * 3 + [-1] * 20, np.int32)


@pytest.mark.parametrize(
    ("count", "per_class"), [(0, [0, 0, 0]), (6, [2, 2, 2]), (21, [9, 9, 3]), (93, [50, 40, 3])]
)
def test_balances_classes(count, per_class):
    labels = keep_labels(LABELS, count, seed=3)
    kept = labels >= 0
    np.testing.assert_array_equal(labels[kept], LABELS[kept])
    np.testing.assert_array_equal(np.bincount(labels[kept], minlength=3), per_class)


def test_selection_depends_on_the_seed():
    first, same, other = (keep_labels(LABELS, 7, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()
    assert sorted(np.bincount(first[first >= 0])) == [2, 2, 3]
    selections = [keep_labels(LABELS, 4, seed) for seed in range(20)]
    largest = {int(np.bincount(labels[labels >= 0]).argmax()) for labels in selections}
    assert largest == {0, 1, 2}  # the class of the surplus label is random


@pytest.mark.fault(
    "flags", "values out of range or of another type", "refused with the name, the range, the value"
)
@pytest.mark.parametrize("count", [-1, 94, 10**30])
def test_rejects_counts_out_of_range(count):
    with pytest.raises(ValueError, match=f"must be from 0 to 93, .* got {count}"):
        keep_labels(LABELS, count, 0)
