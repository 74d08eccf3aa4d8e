"""The list of faults fits the code, and the program that tries them tells killed from survived."""

import dataclasses
import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from scripts import mutate
from tests.conftest import ROOT, run_python

LISTED = mutate.read(mutate.LIST)

SUMS = """
def total(values):
    return sum(values)


def mean(values):
    return total(values) / len(values)
"""
TESTS = """
import sums


def test_the_total():
    assert sums.total([1, 2]) == 3


def test_the_mean():
    assert sums.mean([0, 0]) == 0
"""
FAULTS = """
# What stands here stays.

[[mutation]]
name = "the total is one too large"
file = "sums.py"
old = 'return sum(values)'
new = 'return sum(values) + 1'
tests = ["tests/test_sums.py"]

# Of the mean.

[[mutation]]
name = "the mean is not divided"
file = "sums.py"
old = 'return total(values) / len(values)'
new = 'return total(values)'
tests = ["tests/test_sums.py"]
killed = true
by = "tests/test_sums.py::test_gone"
"""
FOUND = FAULTS.replace(
    "\n\n# Of the mean.",
    '\nkilled = true\nby = "tests/test_sums.py::test_the_total"\n\n# Of the mean.',
).replace('killed = true\nby = "tests/test_sums.py::test_gone"\n', "killed = false\n")


@pytest.fixture
def project(tmp_path):
    """A checkout of two functions, with tests of which one looks at too little."""
    (tmp_path / "copies").mkdir()
    root = tmp_path / "checkout"
    (root / "tests").mkdir(parents=True)
    (root / "pyproject.toml").write_text("[tool.pytest.ini_options]\npythonpath = ['.']\n")
    (root / "sums.py").write_text(SUMS)
    (root / "tests" / "test_sums.py").write_text(TESTS)
    (root / "tests" / "mutations.toml").write_text(FAULTS)
    return root


@pytest.fixture
def first(project):
    """Its first fault."""
    return mutate.read(project / "tests" / "mutations.toml")[0]


@pytest.fixture
def runner(project, tmp_path):
    return mutate.Runner(project, tmp_path / "copies")


def command(project, *arguments):
    """Runs the program on another checkout than its own."""
    return run_python(
        "-c",
        "import pathlib, sys\n"
        "from experiments import program\n"
        "from scripts import mutate\n"
        "mutate.ROOT = pathlib.Path(sys.argv[1])\n"
        "mutate.LIST = mutate.ROOT / 'tests' / 'mutations.toml'\n"
        "mutate._define_flags()\n"
        "program.launch('mutate', mutate.main, sys.argv[1:])\n",
        str(project),
        *arguments,
    )


def test_each_fault_can_be_put_into_the_code():
    assert mutate.problems(LISTED, ROOT) == []


def test_there_are_enough_of_all_packages_with_names_of_their_own():
    assert len({mutation.name for mutation in LISTED}) == len(LISTED) >= 80
    counts = Counter("/".join(mutation.file.split("/")[:2]) for mutation in LISTED)
    for package in ("core", "ops", "schemes", "train", "evaluate", "compare", "data", "runs"):
        assert counts[f"dropjax/{package}"] >= 5, package
    assert sum(n for name, n in counts.items() if name.startswith("experiments/")) >= 18


def test_it_is_recorded_of_each_whether_it_was_killed():
    for mutation in LISTED:
        assert isinstance(mutation.killed, bool), mutation.name
        assert bool(mutation.by) == mutation.killed, mutation.name


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"file": "gone.py"}, "there is no file gone.py"),
        ({"old": "values"}, "stands 5 times in sums.py, not once"),
        ({"old": "product"}, "stands 0 times in sums.py, not once"),
        ({"new": "return sum(values)"}, "changes nothing"),
        ({"new": "return sum(values"}, "would not compile"),
        ({"tests": ["tests/test_gone.py", "-k", "total"]}, "no file of tests tests/test_gone.py"),
        ({"tests": ["-k", "total"]}, "no file of tests"),
    ],
    ids=lambda case: str(case)[:30],
)
def test_what_cannot_be_tried_is_named_with_its_reason(project, first, changes, why):
    assert mutate.problems([first], project) == []
    (found,) = mutate.problems([dataclasses.replace(first, **changes)], project)
    assert found.startswith(f"{first.name}: ") and why in found


def test_a_name_that_stands_twice_is_named(project, first):
    assert "twice" in mutate.problems([first, first], project)[0]


