"""Training: configuration, steps, checkpoints and the complete run.

``config`` is the configuration; ``step``, ``batching`` and ``parallel`` are pure functions under
``jit`` and ``pmap`` or ``shard_map``; ``feeding`` gives them their examples; ``loop`` has
:func:`fit`; ``run``, ``run_writer`` and ``checkpoints`` are the run's folder; ``distributed``
connects several processes.
"""

from jvae_jax.training.checkpoints import CheckpointError
from jvae_jax.training.config import TrainConfig
from jvae_jax.training.loop import DivergedError, evaluate_run, fit
from jvae_jax.training.run import Run, load, load_run

__all__ = [
    "CheckpointError",
    "DivergedError",
    "Run",
    "TrainConfig",
    "evaluate_run",
    "fit",
    "load",
    "load_run",
]
