"""The benchmark script, its report, and equality of the compared networks."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import benchmark
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from benchmarks import memory, preset_costs, step_profile
from benchmarks.with_linen import LinenAutoencoder

from jvae_jax import PRESETS, Autoencoder, data
from jvae_jax.training.progress import ProgressReport

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


def test_readme_contains_reports():
    readme = benchmark.README.read_text()
    for measurement in benchmark.MEASUREMENTS.values():
        assert measurement.report(json.loads(measurement.kept.read_text())) in readme


def test_measurements_are_the_values_of_the_flag():
    values = get_args(get_type_hints(benchmark.BenchmarkConfig)["measure"])
    assert {*values} == {*benchmark.MEASUREMENTS, "all", "nothing"}


def test_rebuilds_readme(tmp_path, monkeypatch):
    """With other results: the text between the comments is replaced, and nothing else."""
    before = benchmark.README.read_text()
    readme = tmp_path / "README.md"
    readme.write_text(before)
    environment = {"commit": "abc", "jax": "1.0", "machine": "2 cores"}
    milliseconds = {"matrix products": 3.0, "the rest": 1.0}
    kept = {
        "speed": {**RESULTS, "facts": {"commit": "abc"}},
        "profile": {"milliseconds": milliseconds, "environment": environment},
        "presets": {
            "milliseconds": {"paper": [2.0, 4.0, 3.0], "best": [4.0, 10.0, 9.0]},
            "environment": environment,
        },
        "memory": {"peaks": [[2048, 300.4, 400.6]], "environment": environment},
    }
    for name, results in kept.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(results))
    monkeypatch.setattr(benchmark, "README", readme)
    for name, measurement in benchmark.MEASUREMENTS.items():
        changed = measurement._replace(kept=tmp_path / f"{name}.json")
        monkeypatch.setitem(benchmark.MEASUREMENTS, name, changed)
    monkeypatch.setattr(benchmark.roofline, "report", lambda: "| a chip |")
    benchmark.main(benchmark.BenchmarkConfig(measure="nothing", readme=True))
    after = readme.read_text()
    assert "- Environment: commit abc.\n\n<!-- end of speed -->\n" in after
    assert "| matrix products | 3.0 | 75% |\n| the rest | 1.0 | 25% |\n" in after
    assert (
        "| `paper` | 3.0 | 1.00 (1.00 to 1.00) |\n| `best` | 9.0 | 2.50 (2.25 to 2.75) |" in after
    )
    assert "| 2,048 | 2 | 300 | 401 |\n\n`python" in after
    assert "<!-- accelerators -->\n\n| a chip |\n\n<!-- end of accelerators -->\n" in after
    sections = re.compile(r"<!-- (\w+) -->.*?<!-- end of \1 -->", re.DOTALL)
    assert sections.sub("", after) == sections.sub("", before)
    assert (tmp_path / "throughput.png").stat().st_size > 10_000
    assert (tmp_path / "throughput.pdf").exists()


def test_kinds_of_operations_are_those_of_the_layers():
    program = """
  %dot.1 = f32[8,4]{1,0} dot(%a, %b), metadata={op_name="jit(f)/Trunk_0/Conv_1/dot_general"}
  ROOT %add-x.2 = f32[8] add(%c, %d), metadata={op_name="jit(f)/Trunk_0/Conv_1/add" id=1}
  fusion = f32[4] fusion(%e), calls=%g, metadata={op_name="jit(f)/NormReLU_0/reduce_sum"}
  %negate = f32[4] negate(%e)
"""
    names = step_profile.names_in_jax(program)
    products, norm, copies, rest = step_profile.KINDS
    kinds = {operation: step_profile.kind_of(name) for operation, name in names.items()}
    assert kinds == {"dot.1": products, "add-x.2": copies, "fusion": norm}
    assert step_profile.kind_of("") == rest


@pytest.mark.long
def test_profile_finds_every_kind():
    """Most of the work of an optimized step is in its products, at any load of the machine."""
    code = """
