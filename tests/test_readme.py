"""What the READMEs say is true: code runs, commands parse, tables are the code's."""

import importlib
import json
import re
import runpy
import shlex
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest
from absl.flags import FlagValues
from PIL import Image

import dropjax
from dropjax.core.scheme import SCHEMES
from dropjax.runs import Network, load
from experiments import flags, replay, run
from experiments.flags import Flags
from experiments.mnist import EXPERIMENT
from experiments.setup import set_up
from scripts import reference
from tests.conftest import ROOT, run_python

README = (ROOT / "README.md").read_text()
PAGES = {
    path.relative_to(ROOT): path.read_text()
    for path in [
        ROOT / "README.md",
        ROOT / "experiments" / "README.md",
        ROOT / "dropjax" / "README.md",
        ROOT / "dropjax" / "EXTENDING.md",
    ]
}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def commands() -> list[str]:
    text = "\n".join(block for page in PAGES.values() for block in blocks(page, "bash"))
    lines = text.replace("\\\n", " ").splitlines()
    return [part.strip() for line in lines for part in line.split("&&") if part.strip()]


SNIPPETS = [
    (str(page), number, code)
    for page, text in PAGES.items()
    for number, code in enumerate(blocks(text, "python"))
]
MAIN = "python -m experiments.mnist --dropout=variational"
RUN_HERE = {
    "python -m experiments.mnist --dropout=bernoulli --dataset=mnist": [r"^test +0\.\d{4}"],
    MAIN: ["NOT MNIST", "layer_0/recurrent ", r"^test, 2 draws +0\.\d{4} +\d\.\d{4} +0\.\d{4}$"],
    "python -m experiments.predict": ["probability"],
    "python -m experiments.replay": ["# kept, . dropped"],
    "python -m scripts.ablate": ["Programs to compile"],
}
"""How the commands begin that are run, and patterns of what they print."""
# Runs modules as `python -m` does, in one process: most of what they take is the start of Python.
RUN_ALL = """
import json, runpy, sys
from absl import app, flags

of_absl = set(flags.FLAGS)
for module, *words in json.loads(sys.argv[1]):
    for name in set(flags.FLAGS) - of_absl:
        delattr(flags.FLAGS, name)
    sys.argv = [module, *words]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        print("status", end.code)
"""


def run_here() -> list[str]:
    return sorted({command for command in commands() if command.startswith((*RUN_HERE,))})


def words_of(command: str) -> list[str]:
    """The module and its arguments, on data that is here, and of an ablation its plan alone."""
    _, _, module, *words = shlex.split(command)
    elsewhere = ("--dataset", "--data_dir", "--train_examples", "--validation")
    if module == "experiments.mnist":
        words = [word for word in words if not word.startswith(elsewhere)]
        words += ["--epochs=1"]
        main = ["--train_examples=320", "--mc_samples=2", "--workdir=runs/main"]
        words += main if command == MAIN else ["--mc_samples=0"]
    if module == "scripts.ablate":
        words = [word for word in words if not word.startswith((*elsewhere, "--workdir"))]
        words += ["--dataset=digits", "--only=plan", "--workdir=none"]
    return [module, *words]


def write_modules(folder: Path) -> None:
    for _, _, code in SNIPPETS:
        if name := re.match(r"# (\w+\.py)\n", code):
            (folder / name[1]).write_text(code)


@pytest.fixture(scope="module")
def place_and_texts(tmp_path_factory):
    """A folder with what the snippets speak of: a picture, modules, and a run.

    And for each command that was run there what it printed, and its status.
    """
    folder = tmp_path_factory.mktemp("place")
    Image.new("L", (8, 8)).save(folder / "image.png")
    write_modules(folder)
    done = run_python("-c", RUN_ALL, json.dumps([*map(words_of, run_here())]), cwd=folder)
    assert done.returncode == 0, done.stderr
    texts = re.findall(r"(.*?)^status (\w+)\n", done.stdout, re.M | re.S)
    return folder, dict(zip(run_here(), texts, strict=True))


def test_commands_run(place_and_texts):
    place, texts = place_and_texts
    for command, (text, status) in texts.items():
        assert status == "0", text
        (patterns,) = (RUN_HERE[start] for start in RUN_HERE if command.startswith(start))
        for pattern in patterns:
            assert re.search(pattern, text, re.M), (command, text)
    assert (place / "runs" / "first" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert not (place / "none").exists()


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_python_runs(place_and_texts, tmp_path, monkeypatch):
    """In the order of the pages, so that what a snippet exports is there for the next one.

    Where no value is looked at, tracing shows that it runs, and nothing has to be compiled.
    """
    place, _ = place_and_texts
    monkeypatch.setattr(SCHEMES, "_added", dict(SCHEMES._added))
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(place)
    assert len(SNIPPETS) > 10
    traced = 0
    for page, number, code in SNIPPETS:
        path = tmp_path / f"{page.replace('/', '_')}_{number}.py"
        path.write_text(code)

        def run_all(path=path):
            runpy.run_path(str(path), run_name="__main__")

        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            try:
                jax.eval_shape(run_all)
                traced += 1
            except jax.errors.JAXTypeError:  # it looks at a value
                run_all()
    assert 10 < traced < len(SNIPPETS) - 5


def test_every_framework_has_a_snippet():
    text = "\n".join(code for _, _, code in SNIPPETS)
    for module in ("flax.linen", "from flax import nnx", "equinox", "haiku", "dropjax.nnx"):
        assert f"import {module}" in text or module in text


def test_there_are_commands():
    assert {MAIN, "pip install .", "pytest", "pip install '.[dev]'"} <= set(commands())
    assert len(run_here()) >= len(RUN_HERE)


@pytest.mark.parametrize("command", sorted(set(commands()) - {"pytest"}))
def test_commands_name_what_exists(command):
    words = shlex.split(command)
    if words[:2] == ["pip", "install"]:
        assert re.fullmatch(r"\.(\[\w+\])?", words[2])
    else:
        assert words[:2] == ["python", "-m"], f"what is {command!r}?"
        assert (ROOT / (words[2].replace(".", "/") + ".py")).exists()


def zeros_like(init):
    """`Network.init` with zeros for its numbers, which take long to compile and decide nothing."""

    def shapes_alone(network, key, example):
        shapes = jax.eval_shape(lambda: init(network, key, example))
        return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)

    return shapes_alone


