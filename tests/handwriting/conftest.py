import pytest

import jvae_jax


@pytest.fixture(scope="session")
def digits():
    return jvae_jax.load("digits")
