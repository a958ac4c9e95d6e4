import jax.numpy as jnp
import numpy as np
import pytest

from jvae_jax.models.inference import map_batches


@pytest.mark.parametrize("examples", [1, 4, 5, 8, 11])
def test_every_example_once_and_in_order(examples):
    """Whatever is left over when batches are full; batches never exceed their size."""

    def function(values, squares):
        assert len(values) <= 4
        return {"sum": values + squares, "pair": jnp.stack([values, squares], axis=1)}

    values = jnp.arange(examples)
    found = map_batches(function, 4, values, values**2)
    np.testing.assert_array_equal(found["sum"], np.arange(examples) + np.arange(examples) ** 2)
    assert found["pair"].shape == (examples, 2)
