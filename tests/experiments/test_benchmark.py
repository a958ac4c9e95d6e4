"""The benchmark as a user starts it, and that its contestants do the same work."""

import json
import subprocess
import sys
from pathlib import Path

import benchmark
import jax
import jax.numpy as jnp
import pytest
from benchmarks.with_linen import LinenAutoencoder

from jvae_jax import Autoencoder

ROOT = Path(__file__).parents[2]
KEPT = json.loads((ROOT / "experiments/results/benchmark-cpu.json").read_text())


def parameters(model):
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 1)))
    return sorted(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def test_linens_network_is_the_same():
    assert parameters(LinenAutoencoder((32, 32, 1))) == parameters(Autoencoder((32, 32, 1)))


def test_pytorchs_network_is_the_same():
    pytest.importorskip("torch", reason="PyTorch isn't installed: pip install -e '.[benchmark]'")
    from benchmarks.with_torch import TorchAutoencoder

    sizes = sorted(parameter.numel() for parameter in TorchAutoencoder().parameters())
    assert sizes == parameters(Autoencoder((32, 32, 1)))


def test_the_readme_says_what_the_benchmark_found():
    readme = (ROOT / "README.md").read_text()
    assert benchmark.report(KEPT) in readme


def test_ratios_are_of_rounds_beside_each_other():
    """PyTorch takes 2, 2 and 4 times as long as this library in the same round."""
    seconds = {"jvae_jax": [0.1, 0.2, 0.1], "PyTorch": [0.2, 0.4, 0.4]}
    rows = [
        {"task": "train", "batch_size": 64, "contestant": name, "seconds": taken}
        for name, taken in seconds.items()
    ]
    sgemm = {"task": "sgemm", "batch_size": 2048, "contestant": "jvae_jax", "seconds": [0.1] * 3}
    text = benchmark.report({**KEPT, "measurements": [sgemm, *rows]})
    assert "| train, batch of 64 | 640 | 100.0 | 2.00 (2.00 to 3.00), 400.0 ms |" in text


@pytest.mark.long
def test_a_quick_benchmark(tmp_path):
    command = [sys.executable, str(ROOT / "experiments" / "benchmark.py"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "benchmark.json").read_text())
    assert benchmark.report(results) in done.stdout
    measured = {(row["task"], row["contestant"]) for row in results["measurements"]}
    assert {(task, "jvae_jax") for task in ("sgemm", "train", "sample", "evaluate")} <= measured
    assert all(min(row["seconds"]) > 0 for row in results["measurements"])
    for name in results["missing"]:
        assert f"skipped: {name}" in done.stdout
    torch = {"PyTorch"} & {contestant for _, contestant in measured}
    assert torch or results["missing"] == ["PyTorch"]
