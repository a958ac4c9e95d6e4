"""How a run is going: a bar on a terminal, a line per epoch elsewhere."""

import time
from collections.abc import Mapping
from datetime import timedelta
from io import TextIOBase
from typing import TextIO

from tqdm import tqdm


def format_terms(terms: Mapping[str, float]) -> str:
    """Terms on one line, to four figures."""
    return "  ".join(f"{name} {value:.4g}" for name, value in terms.items())


class ProgressReport:
    """Tells of epoch, time left, images per second and the current terms."""

    def __init__(
        self,
        *,
        epochs: int,
        steps_per_epoch: int,
        batch_size: int,
        step: int,
        stream: TextIO | TextIOBase,
    ) -> None:
        """Begins at ``step``, from where the speed is measured."""
        self._epochs = epochs
        self._steps_per_epoch = steps_per_epoch
        self._batch_size = batch_size
        self._first_step = step
        self._started = time.monotonic()
        self._stream = stream
        self._bar = None
        if stream.isatty():
            self._bar = tqdm(
                total=epochs * steps_per_epoch * batch_size,
                initial=step * batch_size,
                unit=" images",
                unit_scale=True,
                file=stream,
                dynamic_ncols=True,
            )

    def steps(self, step: int, terms: Mapping[str, float]) -> None:
        """Some steps are done, up to ``step``."""
        if self._bar is not None:
            epoch = min(step // self._steps_per_epoch + 1, self._epochs)
            self._bar.set_description(f"epoch {epoch}/{self._epochs}", refresh=False)
            self._bar.set_postfix_str(format_terms(terms), refresh=False)
            self._bar.update(step * self._batch_size - self._bar.n)

    def epoch(self, step: int, train: Mapping[str, float], test: Mapping[str, float]) -> None:
        """An epoch is done."""
        if self._bar is not None:
            return
        elapsed = time.monotonic() - self._started
        done = step - self._first_step
        left = self._epochs * self._steps_per_epoch - step
        remaining = timedelta(seconds=round(elapsed / done * left))
        print(
            f"epoch {step // self._steps_per_epoch}/{self._epochs}",
            f"train {format_terms(train)}",
            f"test {format_terms(test)}",
            f"{done * self._batch_size / elapsed:,.0f} images/s",
            f"{remaining} left",
            sep=" | ",
            file=self._stream,
            flush=True,
        )

    def __enter__(self) -> "ProgressReport":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