@pytest.mark.parametrize("command", sorted({c for c in commands() if "experiments.mnist" in c}))
def test_flags_of_experiments_are_right(command, tmp_path, monkeypatch):
    """All that can be wrong at launch is, but for the data, which is not here."""
    write_modules(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    words = shlex.split(command)[3:]
    values = run.define_flags(EXPERIMENT, FlagValues())
    assert values([command, *words]) == [command]
    given = flags.given(values)
    small = {"dataset": "digits", "data_dir": None, "validation": 0, "task": "auto"}
    monkeypatch.setattr(Network, "init", zeros_like(Network.init))
    set_up(EXPERIMENT, Flags(**given | small), lambda line: None)


def test_what_is_replayed_as_an_example_is_a_whole_batch(place_and_texts):
    run, page = (
        load(place_and_texts[0] / "runs" / "first"),
        README + PAGES[Path("dropjax/README.md")],
    )
    steps = {int(step) for step in re.findall(r"run\.batch\((\d+)\)", page)}
    for command in re.findall(r"python -m experiments.replay .*", page + (replay.__doc__ or "")):
        (step,) = map(int, re.findall(r"--step=(\d+)", command))
        assert set(map(int, re.findall(r"--row=(\d+)", command))) <= set(run.batch(step))
        steps.add(step)
    (step,) = steps
    assert len(run.batch(step)) == run.config["flags"]["batch_size"]


@pytest.mark.parametrize("module", ["mnist", "predict", "replay"])
def test_what_help_says_of_accuracies_stands_in_the_tables(module):
    text = importlib.import_module(f"experiments.{module}").__doc__ or ""
    measured = PAGES[Path("experiments/README.md")]
    for figure in re.findall(r"(\d[\d.]*) % test accuracy", text):
        assert re.search(rf"(?<![\d.]){re.escape(figure)}(?![\d.])", measured), figure


def test_the_reference_is_the_code_s():
    assert reference.PAGE.read_text() == reference.text(), "run python -m scripts.reference"


# Names in code, by the package that they are in. Equinox's own are `equinox.nn.`...
NAME = re.compile(
    r"(?<![\w./-])(?:dropjax|blocks|compare|core|data|evaluate|models|moments|ops|runs|schemes|train)"
    r"(?:\.[A-Za-z_]\w*)+"
)
TEXTS = [ROOT / "README.md", *(ROOT / "dropjax").rglob("*.py")]
TEXTS += [path for part in ("dropjax", "experiments") for path in (ROOT / part).rglob("*.md")]


def found(name: str) -> bool:
    """Whether what stands in a text can be imported by that name."""
    path = name.split(".")
    if path[0] == "moments":
        path.insert(0, "evaluate")
    path = path if path[0] == "dropjax" else ["dropjax", *path]
    value = dropjax
    for depth, part in enumerate(path[1:], 2):
        if not hasattr(value, part):
            try:
                importlib.import_module(".".join(path[:depth]))
            except ImportError:
                return False
        value = getattr(value, part)
    return True


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_name_in_a_text_exists(path):
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.M | re.S)
    spans = re.findall(r"(?<!`)`([^`]+)`(?!`)", text)
    names = {name for span in spans for name in NAME.findall(span)}
    general = {"dropjax.f", "dropjax.expected.f"}  # any function
    assert not {name for name in names - general if not found(name)}


def test_a_name_that_does_not_exist_is_found_out():
    assert found("dropjax.evaluate.weight_scaling") and found("train.losses.r_drop")
    assert not found("dropjax.evaluate.weight_scaling.weight_scaling") and not found("train.rdrop")


def test_the_map_names_every_folder_and_module():
    tree = README.partition("## The house")[2]
    for folder in (ROOT / "dropjax").iterdir():
        if folder.is_dir() and (folder / "__init__.py").exists():
            assert f"\n  {folder.name}/" in tree
    tracked = subprocess.run(
        ["git", "ls-files", "experiments", "scripts"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    for path in tracked:
        stem = path.rsplit("/", 1)[1].removesuffix(".py")
        assert stem in ("__init__", "README.md") or stem in tree, f"{path} is not on the map"
