"""The choice of mutants."""

from pathlib import Path

import mutation
import pytest

CODE = '''"""A module of 2 functions."""
import logging

logger = logging.getLogger("name")


def double(value: "int | None", *, name: str = "a") -> "int | None":
    """Doubles 1 value."""
    if value < 0:
        raise ValueError(f"{value + 1} isn't above 0")
    logger.info("doubling", extra=None)
    print(value, end="b")
    return value * 2
'''


@pytest.fixture
def mutants(tmp_path, monkeypatch):
    monkeypatch.setattr(mutation, "ROOT", tmp_path)
    mutation.code_of.cache_clear()
    Path(tmp_path, "module.py").write_text(CODE)
    yield mutation.sample(mutation.MutationConfig(modules="module.py", mutants=100))
    mutation.code_of.cache_clear()


def test_changes_code_but_no_texts_or_annotations(mutants):
    assert sorted({mutant.line for mutant in mutants}) == [7, 9, 10, 12, 13]
    # Of the signature, only the default and the star; the error may only be left out.
    places = {(mutant.line, mutant.operator) for mutant in mutants}
    assert (7, "ChangeString") in places
    assert [operator for line, operator in places if line == 10] == ["RemoveStatement"]
    for mutant in mutants:
        compile(mutant.apply(), "module.py", "exec")
        assert mutant.difference().count("\n+") == 1


def test_the_seed_decides_on_the_mutants(mutants):
    again, other = (
        mutation.sample(mutation.MutationConfig(modules="module.py", mutants=4, seed=seed))
        for seed in (0, 1)
    )
    assert again == mutants[:4]
    assert other != again


def test_tests_of_a_module_include_its_folder():
    tests = mutation.tests_of("jvae_jax/training/step.py")
    assert tests[0] == "tests/training/test_step.py"
    assert "tests/training/test_loop.py" in tests
    assert mutation.tests_of("jvae_jax/objectives.py") == ["tests/test_objectives.py"]
