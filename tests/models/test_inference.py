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


@pytest.mark.parametrize("examples", [0, 1, 4, 5, 11])
def test_chunks_bound_what_is_read_at_a_time(examples, monkeypatch):
    monkeypatch.setattr(inference, "CHUNK_SIZE", 4)
    read = []

    def function(values, squares):
        read.append(len(values))
        return {"sum": jnp.asarray(values) + squares, "pair": np.stack([values, squares], axis=1)}

    values = np.arange(examples)
    results = in_chunks(function, values, values**2)
    np.testing.assert_array_equal(results["sum"], values + values**2)
    np.testing.assert_array_equal(results["pair"], np.stack([values, values**2], axis=1))
    assert sum(read) == examples
    assert max(read) <= 4
