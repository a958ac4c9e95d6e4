"""Weights that belong to a class: taken from a trained model, and permuted."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Int

from jvae_jax.models.autoencoder import Autoencoder
from jvae_jax.training.step import TrainState
from jvae_jax.types import Variables

_NO_AXIS = -1
"""Axis of the classes of a variable that has none."""


def transfer_variables(
    network: Autoencoder,
    variables: Variables,
    source_network: Autoencoder,
    source: Variables,
    source_classes: Sequence[int | None],
) -> Variables:
    """Replaces a network's initial variables by those of a trained model.

    The weights that belong to a class, which are those of the logits and of the one-hot c or label,
    are taken from the model's class of the same name, and stay if it has none.

    Args:
        network: unbound linen module.
        variables: its initial variables.
        source_network: network of the trained model.
        source: variables of the trained model.
        source_classes: for each class of the network, the index of the same class of the trained
            model, or None; empty if the network has no classes.

    Returns:
        Variables of the network.

    Raises:
        ValueError: if the networks differ in more than their classes.
    """
    there, here = _structure(source_network), _structure(network)
    differences = [
        f"{name} is {there[name]} there and {here[name]} here"
        for name in here
        if there[name] != here[name]
    ]
    if differences:
        raise ValueError("; ".join(differences))
    axes = _class_axes(network)
    initial, trained = (flatten_dict(tree) for tree in (variables, source))
    result = {
        name: _by_class(initial[name], array, axes[name], source_classes) if name in axes else array
        for name, array in trained.items()
    }
    # Copies, since a training step reuses the memory of its arguments.
    return unflatten_dict({name: jnp.array(array) for name, array in result.items()})


def permute_categories(
    network: Autoencoder,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    categories: Int[np.ndarray, "classes"],
) -> TrainState:
    """Permutes the values of c in a state of training.

    Args:
        network: unbound linen module, with classes.
        optimizer: the optimizer that made the state; its moments are permuted too.
        state: state of training.
        categories: index before the permutation of each value of c, a permutation of
            ``range(classes)``.

    Returns:
        The state of the same model with its values of c renumbered, on the host.
    """
    class_axes = _class_axes(network)
    axes = {name: class_axes.get(name, _NO_AXIS) for name in flatten_dict(state.variables)}
    tree_of_axes = unflatten_dict(axes)

    def permute(array: Any, axis: int) -> np.ndarray:
        array = np.asarray(array)
        return array if axis == _NO_AXIS else _by_class(array, array, axis, categories.tolist())

    return state._replace(
        variables=jax.tree.map(permute, state.variables, tree_of_axes),
        average=jax.tree.map(permute, state.average, tree_of_axes),
        opt_state=optax.tree_utils.tree_map_params(
            optimizer, permute, state.opt_state, tree_of_axes["params"]
        ),
    )


def _structure(network: Autoencoder) -> dict[str, Any]:
    """What must be equal in two networks, by names of flags where there are any."""
    return {
        "image shape": network.image_shape,
        "latents": network.latents,
        "fixed_latents": network.fixed_latents,
        "depth": network.depth,
        "with classes": network.classes > 0,
        "conditional_encoder": network.conditional,
    }


def _class_axes(network: Autoencoder) -> dict[Any, int]:
    """Axis of the classes, which come last along it, of each variable that has one."""
    if not network.classes:
        return {}
    shapes, larger = _shapes(network), _shapes(network.clone(classes=network.classes + 1))
    return {
        name: axis
        for name, shape in shapes.items()
        for axis, (size, grown) in enumerate(zip(shape, larger[name], strict=True))
        if size != grown
    }


def _shapes(network: Autoencoder) -> dict[Any, tuple[int, ...]]:
    images = jnp.zeros((1, *network.image_shape), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), images)
    leaves: dict[Any, Any] = flatten_dict(dict(variables))
    return {name: leaf.shape for name, leaf in leaves.items()}


def _by_class(initial: Any, trained: Any, axis: int, source_classes: Sequence[int | None]) -> Any:
    """The trained array with one entry for each class of the network."""
    initial, trained = (np.moveaxis(np.array(array), axis, 0) for array in (initial, trained))
    classes = len(source_classes)
    shared = len(initial) - classes
    initial[:shared] = trained[:shared]
    for label, index in enumerate(source_classes):
        if index is not None:
            initial[shared + label] = trained[shared + index]
    return np.moveaxis(initial, 0, axis)