import json
from benchmarks import step_profile
step_profile.STEPS = 3
print(json.dumps(step_profile.measure()["milliseconds"]))
"""
    flags = os.environ["XLA_FLAGS"].replace("--xla_backend_optimization_level=0", "")
    environment = {**os.environ, "XLA_FLAGS": flags}
    folder = ROOT / "experiments"
    printed = subprocess.check_output([sys.executable, "-c", code], cwd=folder, env=environment)
    milliseconds = json.loads(printed)
    assert all(duration > 0 for duration in milliseconds.values())
    assert milliseconds["matrix products"] > milliseconds["batch normalisation and ReLU"]


@pytest.mark.long
def test_presets_cost_more_than_the_papers_settings(monkeypatch):
    monkeypatch.setattr(preset_costs, "ROUNDS", 3)
    monkeypatch.setattr(preset_costs, "STEPS", 3)
    costs = {
        name: sorted(durations)[1]
        for name, durations in preset_costs.measure()["milliseconds"].items()
    }
    assert costs.keys() == PRESETS.keys()
    assert costs["paper"] < costs["few_labels"] < 5 * costs["paper"]
    assert costs["paper"] < costs["best"] < 5 * costs["paper"]


def test_quick_results_are_not_kept():
    with pytest.raises(ValueError, match="quick results are not kept; drop quick or readme"):
        benchmark.BenchmarkConfig(quick=True, readme=True)


def test_noise_is_a_dataset(tmp_path):
    memory.write_noise(tmp_path / "noise.npz", 150_000)
    dataset = data.load(str(tmp_path / "noise.npz"))
    assert dataset.train_images.shape == (150_000, 32, 32, 1)
    np.testing.assert_array_equal(dataset.train_labels, np.arange(150_000) % 10)
    assert len(dataset.test_images) == 1000
    assert dataset.train_images[-50_000:].std() == pytest.approx(256 / 12**0.5, rel=0.01)


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from Linux's /proc")
def test_memory_includes_images_below_the_threshold(tmp_path, monkeypatch):
    """They are read, and copied to the device."""
    monkeypatch.setattr(memory, "TRAINED_IMAGES", 7000)
    peaks = []
    for count in (10_000, 200_000):
        folder = tmp_path / str(count)
        folder.mkdir()
        peaks.append(memory.peak_mib(count, folder)[1])
    images = 190_000 * 1024 / 2**20
    assert images < peaks[1] - peaks[0] < 4 * images


def test_trained_images_are_those_of_the_progress_bar():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    assert memory.trained_images("starting") == 0
    for step, images in ((10, 640), (200, 12_800), (20_000, 1_280_000)):
        terminal = Terminal()
        with ProgressReport(
            epochs=100, steps_per_epoch=156_250, batch_size=64, step=0, stream=terminal
        ) as progress:
            progress.steps(5, {"loss": 1.0})
            progress.steps(step, {"loss": 1.0})
        assert memory.trained_images(terminal.getvalue()) == pytest.approx(images, rel=0.01)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from Linux's /proc")
def test_memory_of_a_failed_training_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "write_noise", lambda path, _count: path.write_bytes(b""))
    with pytest.raises(RuntimeError, match=r"jvae train ended early:\s.*noise\.npz"):
        memory.peak_mib(10, tmp_path)


def test_memory_is_measured_on_linux_only(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ValueError, match="memory is measured on Linux only; use --measure=speed"):
        benchmark.BenchmarkConfig(measure="all")


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
    results = json.loads((tmp_path / "benchmark.json").read_text())["speed"]
    assert benchmark.report(results) in process.stdout
    measured = {(row["task"], row["implementation"]) for row in results["measurements"]}
    assert {(task, "jvae_jax") for task in ("sgemm", "train", "sample", "evaluate")} <= measured
    assert all(min(row["seconds"]) > 0 for row in results["measurements"])
    for name in results["missing"]:
        assert f"skipped: {name}" in process.stdout
    measured_torch = {"PyTorch"} & {name for _, name in measured}
    assert measured_torch or results["missing"] == ["PyTorch"]
