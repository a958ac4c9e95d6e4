"""A contestant in a process of its own: python -m benchmarks NAME STARTED

``STARTED`` is when the process was asked for, by ``time.time()``. The first line out says how soon
it was there; then each line of JSON in, ``{"task": "train", "batch_size": 64, "times": 20}``, is
answered by one, ``{"seconds": 0.31}``.
"""

import importlib
import json
import resource
import sys
import tempfile
import time
from typing import Any

from benchmarks import CONTESTANTS, Task, noise


def main(name: str, started: float) -> None:
    module, maker, arguments = CONTESTANTS[name]
    try:
        make = getattr(importlib.import_module(f"benchmarks.{module}"), maker)
        contestant: Any = make(**arguments)
    except (ModuleNotFoundError, LookupError) as error:
        answer(missing=str(error))
        return
    answer(ready_seconds=time.time() - started, facts=contestant.facts())
    tasks: dict[tuple[str, int], Task] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if request["task"] == "whole_run":
            answer(peak_mib=whole_run())
            continue
        if request["task"] == "step_memory":
            answer(mib=contestant.step_memory(request["batch_size"]))
            continue
        key = request["task"], request["batch_size"]
        if key not in tasks:
            tasks[key] = getattr(contestant, key[0])(key[1])
            tasks[key](1)
        begin = time.perf_counter()
        tasks[key](request["times"])
        answer(seconds=time.perf_counter() - begin, since_start=time.time() - started)


def whole_run() -> float:
    """Trains an epoch of as much as MNIST, with everything a run does; the peak memory in MiB."""
    from jvae_jax import Dataset, TrainConfig, fit

    images, labels = noise(60_000)
    test_images, test_labels = noise(10_000)
    names = tuple("0123456789")
    dataset = Dataset(
        name="noise",
        train_images=images,
        train_labels=labels,
        test_images=test_images,
        test_labels=test_labels,
        class_names=names,
    )
    with tempfile.TemporaryDirectory() as workdir:
        fit(TrainConfig(epochs=1, workdir=workdir), dataset, say=lambda _: None)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def answer(**contents: Any) -> None:
    print(json.dumps(contents), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
