"""The benchmark script, its report, and equality of the compared networks."""

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
RESULTS = json.loads((ROOT / "experiments/results/benchmark-cpu.json").read_text())


def parameter_sizes(model):
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 1)))
    return sorted(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def test_linen_network_has_same_parameters():
    sizes = parameter_sizes(LinenAutoencoder((32, 32, 1)))
    assert sizes == parameter_sizes(Autoencoder((32, 32, 1)))


def test_pytorch_network_has_same_parameters():
    pytest.importorskip("torch", reason="PyTorch isn't installed: pip install -e '.[benchmark]'")
    from benchmarks.with_torch import TorchAutoencoder

    sizes = sorted(parameter.numel() for parameter in TorchAutoencoder().parameters())
    assert sizes == parameter_sizes(Autoencoder((32, 32, 1)))


def test_readme_contains_report():
    readme = (ROOT / "experiments" / "benchmarks" / "README.md").read_text()
    assert benchmark.report(RESULTS) in readme


def test_speed_ups_compare_the_same_round():
    """PyTorch takes 2, 2 and 4 times as long as this library in the same round."""
    seconds = {"jvae_jax": [0.1, 0.2, 0.1], "PyTorch": [0.2, 0.4, 0.4]}
    rows = [
        {"task": "train", "batch_size": 64, "implementation": name, "seconds": durations}
        for name, durations in seconds.items()
    ]
    sgemm = {
        "task": "sgemm",
        "batch_size": 2048,
        "implementation": "jvae_jax",
        "seconds": [0.1] * 3,
    }
    text = benchmark.report({**RESULTS, "measurements": [sgemm, *rows]})
    assert "| train, batch of 64 | 640 | 100.0 | 2.00 (2.00 to 3.00), 400.0 ms |" in text


@pytest.mark.long
def test_quick_benchmark(tmp_path):
    command = [sys.executable, str(ROOT / "experiments" / "benchmark.py"), "--quick"]
    process = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert process.returncode == 0, process.stderr
    results = json.loads((tmp_path / "benchmark.json").read_text())
    assert benchmark.report(results) in process.stdout
    measured = {(row["task"], row["implementation"]) for row in results["measurements"]}
    assert {(task, "jvae_jax") for task in ("sgemm", "train", "sample", "evaluate")} <= measured
    assert all(min(row["seconds"]) > 0 for row in results["measurements"])
    for name in results["missing"]:
        assert f"skipped: {name}" in process.stdout
    measured_torch = {"PyTorch"} & {name for _, name in measured}
    assert measured_torch or results["missing"] == ["PyTorch"]