def test_what_no_test_notices_survives_and_is_told(project):
    before = {path: path.read_bytes() for path in project.rglob("*.py")}
    done = command(project, "--record", "--compare")
    assert done.returncode == 1, done.stdout + done.stderr
    first, second = done.stdout.splitlines()[:2]
    by = "tests/test_sums.py::test_the_total"
    assert re.fullmatch(rf"\.: the total is one too large: killed by {by}, \d+ s", first)
    assert re.fullmatch(r"\.: the mean is not divided: SURVIVED, \d+ s", second)
    assert "all      2       1       1" in done.stdout
    assert "SURVIVED, and was killed before: the mean is not divided" in done.stdout
    assert (project / "tests" / "mutations.toml").read_text() == FOUND
    assert {path: path.read_bytes() for path in project.rglob("*.py")} == before


def test_tests_that_fail_by_themselves_are_told_before_anything_is_tried(project):
    (project / "tests" / "test_sums.py").write_text("def test_a():\n    assert False\n")
    done = command(project)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr == "mutate: without any fault: tests/test_sums.py::test_a\n"


ENDLESS = "import time\n\ndef test_a():\n    time.sleep(600)\n"


def test_tests_that_take_too_long_count_as_failed(project, first, tmp_path):
    (project / "tests" / "test_sums.py").write_text(ENDLESS)
    found = mutate.Runner(project, tmp_path / "copies", limit=0.5).try_one(first)
    assert (found.killed, found.by, found.error) == (True, "the time limit", "")
    assert (tmp_path / "copies" / "copy_0" / "sums.py").read_text() == SUMS


def test_what_is_stopped_says_nothing_of_a_fault(runner, first, tmp_path):
    (tmp_path / "copies" / "copy_0" / "tests" / "test_sums.py").write_text(ENDLESS)
    with ThreadPoolExecutor() as pool:
        trial = pool.submit(runner.try_one, first)
        while not runner._processes:
            time.sleep(0.01)
        runner.stop()
        found = trial.result()
    assert (found.killed, found.error) == (False, "it was stopped")


@pytest.mark.parametrize(
    ("status", "output", "by"),
    [
        (1, "F\nFAILED tests/test_a.py::test_b[x - y] - assert 0", "tests/test_a.py::test_b"),
        (2, "ERROR tests/test_a.py - ImportError: no b", "tests/test_a.py"),
        (-11, "", "the end of Python by SIGSEGV"),
        (0, "3 passed", ""),
        (2, "no such option", ""),
        (5, "no tests ran in 0.01s", ""),
        (4, "", ""),
        (-9, "", ""),
    ],
    ids=lambda case: str(case)[:12],
)
def test_only_a_test_that_fails_kills(status, output, by):
    found = mutate._outcome(status, output, 1.0)
    error = f"pytest ended with status {status}: {output or 'nothing was printed'}"
    assert (found.killed, found.by) == (bool(by), by)
    assert found.error == ("" if by or status == 0 else error)


def test_runs_are_not_copied_and_a_package_of_that_name_is(project, tmp_path):
    for name in ("runs/old.json", "package/runs/__init__.py", "package/__pycache__/a.pyc"):
        (project / name).parent.mkdir(parents=True)
        (project / name).touch()
    mutate.Runner(project, tmp_path / "copies", jobs=2)
    for copy in (tmp_path / "copies" / "copy_0", tmp_path / "copies" / "copy_1"):
        found = {str(path.relative_to(copy)) for path in copy.rglob("*")}
        assert {"sums.py", "tests/test_sums.py", "package/runs/__init__.py"} <= found
        assert not {"runs", "package/__pycache__"} & found


def test_a_source_that_is_written_twice_in_a_second_is_compiled_twice(runner, tmp_path):
    file = tmp_path / "copies" / "copy_0" / "sums.py"
    times = set()
    for _ in range(3):
        runner._write(file, SUMS)
        times.add(int(file.stat().st_mtime))
    assert len(times) == 3


def test_files_without_a_choice_are_run_together():
    made = [["tests/a.py"], ["tests/a.py", "-k", "x"], ["tests/b.py", "tests/a.py"]]
    mutations = [mutate.Mutation("", "", "", "", tests) for tests in (*made, made[1])]
    assert mutate.together(mutations) == [["tests/a.py", "tests/b.py"], ["tests/a.py", "-k", "x"]]


@pytest.mark.parametrize("argument", ["--only=^no such fault$", "extra"])
def test_what_was_mistyped_is_an_error(project, argument):
    done = command(project, argument)
    assert done.returncode == 2 and argument.removeprefix("--only=") in done.stderr
