"""Progress of a run: a bar on a terminal, one line per epoch elsewhere."""

import time
from collections.abc import Mapping
from datetime import timedelta
from io import TextIOBase
from typing import TextIO

from tqdm import tqdm


def format_terms(terms: Mapping[str, float]) -> str:
    """Returns the terms on one line, with four significant digits."""
    return "  ".join(f"{name} {value:.4g}" for name, value in terms.items())


class ProgressReport:
    """Reports epoch, terms, images per second and remaining time."""

    def __init__(
        self,
        *,
        epochs: int,
        steps_per_epoch: int,
        batch_size: int,
        step: int,
        stream: TextIO | TextIOBase,
    ) -> None:
        """Starts the report.

        Args:
            epochs: epochs of the run.
            steps_per_epoch: steps of an epoch.
            batch_size: images per step.
            step: first step; the speed is measured from here.
            stream: where to write.
        """
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
        """Reports that all steps up to ``step`` are finished."""
        if self._bar is not None:
            epoch = min(step // self._steps_per_epoch + 1, self._epochs)
            self._bar.set_description(f"epoch {epoch}/{self._epochs}", refresh=False)
            self._bar.set_postfix_str(format_terms(terms), refresh=False)
            self._bar.update(step * self._batch_size - self._bar.n)

    def epoch(self, step: int, train: Mapping[str, float], test: Mapping[str, float]) -> None:
        """Reports that an epoch is finished, with its mean train and test terms."""
        if self._bar is not None:
            return
        elapsed = time.monotonic() - self._started
        finished = step - self._first_step
        remaining_steps = self._epochs * self._steps_per_epoch - step
        remaining = timedelta(seconds=round(elapsed / finished * remaining_steps))
        print(
            f"epoch {step // self._steps_per_epoch}/{self._epochs}",
            f"train {format_terms(train)}",
            f"test {format_terms(test)}",
            f"{finished * self._batch_size / elapsed:,.0f} images/s",
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
