"""The lists of arguments that --model=help and --dropout=help print."""

import pytest

from experiments import run
from experiments.arguments import help_on


def test_only_the_word_help_asks_for_a_list():
    assert help_on("bernoulli", "auto") == "" and help_on("none,help", "mlp") == ""
    models, schemes = help_on("bernoulli", "help"), help_on("help", "auto")
    assert "--model takes a name" in models and "transformer" in models
    assert "--dropout takes a name" in schemes and "zoneout" in schemes
    assert help_on("help", "help") == f"{schemes}\n\n{models}"


@pytest.fixture
def nothing_runs(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("something was run")

    monkeypatch.setattr(run, "run", refuse)


@pytest.mark.parametrize("flag", ["--model=help", "--dropout=help"])
def test_help_is_printed_and_nothing_runs(flag, nothing_runs, command, capsys):
    assert command(flag) == 0
    assert "takes a name" in capsys.readouterr().out
