"""An example of an ablation, analysed and drawn once for all tests."""

from typing import NamedTuple

import pytest
from matplotlib.figure import Figure

from experiments.ablation.cells import Outcome
from experiments.ablation.report import Analysis, analyse, figures
from tests.experiments.ablation.outcomes import example


class Drawn(NamedTuple):
    """All figures of the example by title: while Matplotlib has them, and as files."""

    figures: dict[str, Figure]
    pictures: dict[str, figures.Picture]


@pytest.fixture(scope="session")
def outcomes() -> list[Outcome]:
    return example()


@pytest.fixture(scope="session")
def analysis(outcomes) -> Analysis:
    return analyse(outcomes, baseline="none", task="classification")


@pytest.fixture(scope="session")
def drawn(analysis, outcomes) -> Drawn:
    made, png = [], figures.png
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "png", lambda figure: (made.append(figure), png(figure))[1])
        pictures, missing = figures.draw(analysis, outcomes)
    assert missing == {}
    return Drawn(dict(zip(pictures, made, strict=True)), pictures)
