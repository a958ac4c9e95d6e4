# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # The losses in your own code
#
# `jvae_jax.losses` are pure functions of any `encode` and `decode`. This notebook trains a
# multilayer perceptron, defined here, on scikit-learn's digits of 8 x 8 pixels.

# %% tags=["parameters"]
EPOCHS = 200
SOURCE = ""  # what pip installs jvae_jax from: "git+https://..." or the folder of a clone

# %% [markdown]
# ## Installation
#
# Installed packages keep their versions, above all Colab's own jax.

# %%
import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

if importlib.util.find_spec("jvae_jax") is None:
    if not SOURCE:
        raise ValueError("set SOURCE, in the first cell, to what pip installs jvae_jax from")
    installed = {
        d.metadata["Name"]: d.version for d in importlib.metadata.distributions() if d.version
    }
    lines = [f"{name}=={version}\n" for name, version in installed.items() if name]
    Path("constraints.txt").write_text("".join(lines))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "-c", "constraints.txt", SOURCE]
    subprocess.run(command, check=True)

# %% [markdown]
# ## Data and network
#
# The encoder returns `Posterior(mean, logvar, logits)`. The decoder takes z and c, concatenated,
# and returns image *logits*: the loss applies the sigmoid.

# %%
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

from jvae_jax import Posterior, losses

digits = load_digits()
images = jnp.asarray(digits.images[..., None] / 16, jnp.float32)
labels = jnp.asarray(digits.target)
test, train = slice(0, 300), slice(300, None)
LATENTS, CLASSES = 3, 10


class Network(nn.Module):
    def setup(self):
        self.encoder = nn.Sequential([nn.Dense(128), nn.relu, nn.Dense(2 * LATENTS + CLASSES)])
        self.decoder = nn.Sequential([nn.Dense(128), nn.relu, nn.Dense(64)])

    def encode(self, images):
        outputs = self.encoder(images.reshape(len(images), -1))
        return Posterior(*jnp.split(outputs, [LATENTS, 2 * LATENTS], axis=-1))

    def decode(self, latents):
        return self.decoder(latents).reshape(-1, 8, 8, 1)

    def __call__(self, images):
        posterior = self.encode(images)
        return self.decode(jnp.concatenate([posterior.mean, posterior.logits], axis=-1))


network = Network()
params = network.init(jax.random.key(0), images[:1])

# %% [markdown]
# ## Loss
#
# Equation 10. Random keys are explicit: one for the Gaussian noise of z, one for the Gumbel noise
# of c. The capacity C_z increases from 0 to 3 nats over the first half of training.

# %%
STEPS = EPOCHS * (len(images[train]) // 64)


def loss(params, images, labels, step, key):
    bound = network.bind(params)
    gaussian_key, gumbel_key = jax.random.split(key)
    return losses.ours(
        bound.encode,
        bound.decode,
        images,
        labels,
        gaussian_key=gaussian_key,
        gumbel_key=gumbel_key,
        beta=10.0,
        gamma=10.0,
        capacity_z=3.0 * jnp.minimum(2 * step / STEPS, 1.0),
        capacity_c=0.0,
        temperature=0.67,
    )


# %% [markdown]
# ## Training
#
# A standard optax loop. The loss also returns its terms, in nats for each image.

# %%
optimizer = optax.adam(1e-3)


@jax.jit
def train_step(params, opt_state, step, key):
    batch_key, noise_key = jax.random.split(jax.random.fold_in(key, step))
    indices = jax.random.randint(batch_key, (64,), 300, len(images))
    gradients, terms = jax.grad(loss, has_aux=True)(
        params, images[indices], labels[indices], step, noise_key
    )
    updates, opt_state = optimizer.update(gradients, opt_state)
    return optax.apply_updates(params, updates), opt_state, terms


opt_state = optimizer.init(params)
for step in range(STEPS):
    params, opt_state, terms = train_step(params, opt_state, step, jax.random.key(1))
    if step % max(1, STEPS // 8) == 0 or step == STEPS - 1:
        means = {k: float(v.mean()) for k, v in terms._asdict().items() if v is not None}
        print(step, "  ".join(f"{name} {mean:.3f}" for name, mean in means.items()))

# %% [markdown]
# ## Classification and conditional generation
#
# The most probable c is the predicted label. A one-hot c selects the digit to generate: rows fix c,
# columns fix z.

# %%
# %matplotlib inline
from jvae_jax import plotting

bound = network.bind(params)
predicted = bound.encode(images[test]).logits.argmax(-1)
accuracy = (predicted == labels[test]).mean()
print(f"accuracy on {len(predicted)} test images: {accuracy:.3f}")

styles = jax.random.normal(jax.random.key(2), (10, LATENTS))
latents = jnp.concatenate([jnp.tile(styles, (10, 1)), jnp.eye(10).repeat(10, axis=0)], axis=-1)
generated = jax.nn.sigmoid(bound.decode(latents)).reshape(10, 10, 8, 8, 1)
padded = np.pad(generated, [(0, 0), (0, 0), (1, 1), (1, 1), (0, 0)])
plotting.image_grid(padded, list(map(str, range(10))))
