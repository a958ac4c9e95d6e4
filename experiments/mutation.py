"""Mutation testing: python experiments/mutation.py --mutants=200 --workers=2

Makes one small change at a time (to an operator, a number, a condition, an argument, a name in
quotes, or a statement) in a copy of the checkout, and runs the default tests of the changed module,
those of its own file first. A mutant that no test notices survives.

The places to change are drawn at random, and one mutant of each. Annotations, docstrings, and the
texts of errors and log messages aren't changed.
"""

import ast
import difflib
import fnmatch
import itertools
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from queue import Queue
from typing import Any

from cosmic_ray import plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from parso.python.tree import Keyword

from jvae_jax import cli
from jvae_jax.training.provenance import environment

ROOT = Path(__file__).resolve().parents[1]

INCLUDED = (
    "*/ReplaceBinaryOperator_*",
    "*/ReplaceComparisonOperator_*",
    "*/ReplaceUnaryOperator_*",
    "*/ReplaceTrueWithFalse",
    "*/ReplaceFalseWithTrue",
    "*/ReplaceAndWithOr",
    "*/ReplaceOrWithAnd",
    "*/AddNot",
    "*/NumberReplacer",
    "*/ZeroIterationForLoop",
)
EXCLUDED = (
    "*BinaryOperator_*_[LR]Shift",  # always an error for floats, like the next
    "*BinaryOperator_[!B]*_Bit*",
    "*ComparisonOperator_*_Is",  # agrees with == for most values, but Python warns
    "*ComparisonOperator_[!I]*_IsNot",
    "*ComparisonOperator_Is_[!I]*",
    "*ComparisonOperator_IsNot_[!I]*",
)
"""Operators of cosmic-ray that are used, and exceptions."""

TESTS = {
    "jvae_jax/losses": ["losses", "test_objectives.py", "training/test_semi_supervised.py"],
    "jvae_jax/sampling.py": ["test_sampling.py", "losses"],
    "jvae_jax/training/batching.py": ["training/test_batching.py", "training/test_epochs.py"],
    "jvae_jax/training/loop.py": ["training/test_epochs.py"],
    "jvae_jax/training/run.py": ["training/test_run_settings.py", "training/test_epochs.py"],
    "jvae_jax/training/distributed.py": ["training/test_stop_request.py"],
    "jvae_jax/training/parallel.py": ["training/test_step.py"],
}
"""Tests that run first, since they notice changes of a module soon or lie outside its folder."""


@dataclass(frozen=True, kw_only=True)
class MutationConfig:
    """Options of the mutation test."""

    modules: str = (
        "jvae_jax/losses,jvae_jax/sampling.py,jvae_jax/objectives.py,jvae_jax/training,"
        "jvae_jax/evaluation"
    )
    """Files and folders to change, separated by commas."""
    mutants: int = 200
    """Number of mutants."""
    seed: int = 0
    """Seed of the choice of mutants."""
    workers: int = 2
    """Number of mutants that are tested at a time."""
    output: str = "experiments/results/mutation.md"
    """File of the results."""


@cache
def code_of(module: str) -> str:
    """Reads a module once, since the checkout may change meanwhile."""
    return (ROOT / module).read_text()


@dataclass(frozen=True)
class Mutant:
    """A change of one place.

    Attributes:
        module: path of the file.
        line: line of the place.
        operator: name of the operator, see ``operators``.
        occurrence: index among the operator's mutants of the file.
    """

    module: str
    line: int
    operator: str
    occurrence: int

    def apply(self) -> str:
        """Returns the changed code of the module."""
        operator = operators()[self.operator]
        return str(mutate_code(code_of(self.module), operator, self.occurrence))

    def compiles(self) -> bool:
        try:
            compile(self.apply(), self.module, "exec")
        except SyntaxError:
            return False
        return True

    def difference(self) -> str:
        """Returns the changed lines, before and after."""
        lines = code_of(self.module).splitlines(), self.apply().splitlines()
        changes = itertools.islice(difflib.unified_diff(*lines, lineterm="", n=0), 3, None)
        return "\n".join(changes)


class _RemoveArgument:
    """Removes a keyword argument of a call."""

    def mutation_positions(self, node: Any) -> Iterator[Any]:
        if node.type == "argument" and node.children[0].type == "name":
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> None:
        del index
        comma = node.get_next_sibling()
        if node.parent.type == "arglist" and comma is not None:
            comma.value = ""


