"""What follows from the declaration of a flag."""

import dataclasses

import pytest
from absl.flags import FlagValues, IllegalFlagValueError

from experiments import flags
from experiments.flags import DECLARED, Config, Flags
from experiments.mnist import EXPERIMENT
from experiments.setup import resolve


@pytest.fixture(scope="module")
def config() -> Config:
    given = Flags(dataset="digits", dropout="bernoulli", rate=0.2, seed=3, optimizer="sgd")
    return resolve(EXPERIMENT, given, lambda line: None).config


def test_a_configuration_gives_itself_again(config):
    assert config.rate == 0.2 and config.as_flags().rate is None
    assert resolve(EXPERIMENT, config.as_flags(), lambda line: None).config == config
    assert config.as_flags(seed=4) == dataclasses.replace(config.as_flags(), seed=4)
    assert type(config.as_flags()) is Flags


def test_a_configuration_has_the_flags_in_their_order():
    """config.json has them so."""
    assert [*Config.__dataclass_fields__] == [*Flags.__dataclass_fields__] == [*DECLARED]


def test_what_the_data_decide_is_never_none(config):
    filled = EXPERIMENT.defaults_for(resolve(EXPERIMENT, config.as_flags(), print).whole)
    narrower = {*Config.__annotations__}
    assert narrower == {*filled, "test", "mc_samples"}
    assert all(getattr(Flags, name) is None for name in narrower)
    with pytest.raises(TypeError, match="missing 6 required keyword-only arguments"):
        Config()  # type: ignore[call-arg]


def test_flags_that_came_after_0_5_2_say_so():
    later = {name for name, flag in DECLARED.items() if flag.since > (0, 5, 2)}
    assert later == {
        *("test", "clip", "l1", "l2", "max_norm", "label_smoothing", "average"),
        *("augment", "mix"),
        *("patience", "min_gain", "monitor"),
    }


def test_each_kind_of_flag_is_parsed_and_bounded():
    values = FlagValues()
    flags.define(EXPERIMENT, values)
    assert {name: values[name].default for name in DECLARED} == vars(Flags())
    values(["mnist", "--seed=7", "--rate=0.25", "--task=binary", "--validation=0.1"])
    given = flags.given(values)
    assert (given["seed"], given["rate"], given["task"]) == (7, 0.25, "binary")
    assert given["validation"] == 0.1
    assert flags.typed(values) == {"seed", "rate", "task", "validation"}
    for wrong in ("--seed=-1", "--seed=2147483648", "--epochs=0", "--task=what", "--test=1.5"):
        with pytest.raises(IllegalFlagValueError):
            values(["mnist", wrong])


def test_texts_of_one_meaning_mean_the_same():
    for name, one, other in [
        ("strength", "1", "1.0"),
        ("penalty", "early(steps=10)", "early( steps=10 )"),
        ("optimizer", "sgd", "sgd()"),
    ]:
        assert flags.means(name, one) == flags.means(name, other)
    assert flags.means("optimizer", "sgd") != flags.means("optimizer", "adam")
    assert flags.means("model", "mlp") == "mlp"
