import json
import re

import jax
import numpy as np
import pytest
from absl.flags import FlagValues

from dropjax import runs
from dropjax.core.strength import strength_at
from experiments import flags
from experiments.flags import Flags
from experiments.mnist import EXPERIMENT
from experiments.setup import LaunchError, Resolved, resolve, set_up

FLAGS = FlagValues()
flags.define(EXPERIMENT, FLAGS)
SMALL = {"dataset": "digits", "model": "mlp(widths=(8,))", "optimizer": "sgd"}
RAMP = "linear_schedule(init_value={},end_value={},transition_steps=100)"


def silent(line: str) -> None:
    raise AssertionError(f"nothing should be said, but: {line}")


def refusal(**given) -> str:
    with pytest.raises(LaunchError) as caught:
        set_up(EXPERIMENT, Flags(**(SMALL | given)), silent)
    return str(caught.value)


def resolved(**given) -> Resolved:
    return resolve(EXPERIMENT, Flags(**(SMALL | given)), silent)


@pytest.fixture
def unread(monkeypatch) -> None:
    """The flags are refused before the data is read."""

    def read(*arguments, **options):
        raise AssertionError("the data was read before the flags were checked")

    monkeypatch.setitem(vars(EXPERIMENT), "load", read)


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize(
    ("flag", "text", "nearest", "also"),
    [
        ("dropout", "bernouli", "bernoulli", "zoneout"),
        ("dropout", "bernoulli|dropconect", "dropconnect", "none"),
        ("model", "mpl", "mlp", "rnn"),
        ("optimizer", "adamm", "adam", "sgd"),
        ("strength", "liner_schedule(init_value=0.0)", "linear_schedule", "exponential_decay"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(flag, text, nearest, also):
    message = refusal(**{flag: text})
    wrong = re.split(r"[|]", text)[-1].partition("(")[0]
    assert repr(wrong) in message
    assert re.search(rf"did you mean {nearest}\? There are: .*\b{also}\b", message)


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize(
    ("flag", "text", "words"),
    [
        ("dropout", "bernoulli(rat=0.1)", "no argument 'rat'; it takes .*rate"),
        ("model", "mlp(width=8)", "no argument 'width'; it takes widths"),
        ("model", "mlp(widths=8)", r"widths must be a tuple of integers"),
        ("optimizer", "sgd(momentun=0.9)", "no argument 'momentun'; it takes momentum"),
        ("strength", "linear_schedule(init_value=0.0)", "strength=.*end_value"),
    ],
)
def test_an_unknown_or_wrong_argument_is_named(flag, text, words):
    assert re.search(words, refusal(**{flag: text}))


@pytest.mark.parametrize("text", ["adam(b1='x')", "sgd(momentum='a')", "adam(eps=(1,2))"])
def test_an_optimizer_argument_of_a_wrong_type_is_found_at_launch(text):
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam mixes dtypes
        assert refusal(optimizer=text).startswith("optimizer=")
        set_up(
            EXPERIMENT, Flags(**SMALL | {"optimizer": text.partition("(")[0]}), silent
        )  # it is the argument


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan"), float("inf")])
@pytest.mark.parametrize("by_flag", [True, False])
def test_a_rate_outside_0_to_1_is_refused(rate, by_flag):
    if by_flag:
        message = refusal(dropout="bernoulli", rate=rate)
    else:
        literal = {"nan": "1e400-1e400", "inf": "1e400"}.get(str(rate), str(rate))
        message = refusal(dropout=f"bernoulli(rate={literal})")
    assert "rate" in message
    assert re.search(r"\[0, 1\]|literal", message)


CHAIN = 'bernoulli(rate=0.5)|bernoulli(rate=0.2,at="input")'
TIMES = {"epochs": 10, "batch_size": 128}
NONE, BERNOULLI = {"dropout": "none"}, {"dropout": "bernoulli"}
GROWS = RAMP.format(0.0, 1.0)
NO_DRAWS = "mc_samples=5 would do nothing: none has no noise"
OF_PART = "digits has 1293 training examples of 10 classes"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        *[
            ({"dropout": text, "rate": 0.3}, ["rate=0.3 would set nothing", repr(text)])
            for text in ("bernoulli(rate=0.5)", CHAIN, "none")
        ],
        *[
            (NONE | {"strength": text}, [f"strength={text} would do nothing", "none"])
            for text in ("0.5", "0", GROWS)
        ],
        *[
            (given | {"penalty": text}, [f"penalty={text} would do nothing", given["dropout"]])
            for given in (NONE, BERNOULLI)
            for text in ("0.5", "0", "10", GROWS)
        ],
        (NONE | {"mc_samples": 5}, [NO_DRAWS]),
        *[
            (TIMES | {"strength": text}, ["strength must stay in [0, 1]", f"it is {words}"])
            for text, words in [
                ("1.5", "1.5 at step 0"),
                (RAMP.format(0.0, 2.0), "1.02 at step 51"),
            ]
        ],
        (
            {"dropout": "zoneout"},
            [
                *[
                    "zoneout(rate=0.1) acts on STATE sites; mlp(widths=(8,)) declares ",
                    "input (INPUT)",
                ],
                *["layer_0/hidden (HIDDEN)", "head/linear (LINEAR)"],
            ],
        ),
        (
            {"dropout": "variational"},
            ["variational", "mlp", "no site it acts on has a time axis", "bernoulli"],
        ),
        (
            {"dropout": 'bernoulli(rate=0.5,at="hiden")'},
            ["bernoulli(rate=0.5", "'hiden'", "layer_0/hidden (HIDDEN)"],
        ),
        ({"batch_size": 0}, ["batch_size must be at least 1"]),
        *[
            (
                {"learning_rate": rate},
                [f"learning_rate must be a finite number from 0 on, got {rate}"],
            )
            for rate in (float("nan"), float("inf"), -0.1)
        ],
        ({"validation": 9}, ["validation=9", "from 10 to 1427"]),
        ({"data_dir": "."}, ["data_dir would do nothing"]),
        ({"dataset": "mnist"}, ["mnist is not there"]),
        (
            {"dataset": "mnist", "data_dir": "/nonexistent"},
            ["data_dir=/nonexistent is not a folder"],
        ),
        ({"dataset": "minst"}, ["dataset must be one of"]),
        ({"train_examples": 9}, [f"train_examples=9: {OF_PART}", "from 10 to 1283, or 1293"]),
        # Also where no command line has checked it, as in a grid.
        ({"epochs": 0}, ["epochs must be at least 1, got 0"]),
        ({"mc_samples": -1}, ["mc_samples must be at least 0, got -1"]),
    ],
)
def test_flags_that_cannot_be_are_refused_and_it_is_said_why(given, words):
    message = refusal(**given)
    assert message.startswith(words[0])
    assert all(each in message for each in words)


def test_a_penalty_is_a_number_or_a_schedule():
    given = {"dropout": "concrete", "batch_size": 128, "epochs": 1}
    for text, values in [("10", [10, 10]), (RAMP.format(0.0, 2.0), [0, 0.02])]:
        penalty = resolved(**given, penalty=text).problem().penalty
        found = [float(strength_at(penalty, step)) for step in (0, 1)]
        assert found == pytest.approx(values)
    assert "penalty must stay in [0, inf)" in refusal(**given, penalty="-1")
    assert "did you mean linear_schedule" in refusal(**given, penalty="liner_schedule()")


def test_a_strength_may_leave_0_to_1_after_the_last_step():
    given = {"strength": RAMP.format(0.0, 2.0), "batch_size": 128}  # 11 steps an epoch
    assert resolved(**given, epochs=4)
    assert "at step 51" in refusal(**given, epochs=5)


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("implementation", ["rbg", "unsafe_rbg"])
def test_numbers_that_depend_on_batching_are_refused(implementation):
    with jax.default_prng_impl(implementation):
        message = refusal()
    assert f"jax_default_prng_impl={implementation}" in message and "threefry2x32" in message


@pytest.mark.usefixtures("unread")
def test_numbers_of_the_old_threefry_are_refused():
    with jax.threefry_partitionable(False):
        assert "jax_threefry_partitionable=False" in refusal()


def test_the_data_may_lie_in_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/nonexistent")
    assert "data_dir=/nonexistent/x is not" in refusal(dataset="mnist", data_dir="~/x")


def test_every_default_is_filled_in_as_the_help_says():
    said: list[str] = []
    found = resolve(EXPERIMENT, Flags(dropout="zoneout"), said.append)
    config = found.config
    assert (config.dropout, config.rate) == ("zoneout(rate=0.1)", 0.1)
    assert config.model == 'rnn(cell="lstm",width=128,layers=1,gates="tied")'
    assert (config.dataset, config.data_dir, config.seed) == ("digits", None, 0)
    assert (config.optimizer, config.strength, config.mc_samples) == ("adam", "1", 20)
    for name in ("validation", "epochs", "batch_size", "learning_rate"):
        of = "less than 10,000 examples" if name == "batch_size" else "digits"
        told = re.search(rf"{of}\s+([\d.]+?)(,|\.$)", FLAGS[name].help)
        assert told is not None and getattr(config, name) == float(told[1])
    assert len(said) == 2
    assert said[0].startswith("NOT MNIST") and said[1] == f"model=auto: {config.model}"
    assert len(found.dataset.y_validation) == config.validation


def test_without_noise_nothing_is_drawn_by_default():
    config = resolved(dropout="none").config
    assert (config.dropout, config.rate, config.mc_samples) == ("none", None, 0)


def test_a_rate_goes_to_the_links_that_have_none():
    text = 'bernoulli|bernoulli(rate=0.2,at="input")'
    config = resolved(dropout=text, rate=0.3).config
    assert config.dropout == 'bernoulli(rate=0.3)|bernoulli(rate=0.2,at="input")'
    assert config.rate is None


def test_initial_weights_follow_the_seed_and_not_the_scheme():
    def kernel(**given) -> np.ndarray:
        return np.asarray(resolved(**given).init()[0]["layer_0"]["kernel"])

    assert np.array_equal(kernel(), kernel(dropout="none"))
    assert not np.array_equal(kernel(), kernel(seed=1))


def test_pixels_are_scaled_to_0_to_1():
    """The weights never see the data set's own range."""
    found = resolved(dropout="none")
    made, _ = found.init()
    params = jax.tree.map(np.asarray, made)
    x = found.dataset.x_test[0]
    hidden = np.maximum(x.ravel() / 16 @ params["layer_0"]["kernel"], 0)
    logits = hidden @ params["head"]["kernel"]
    values = {"params": made, "mutable": {}, "learned": {}, "strength": np.float32(1)}
    wanted = logits - np.log(np.exp(logits).sum())
    assert np.allclose(found.network.prediction(values, x), wanted, atol=1e-5)


def test_a_part_of_the_training_data_is_the_same_for_two_schemes():
    def rows(**given) -> np.ndarray:
        found = resolved(train_examples=100, **given)
        assert len(found.examples()) == len(found.dataset.x_train) == 100
        assert np.bincount(found.dataset.y_train).tolist() == [10] * 10
        assert len(found.dataset.y_validation) == 144
        return found.dataset.x_train

    assert np.array_equal(rows(dropout="bernoulli"), rows(dropout="none"))
    assert not np.array_equal(rows(), rows(seed=1))


def test_a_run_on_a_part_says_so_and_is_replayed(part_run, some_run):
    config = json.loads((part_run / "config.json").read_text())
    assert config["train_examples"] == config["flags"]["train_examples"] == 300
    assert "--train_examples=300" in config["command"]
    run = runs.load(part_run)
    replay = run.replay()
    assert replay.examples == 300 and replay.steps == 4
    batches = [replay.batch(step) for step in (0, 1)]
    assert sorted(np.concatenate(batches).tolist()) == list(range(300))
    whole = json.loads((some_run / "config.json").read_text())
    assert whole["train_examples"] == 1293 and whole["flags"]["train_examples"] is None
    assert config["data_sha256"] != whole["data_sha256"]
