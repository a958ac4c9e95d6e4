"""The floating-point operations of a training step, counted by hand."""

from collections.abc import Iterator

from jvae_jax.models.autoencoder import FILTERS, HIDDEN, STRIDE, Autoencoder


def train_step_flops(model: Autoencoder, batch_size: int, *, as_products: bool = False) -> int:
    """Operations of the matrix products and convolutions of one step, forward and backward.

    What passes over activations one by one is left out; it adds a few per cent.

    Args:
        model: any objective's but the CVAE's.
        batch_size: images in the step.
        as_products: count what :mod:`jvae_jax.models.layers` computes on CPU, where the blocks at the
            border are padded. Otherwise 16 taps for each output, as is usual.

    Returns:
        Two for each multiplication and addition.

    Raises:
        ValueError: if the model is conditional.
    """
    if model.conditional:
        raise ValueError("the operations of a conditional model aren't counted")
    products = list(_products(model, as_products))
    # One product forward, and one each for the gradients of the weights and of the inputs; the
    # images that the first layer gets need none.
    return 2 * batch_size * (3 * sum(products) - products[0])


def _products(model: Autoencoder, as_products: bool) -> Iterator[int]:
    """The multiplications of each layer for one image, the first layer's first."""
    height, width, channels = model.image_shape

    def conv(inputs: int, shrunk: int) -> int:
        """From ``inputs`` channels, or to as many where transposed, at 1 / ``shrunk`` the size."""
        rows, columns = height // shrunk, width // shrunk
        if as_products and 4 * inputs > FILTERS:
            rows, columns = rows + 1, columns + 1
        return 16 * rows * columns * inputs * FILTERS

    flat = height // STRIDE * width // STRIDE * FILTERS
    latents = model.latents + model.classes
    for _network in ("encoder", "decoder"):
        yield conv(channels, 2)
        yield conv(FILTERS, 4)
        yield conv(FILTERS, 8)
        yield flat * HIDDEN
    yield HIDDEN * (2 * model.latents + model.classes)
    yield latents * HIDDEN
