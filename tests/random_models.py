"""Models with random parameters, for tests of what doesn't depend on training."""

import jax
import jax.numpy as jnp
import numpy as np

from jvae_jax import TrainedModel
from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.style_controls import FACTORS, StyleControls

NETWORKS = {
    "categorical": Autoencoder((32, 32, 1), 10, 10),
    "conditional": Autoencoder((28, 28, 1), 3, 4, conditional=True),
    "continuous": Autoencoder((12, 20, 3), 2, 0, depth=4),
    "fixed dimensions": Autoencoder((8, 8, 1), 5, 2, fixed_latents=2),
}


def random_model(network, **attributes):
    """A model with random parameters and batch statistics."""
    images = jnp.zeros((2, *network.image_shape))
    variables = network.init(jax.random.key(0), images)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda each: each * rng.uniform(1, 2, each.shape), variables["params"])
    statistics = jax.tree.map(
        lambda each: each * rng.uniform(0.1, 0.5, each.shape), variables["batch_stats"]
    )
    variables = jax.tree.map(jnp.float32, {"params": params, "batch_stats": statistics})
    names = tuple("abcdefghij"[: network.classes]) or ("a", "b")
    return TrainedModel(network=network, variables=variables, class_names=names, **attributes)


def random_controls(network, r2):
    rng = np.random.default_rng(0)
    sizes = network.classes, len(FACTORS), network.latents
    quadratic = 0.1 * rng.normal(size=(*sizes, network.latents))
    return StyleControls(
        intercepts=rng.normal(size=sizes[:2]),
        weights=rng.normal(size=sizes),
        quadratic=quadratic + quadratic.swapaxes(2, 3),
        lowest=np.full(sizes[:2], -3.0),
        highest=np.full(sizes[:2], 3.0),
        r2=np.array(r2, float),
        map_r2=np.array(r2, float),
    )