class _ChangeString:
    """Changes a string that is a name, not a text."""

    def mutation_positions(self, node: Any) -> Iterator[Any]:
        if node.type == "string" and " " not in node.value:
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        del index
        node.value = f'"_" {node.value}'
        return node


class _RemoveStatement:
    """Replaces a call whose result isn't used, or a ``raise``, by ``pass``."""

    def mutation_positions(self, node: Any) -> Iterator[Any]:
        if node.parent is not None and node.parent.type == "simple_stmt":
            is_call = node.type == "atom_expr" and node.children[-1].type == "trailer"
            if is_call or node.type == "raise_stmt":
                yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        del index
        return Keyword("pass", node.start_pos, node.get_first_leaf().prefix)


@cache
def operators() -> dict[str, Any]:
    """Operators by name."""
    names = [
        name
        for name in plugins.operator_names()
        if any(fnmatch.fnmatch(name, pattern) for pattern in INCLUDED)
        and not any(fnmatch.fnmatch(name, pattern) for pattern in EXCLUDED)
    ]
    return {
        **{name.rpartition("/")[-1]: plugins.get_operator(name)() for name in names},
        "RemoveArgument": _RemoveArgument(),
        "ChangeString": _ChangeString(),
        "RemoveStatement": _RemoveStatement(),
    }


def mutation(config: MutationConfig) -> None:
    started = time.monotonic()
    mutants = sample(config)
    killed: dict[Mutant, bool] = {}
    with (
        tempfile.TemporaryDirectory(prefix="jvae_jax_mutation_") as temporary,
        ThreadPoolExecutor(config.workers) as pool,
    ):
        copies: Queue[Path] = Queue()
        for index in range(config.workers):
            copies.put(_copy(Path(temporary, str(index))))
        timeout = _check_unchanged(copies, mutants)
        results = pool.map(lambda mutant: _is_killed(copies, mutant, timeout), mutants)
        for mutant, is_killed in zip(mutants, results, strict=True):
            killed[mutant] = is_killed
            result = "killed" if is_killed else f"survived\n{mutant.difference()}"
            print(
                f"{len(killed)}/{len(mutants)} {mutant.module}:{mutant.line} {result}", flush=True
            )
    report = _report(killed, minutes=(time.monotonic() - started) / 60)
    (ROOT / config.output).write_text(report)


def sample(config: MutationConfig) -> list[Mutant]:
    """Draws places of the modules, and a mutant of each."""
    places = defaultdict(list)
    for name in config.modules.split(","):
        path = ROOT / name
        for file in sorted(path.rglob("*.py")) or [path]:
            for place, mutant in mutants_of(str(file.relative_to(ROOT))):
                places[mutant.module, place].append(mutant)
    rng = random.Random(config.seed)
    order = sorted(places)
    rng.shuffle(order)
    mutants = filter(Mutant.compiles, (rng.choice(places[place]) for place in order))
    return list(itertools.islice(mutants, config.mutants))


def mutants_of(module: str) -> Iterator[tuple[tuple[int, int], Mutant]]:
    """Yields line and column of each place of a module with one of its mutants."""
    code = code_of(module)
    ignored = list(_ignored(ast.parse(code)))
    nodes = list(ast_nodes(get_ast(code)))
    for name, operator in operators().items():
        positions = [start for node in nodes for start, _ in operator.mutation_positions(node)]
        for occurrence, start in enumerate(positions):
            if not any(first <= start < last for first, last in ignored):
                yield start, Mutant(module, start[0], name, occurrence)


