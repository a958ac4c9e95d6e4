"""Analytic count of the floating-point operations of a training step."""

from collections.abc import Iterator

from jvae_jax.models.autoencoder import FILTERS, HIDDEN, Autoencoder, padded


def train_step_flops(model: Autoencoder, batch_size: int, *, as_products: bool = False) -> int:
    """Operations of the matrix products and convolutions of one step, forward and backward.

    Element-wise operations are left out; they add a few per cent.

    Args:
        model: model of any objective but the CVAE.
        batch_size: images per step.
        as_products: count the padded matrix products that :mod:`jvae_jax.models.layers` uses on
            CPU, instead of 16 taps per output.

    Returns:
        Number of operations; a multiply-add counts as two.

    Raises:
        ValueError: if the model is conditional.
    """
    if model.conditional:
        raise ValueError("conditional models aren't supported")
    products = list(_products(model, as_products))
    # Each product occurs once forward and twice backward (weights and inputs); the first layer
    # needs no gradient of its inputs.
    return 2 * batch_size * (3 * sum(products) - products[0])


def _products(model: Autoencoder, as_products: bool) -> Iterator[int]:
    """Multiplications of each layer for one image, from the first layer on."""
    depth = model.depth
    height, width = (padded(size, depth) for size in model.image_shape[:2])
    channels = model.image_shape[2]

    def conv(other_channels: int, scale: int) -> int:
        """Convolution from ``other_channels`` to ``FILTERS`` channels, or its transpose.

        The side with ``FILTERS`` channels has 1 / ``scale`` of the image's height and width.
        """
        rows, columns = height // scale, width // scale
        if as_products and 4 * other_channels > FILTERS:
            rows, columns = rows + 1, columns + 1
        return 16 * rows * columns * other_channels * FILTERS

    flat = (height >> depth) * (width >> depth) * FILTERS
    latents = model.latents + model.classes
    for _network in ("encoder", "decoder"):
        yield conv(channels, 2)
        for layer in range(2, depth + 1):
            yield conv(FILTERS, 2**layer)
        yield flat * HIDDEN
    yield HIDDEN * (2 * model.latents + model.classes)
    yield latents * HIDDEN
