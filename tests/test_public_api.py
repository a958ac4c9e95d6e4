"""The public contract: names, signatures, imports and examples."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from helpers import make_dataset

import jvae_jax
from jvae_jax import losses
from jvae_jax.export import export
from jvae_jax.objectives import OBJECTIVES

ROOT = Path(__file__).parents[1]
MODULES = [
    importlib.import_module(module.name)
    for module in pkgutil.walk_packages(jvae_jax.__path__, "jvae_jax.")
]
# Some exist on POSIX only, some have no wheels for every system.
UNAVAILABLE = {
    *("fcntl", "grp", "pwd", "resource", "termios", "array_record", "tensorflow"),
    *("tensorflow_datasets", "orbax", "matplotlib", "sklearn", "mlxtend", "simple_parsing"),
}
HEAVY_LIBRARIES = {
    *("matplotlib", "tensorflow_datasets", "tensorflow", "orbax", "sklearn"),
    *("jax2onnx", "simple_parsing", "scipy.optimize", "fontTools", "skimage"),
}
TEXTS = {path: path.read_text() for path in ROOT.joinpath("jvae_jax").rglob("*.py")}


PUBLIC_NAMES = {
    *("fit", "load", "evaluate", "TrainConfig", "Dataset"),
    *("Autoencoder", "Encoder", "Decoder", "Classifier"),
    *("OBJECTIVES", "VAE", "CVAE", "BetaVAE", "AnnealedVAE", "JointVAE", "Ours"),
    *("data", "evaluation", "generation", "losses", "sampling"),
}
TERMS = {"gaussian_kl", "categorical_kl", "label_kl", "bernoulli_nll", "squared_error"}


def test_public_names_exist_and_are_documented():
    assert set(jvae_jax.__all__) >= PUBLIC_NAMES
    assert set(losses.__all__) == TERMS | set(OBJECTIVES)
    for module in (jvae_jax, losses):
        assert len(set(module.__all__)) == len(module.__all__)
        for name in module.__all__:
            assert getattr(module, name).__doc__


def test_every_objective_is_public():
    for objective in OBJECTIVES.values():
        assert getattr(jvae_jax, objective.__name__) is objective
        assert issubclass(objective, jvae_jax.Objective)


def test_losses_have_documented_parameters():
    parameters = {
        name: list(inspect.signature(getattr(losses, name)).parameters) for name in losses.__all__
    }
    assert parameters["gaussian_kl"] == ["mean", "logvar"]
    assert parameters["categorical_kl"] == ["logits"]
    assert parameters["label_kl"] == ["logits", "labels"]
    assert parameters["bernoulli_nll"] == parameters["squared_error"] == ["logits", "images"]
    common = ["encode", "decode", "images", "gaussian_key"]
    joint = [*common, "gumbel_key", "beta", "gamma", "capacity_z", "capacity_c"]
    assert parameters["vae"] == [*common, "reconstruction_loss"]
    assert parameters["beta_vae"] == [*common, "beta", "reconstruction_loss"]
    assert parameters["annealed_vae"][:7] == [*common, "beta", "capacity_z", "multiplier_z"]
    unlabelled = ["augmented_images", "consistency_weight", "marginal_weight"]
    options = [
        *unlabelled,
        "information_weight",
        "prior_latents",
        "classify_decoded",
        "classify",
        "temperature",
        "reconstruction_loss",
        "axis_name",
    ]
    assert parameters["joint_vae"] == [*joint, "multiplier_z", "multiplier_c", *options]
    assert parameters["ours"] == [
        *joint[:3],
        "labels",
        *joint[3:],
        "unlabelled_capacity_c",
        "multiplier_z",
        "multiplier_c",
        "unlabelled_multiplier_c",
        "labelled_fraction",
        *options,
    ]
    assert set(unlabelled) < set(parameters["cvae"])
    assert parameters["cvae"][:7] == [
        "encode",
        "decode",
        "classify",
        "images",
        "labels",
        "gaussian_key",
        "alpha",
    ]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_random_keys_are_required_keywords(name):
    for parameter in inspect.signature(getattr(losses, name)).parameters.values():
        if parameter.name.endswith("_key"):
            assert parameter.kind is parameter.KEYWORD_ONLY
            assert parameter.default is parameter.empty


def test_no_random_key_has_a_default():
    for path, text in TEXTS.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                arguments = node.args
                names = [a.arg for a in arguments.args[-len(arguments.defaults) :]]
                named = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
                names = names if arguments.defaults else []
                names += [a.arg for a, default in named if default is not None]
                assert not [n for n in names if n == "key" or n.endswith("_key")], path


def test_each_heavy_library_is_imported_in_one_place():
    package = Path(jvae_jax.__file__).parent

    def files_with(condition):
        return {
            path.relative_to(package).as_posix() for path, text in TEXTS.items() if condition(text)
        }

    def importing(library):
        return files_with(re.compile(rf"^\s*(import|from) {library}\b", re.MULTILINE).search)

    def calls_pmap(text):
        nodes = ast.walk(ast.parse(text))
        return any(isinstance(node, ast.Attribute) and node.attr == "pmap" for node in nodes)

    assert importing("matplotlib") == {"plotting.py"}
    assert importing("tensorflow_datasets") == {"data/tfds.py"}
    assert importing("orbax") == {"training/checkpoints.py"}
    assert importing("jax2onnx") == {"export/onnx.py"}
    assert files_with(calls_pmap) == {"training/parallel.py"}


def test_import_is_fast_and_loads_no_heavy_library():
    """Half a second of processor time beyond jax, flax and optax, in the fastest of three."""
    program = (
        "import time, sys, jax, flax.linen, optax; started = time.process_time(); import jvae_jax;"
        "seconds = time.process_time() - started;"
        f"heavy = {HEAVY_LIBRARIES} & {{*sys.modules}};"
        "assert not heavy, heavy; print(seconds)"
    )
    seconds = [
        float(subprocess.check_output([sys.executable, "-c", program], text=True)) for _ in range(3)
    ]
    assert min(seconds) < 0.5


USE_OF_LOSSES_AND_MODEL = """
import jax
import jax.numpy as jnp
import numpy as np
import jvae_jax

