"""JAX options that decide results, fixed while models are trained and evaluated."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax
import jax.experimental

# jax.experimental has it up to jax 0.8, jax from then on.
_enable_x64 = (jax if hasattr(jax, "enable_x64") else jax.experimental).enable_x64  # type: ignore


@contextmanager
def default_numerics() -> Iterator[None]:
    """Fixes random bits, types and promotion to JAX's defaults; a context manager and decorator.

    Results then don't depend on ``JAX_DEFAULT_PRNG_IMPL``, ``JAX_THREEFRY_PARTITIONABLE``,
    ``JAX_ENABLE_X64``, ``JAX_NUMPY_DTYPE_PROMOTION`` and ``JAX_NUMPY_RANK_PROMOTION``, nor on their
    counterparts in ``jax.config``. Only the current thread is affected.
    """
    with (
        jax.default_prng_impl("threefry2x32"),
        jax.threefry_partitionable(True),
        _enable_x64(False),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        yield
