"""What an experiment is: one value, which a module of `experiments` has under the name EXPERIMENT.

A new one is a file of its own beside mnist.py, with its value, its docstring (--help prints it) and
the same last lines. Records name it, and `find` gives the value again.
"""

import dataclasses
import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import experiments
from dropjax import data, evaluate, models
from dropjax.core.scheme import Scheme
from dropjax.train.objectives import OBJECTIVES, Objective

_FEW = 10_000


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Experiment:
    """An experiment: its data, models, objectives and measures.

    Args:
      name: that of its module: `python -m experiments.NAME` starts it.
      load: reads a data set, as `dropjax.data.load` does.
      datasets: the names that `load` knows.
      defaults: the defaults of flags by the name of a data set; see `defaults_for`.
      models: the names of the models that can be trained on its data.
      made_for: the text of the model for a scheme, by the model that the scheme was made for; ""
        stands for none in particular. One that is missing is taken as it is.
      objectives: for each task of a data set, the loss and what is watched beside it.
      measures: for each task, the functions (predictions, y) -> number that results have, by name.
        The first one must be NaN exactly if a prediction is not finite.
      bright_on_dark: the data sets whose images are bright drawings on a dark ground.
    """

    name: str
    load: Callable[..., data.Dataset] = data.load
    datasets: tuple[str, ...] = data.NAMES
    defaults: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    models: tuple[str, ...] = dataclasses.field(default_factory=lambda: tuple(models.names()))
    made_for: Mapping[str, str] = dataclasses.field(default_factory=lambda: {"": "mlp"})
    objectives: Mapping[str, Objective] = dataclasses.field(default_factory=lambda: OBJECTIVES)
    measures: Mapping[str, Mapping[str, Callable[..., float]]] = dataclasses.field(
        default_factory=lambda: evaluate.MEASURES
    )
    bright_on_dark: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """The words that start it."""
        return f"python -m experiments.{self.name}"

    def defaults_for(self, dataset: data.Dataset) -> Mapping[str, Any]:
        """The defaults of the flags that the data set decides."""
        few = len(dataset.y_train) < _FEW
        return {
            "validation": data.default_validation(dataset),
            "epochs": 50 if few else 10,
            "batch_size": min(32 if few else 128, len(dataset.y_train)),
            "learning_rate": 1e-3,
        } | dict(self.defaults.get(dataset.name, {}))

    def defaults_in_words(self, flag: str) -> list[str]:
        """The defaults that its data sets have for a flag, such as "digits 100"."""
        datasets: dict[Any, list[str]] = {}
        for dataset, defaults in self.defaults.items():
            if flag in defaults:
                datasets.setdefault(defaults[flag], []).append(dataset)
        return [f"{' and '.join(alike)} {value}" for value, alike in datasets.items()]

    def model_for(self, scheme: Scheme) -> str:
        """The model that a scheme was made for.

        Raises:
          ValueError: its links were made for different ones.
        """
        made_for = sorted({link.made_for for link in scheme.links} - {""})
        if len(made_for) > 1:
            raise ValueError(
                f"the links of {scheme} were made for {' and '.join(made_for)}: set --model"
            )
        name = made_for[0] if made_for else ""
        return self.made_for.get(name, name)

    def objective(self, task: str) -> Objective:
        """What is minimised in a task.

        Raises:
          ValueError: the experiment has no such task.
        """
        if task not in self.objectives:
            raise ValueError(
                f"task={task}: experiment {self.name} is for {', '.join(self.objectives)}"
            )
        return self.objectives[task]


def names() -> list[str]:
    """The names of all experiments: of the modules that have an EXPERIMENT. None is imported."""
    files = [
        Path(folder) / f"{module.name}.py"
        for folder in experiments.__path__
        for module in pkgutil.iter_modules([folder])
        if not module.ispkg
    ]
    has = re.compile(r"^EXPERIMENT\b", re.M)
    return sorted(file.stem for file in files if has.search(file.read_text("utf-8")))


def find(name: Any) -> Experiment:
    """The experiment of that name, which may stand in a file that somebody else wrote.

    Raises:
      ValueError: there is none; the message lists those that there are.
    """
    if not isinstance(name, str) or name not in names():
        raise ValueError(
            f"experiment={name!r}: there is none of that name, but {', '.join(names())}"
        )
    found = importlib.import_module(f"experiments.{name}").EXPERIMENT
    if not isinstance(found, Experiment) or found.name != name:
        raise ValueError(f"experiments.{name}: EXPERIMENT must be an Experiment of that name")
    return found
