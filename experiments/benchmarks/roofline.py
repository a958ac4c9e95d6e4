"""Time of a training step on accelerators, on paper: by XLA's cost analysis and data sheets.

    python experiments/benchmarks/roofline.py

prints it. The program is lowered for a TPU on any machine. Its bytes are those
of each operation alone, read and written; the fusion of operations leaves some of them out.
"""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jvae_jax import TrainConfig
from jvae_jax.sampling import example_keys
from jvae_jax.training.provenance import environment
from jvae_jax.training.step import state_shape, train_step
from jvae_jax.types import Batch


class Accelerator(NamedTuple):
    """Figures of a data sheet.

    Attributes:
        name: name of the chip.
        flops: operations a second of float32 products in JAX's default precision, which is
            bfloat16 on TPUs and TF32 on GPUs.
        bandwidth: bytes a second between chip and memory.
    """

    name: str
    flops: float
    bandwidth: float


ACCELERATORS = (Accelerator("TPU v5e", 197e12, 819e9), Accelerator("H100 SXM", 494.7e12, 3.35e12))
BATCH_SIZES = (64, 1024, 8192)
FIXED_SHARE = 0.1
"""Share of a step's traffic that doesn't depend on the batch, below which a batch is large."""


def step_cost(batch_size: int) -> tuple[float, float]:
    """Operations, and bytes read and written, of a training step of the paper's ``ours``."""
    config = TrainConfig()
    objective = config.objective.resolve(config.epochs * 1000.0, config.epochs)
    network = config.make_network(image_shape=(32, 32, 1), classes=10)
    optimizer = optax.adam(config.learning_rate)
    images: Any = jax.ShapeDtypeStruct((batch_size, 32, 32, 1), np.uint8)
    labels: Any = jax.ShapeDtypeStruct((batch_size,), np.int32)
    batch = Batch(images, labels)
    keys = jax.eval_shape(lambda: example_keys(jax.random.key(0), 0, jnp.arange(batch_size)))
    traced = jax.jit(train_step, static_argnums=(0, 1, 2)).trace(
        objective, network, optimizer, state_shape(network, optimizer), batch, keys
    )
    cost: Any = traced.lower(lowering_platforms=("tpu",)).cost_analysis()
    return cost["flops"], cost["bytes accessed"]


def rows() -> list[str]:
    """Lines of the table: a batch size on an accelerator each."""
    costs = {batch_size: step_cost(batch_size) for batch_size in BATCH_SIZES}
    lines = []
    for chip, (batch_size, (flops, size)) in itertools.product(ACCELERATORS, costs.items()):
        computing, moving = 1000 * flops / chip.flops, 1000 * size / chip.bandwidth
        lines.append(
            f"| {chip.name} | {batch_size:,} | {flops / 1e9:.1f} | {size / 1e9:.2f} "
            f"| {computing:.3f} | {moving:.2f} | {moving / computing:.0f} |"
        )
    return lines


def large_batch() -> int:
    """Images from which the traffic that doesn't depend on the batch is a small share."""
    (_, small), (_, large) = step_cost(1024), step_cost(2048)
    per_image = (large - small) / 1024
    fixed = small - 1024 * per_image
    return round(fixed * (1 - FIXED_SHARE) / FIXED_SHARE / per_image)


def report() -> str:
    """Formats the table in Markdown."""
    lines = [
        "| chip | images a step | GFLOP | GB | arithmetic (ms) | memory (ms) | ratio |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        *rows(),
        "",
        f"From {large_batch()} images per device on, less than {FIXED_SHARE:.0%} of the traffic is "
        f"that of the parameters. `python experiments/benchmarks/roofline.py`; commit "
        f"`{environment()['commit']}`, jax {environment()['jax']}.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(report())