def _ignored(tree: ast.Module) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yields the ranges of annotations, docstrings, arguments of errors and log messages, and signs
    of numbers.
    """
    for node in ast.walk(tree):
        ignored: list[ast.expr | ast.stmt | None] = []
        match node:
            case ast.arg() | ast.AnnAssign():
                ignored = [node.annotation]
            case ast.FunctionDef():
                ignored = [node.returns]
            case ast.Expr(ast.Constant()):
                ignored = [node]
            case ast.Raise(ast.Call(args=arguments)):
                ignored = [*arguments]
            case ast.Call() if ast.unparse(node.func).startswith(("logger.", "TypeVar")):
                ignored = [node]
            case ast.Subscript() if ast.unparse(node.value) in ("Float", "Int"):
                ignored = [node.slice]
            case ast.Assign() if ast.unparse(node).startswith(("__all__", "logger")):
                ignored = [node]
            case ast.UnaryOp(operand=ast.Constant()):
                # Of an array with two axes, -1 and 1 are the same one.
                yield (node.lineno, node.col_offset), (node.lineno, node.col_offset + 1)
        for each in filter(None, ignored):
            end = int(each.end_lineno or 0), int(each.end_col_offset or 0)
            yield (each.lineno, each.col_offset), end


def tests_of(module: str) -> list[str]:
    """Test files of a module: those that notice changes soon, its own, and its folder's."""
    path = Path(module)
    folder = ROOT / "tests" / path.parent.relative_to("jvae_jax")
    files = [folder / f"test_{path.stem}.py"]
    if path.parent.name != "jvae_jax":
        files += sorted(folder.glob("test_*.py"))
    for prefix, names in TESTS.items():
        if module.startswith(prefix):
            given = [ROOT / "tests" / name for name in names]
            expanded = [sorted(each.glob("test_*.py")) or [each] for each in given]
            files = [*itertools.chain(*expanded), *files]
    return [str(file.relative_to(ROOT)) for file in dict.fromkeys(files) if file.exists()]


def _copy(folder: Path) -> Path:
    for name in ("jvae_jax", "tests", "experiments"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def _check_unchanged(copies: "Queue[Path]", mutants: Iterable[Mutant]) -> float:
    """Runs the tests of all mutants without a change; returns a limit of their time, in seconds."""
    tests = sorted({test for mutant in mutants for test in tests_of(mutant.module)})
    copy, started = copies.get(), time.monotonic()
    status = _run(copy, tests, timeout=3600)
    copies.put(copy)
    if status != 0:
        output = (copy / "output.txt").read_text()
        raise RuntimeError(f"the tests fail without any change: {output[-2000:]}")
    seconds = time.monotonic() - started
    print(f"{len(tests)} files of tests take {seconds:.0f} s", flush=True)
    return 60 + 2 * seconds


def _is_killed(copies: "Queue[Path]", mutant: Mutant, timeout: float) -> bool:
    copy = copies.get()
    path = copy / mutant.module
    path.write_text(mutant.apply())
    status = _run(copy, tests_of(mutant.module), timeout)
    path.write_text(code_of(mutant.module))
    copies.put(copy)
    return status != 0


def _run(copy: Path, tests: Iterable[str], timeout: float) -> int | None:
    """Runs tests in a copy; returns the exit status, None if they take too long."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider"]
    variables = {"PYTHONPATH": str(copy), "JVAE_JAX_TESTS_CACHE": f"{copy}-cache"}
    with (copy / "output.txt").open("w") as output:
        process = subprocess.Popen(
            [*command, *tests],
            stdout=output,
            stderr=output,
            cwd=copy,
            env={**os.environ, **variables},
            start_new_session=True,
        )
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        return None
    finally:
        # Tests start processes, too.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _report(killed: dict[Mutant, bool], *, minutes: float) -> str:
    facts = environment()
    totals = Counter(mutant.module for mutant in killed)
    kills = Counter(mutant.module for mutant, is_killed in killed.items() if is_killed)
    rows = [
        f"| `{module}` | {total} | {kills[module]} | {kills[module] / total:.0%} |"
        for module, total in sorted(totals.items())
    ]
    rate = kills.total() / totals.total()
    survivors = [
        f"`{mutant.module}`, line {mutant.line}:\n\n```diff\n{mutant.difference()}\n```\n"
        for mutant, is_killed in killed.items()
        if not is_killed
    ]
    return "\n".join(
        [
            "# Mutation testing\n",
            "Small changes of the package at random places, and whether the default tests of the",
            "changed module notice them.\n",
            "| module | mutants | killed | rate |",
            "| --- | ---: | ---: | ---: |",
            *rows,
            f"| all | {totals.total()} | {kills.total()} | {rate:.1%} |\n",
            f"`python {shlex.join(['experiments/mutation.py', *sys.argv[1:]])}`, {minutes:.0f} "
            f"minutes; commit `{facts['commit']}`, Python {facts['python']}, jax {facts['jax']}, "
            f"{facts['machine']}.\n",
            "## Survivors\n",
            *survivors,
        ]
    )


if __name__ == "__main__":
    cli.run(mutation, MutationConfig, description="Test whether tests notice small changes.")
