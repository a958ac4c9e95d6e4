import jax.numpy as jnp
import numpy as np
import pytest

from jvae_jax.models import inference
from jvae_jax.models.inference import in_chunks, map_batches


@pytest.mark.parametrize("examples", [1, 4, 5, 8, 11])
def test_map_batches_keeps_order(examples):
    """Every example has one result, whatever the size of the last batch."""

    def function(values, squares):
        assert len(values) <= 4
        return {"sum": values + squares, "pair": jnp.stack([values, squares], axis=1)}

    values = jnp.arange(examples)
    results = map_batches(function, 4, values, values**2)
    np.testing.assert_array_equal(results["sum"], np.arange(examples) + np.arange(examples) ** 2)
    assert results["pair"].shape == (examples, 2)


@pytest.mark.parametrize("examples", [0, 1, 6, 7, 20])
@pytest.mark.parametrize(("bytes_at_a_time", "images_at_a_time"), [(1, 2), (400, 4), (10**6, 20)])
def test_chunks_bound_what_is_read_at_a_time(
    examples, bytes_at_a_time, images_at_a_time, monkeypatch
):
    """They have a batch at least."""
    monkeypatch.setattr(inference, "EVAL_BATCH_SIZE", 2)
    monkeypatch.setattr(inference, "CHUNK_BYTES", bytes_at_a_time)
    read = []

    def function(images, squares):
        read.append(len(images))
        return {"sum": jnp.sum(images, axis=(1, 2, 3)) + squares, "squares": squares}

    images = np.arange(examples * 80, dtype=np.uint8).reshape(examples, 8, 10, 1)
    squares = np.arange(examples) ** 2
    results = in_chunks(function, images, squares)
    np.testing.assert_array_equal(results["sum"], images.sum(axis=(1, 2, 3)) + squares)
    np.testing.assert_array_equal(results["squares"], squares)
    assert sum(read) == examples
    assert max(read) == min(examples, images_at_a_time)