def loss(mean, key):
    return jvae_jax.losses.vae(
        lambda images: jvae_jax.Posterior(mean, 0 * mean, None),
        lambda latents: latents.reshape(2, 3, 3, 1),
        jnp.full((2, 3, 3, 1), 0.5),
        gaussian_key=key,
    )[0]

key = jax.random.key(0)
value, gradient = jax.value_and_grad(loss)(jnp.ones((2, 9)), key)
model = jvae_jax.load("model")
images = jvae_jax.data.load("toy.npz", image_size=8).test_images
results = {
    "value": value,
    "gradient": gradient,
    "samples": model.sample(key=key, columns=2),
    "means": model.encode(images).mean,
    "restyled": model.restyle(images[:2]),
}
np.savez("results.npz", **results)
"""


@pytest.mark.fault(
    "environment",
    "libraries and POSIX modules that can't be imported",
    "import, losses, exported models and .npz files work without them",
)
def test_losses_and_exported_models_work_without_most_libraries(reference, tmp_path, monkeypatch):
    run, _ = reference
    export(run.model, run, tmp_path / "model", onnx=False)
    toy = make_dataset()
    splits = ("train_images", "train_labels", "test_images", "test_labels")
    np.savez(tmp_path / "toy.npz", **{name: getattr(toy, name) for name in splits})
    monkeypatch.chdir(tmp_path)
    # None in sys.modules makes an import fail.
    block = f"import sys; sys.modules.update(dict.fromkeys({sorted(UNAVAILABLE)}))"
    subprocess.run([sys.executable, "-c", f"{block}\n{USE_OF_LOSSES_AND_MODEL}"], check=True)
    without = dict(np.load("results.npz"))
    exec(USE_OF_LOSSES_AND_MODEL, expected := {})
    for name, array in expected["results"].items():
        np.testing.assert_allclose(without[name], array, atol=1e-5)


def test_docstring_examples_run():
    for module in [jvae_jax, *MODULES]:
        assert doctest.testmod(module).failed == 0


@pytest.mark.long
def test_readme_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_annotations_are_checked():
    """The tests' import hook checks them; for users they aren't checked."""
    with pytest.raises(jaxtyping.TypeCheckError):
        losses.gaussian_kl(jnp.zeros((2, 3)), jnp.zeros((2, 4)))
