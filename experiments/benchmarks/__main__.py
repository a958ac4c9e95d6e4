"""Worker process of one implementation: python -m benchmarks NAME STARTED

``STARTED`` is the ``time.time()`` at which the parent started the process. The first line of output
is the start-up time. Each line of input, ``{"task": "train", "batch_size": 64, "times": 20}``, is
answered by a line of output, ``{"seconds": 0.31}``.
"""

import importlib
import json
import resource
import sys
import tempfile
import time
from typing import Any

from benchmarks import IMPLEMENTATIONS, Task, noise


def main(name: str, started: float) -> None:
    module, class_name, arguments = IMPLEMENTATIONS[name]
    try:
        implementation_class = getattr(importlib.import_module(f"benchmarks.{module}"), class_name)
        implementation: Any = implementation_class(**arguments)
    except (ModuleNotFoundError, LookupError) as error:
        reply(missing=str(error))
        return
    reply(ready_seconds=time.time() - started, facts=implementation.facts())
    tasks: dict[tuple[str, int], Task] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if request["task"] == "whole_run":
            reply(peak_mib=whole_run())
            continue
        if request["task"] == "step_memory":
            reply(mib=implementation.step_memory(request["batch_size"]))
            continue
        key = request["task"], request["batch_size"]
        if key not in tasks:
            tasks[key] = getattr(implementation, key[0])(key[1])
            tasks[key](1)
        begin = time.perf_counter()
        tasks[key](request["times"])
        reply(seconds=time.perf_counter() - begin, since_start=time.time() - started)


def whole_run() -> float:
    """Peak memory in MiB of a one-epoch run on a dataset of MNIST's size."""
    from jvae_jax import Dataset, TrainConfig, fit

    images, labels = noise(60_000)
    test_images, test_labels = noise(10_000)
    dataset = Dataset(
        name="noise",
        train_images=images,
        train_labels=labels,
        test_images=test_images,
        test_labels=test_labels,
        class_names=tuple("0123456789"),
    )
    with tempfile.TemporaryDirectory() as workdir:
        fit(TrainConfig(epochs=1, workdir=workdir), dataset)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def reply(**contents: Any) -> None:
    print(json.dumps(contents), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
