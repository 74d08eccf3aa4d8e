import json
import re

import jax
import numpy as np
import pytest
from absl.flags import FlagValues

from dropjax import runs
from dropjax.core.strength import strength_at
from dropjax.train.devices import check_batch_size
from experiments import flags
from experiments.flags import Flags
from experiments.mnist import EXPERIMENT
from experiments.setup import LaunchError, set_up

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


def unread(*arguments, **options):
    raise AssertionError("the data was read before the flags were checked")


@pytest.mark.parametrize(
    ("flag", "text", "nearest", "also"),
    [
        ("dropout", "bernouli", "bernoulli", "zoneout"),
        ("dropout", "zonout(rate=0.1)", "zoneout", "variational"),
        ("dropout", "bernoulli|dropconect", "dropconnect", "none"),
        ("model", "mpl", "mlp", "rnn"),
        ("model", "rn(width=8)", "rnn", "mlp"),
        ("optimizer", "adamm", "adam", "sgd"),
        ("optimizer", "rmsprob(decay=0.9)", "rmsprop", "lion"),
        ("strength", "liner_schedule(init_value=0.0)", "linear_schedule", "exponential_decay"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(monkeypatch, flag, text, nearest, also):
    monkeypatch.setitem(vars(EXPERIMENT), "load", unread)
    message = refusal(**{flag: text})
    wrong = re.split(r"[|]", text)[-1].partition("(")[0]
    assert repr(wrong) in message
    assert re.search(rf"did you mean {nearest}\? There are: .*\b{also}\b", message)


@pytest.mark.parametrize(
    ("flag", "text", "words"),
    [
        ("dropout", "bernoulli(rat=0.1)", "no argument 'rat'; it takes .*rate"),
        ("model", "mlp(width=8)", "no argument 'width'; it takes widths"),
        ("model", "mlp(widths=8)", r"widths must be a tuple of integers"),
        ("model", "mlp(widths=(0,))", "widths must be positive"),
        ("model", 'rnn(cell="ltsm")', "cell must be one of 'lstm', 'gru', 'elman'"),
        ("optimizer", "sgd(momentun=0.9)", "no argument 'momentun'; it takes momentum"),
        ("optimizer", "adam(learning_rate=0.1)", "no argument 'learning_rate'"),
        ("strength", "linear_schedule(init_value=0.0)", "strength=.*end_value"),
    ],
)
def test_an_unknown_or_wrong_argument_is_named(monkeypatch, flag, text, words):
    monkeypatch.setitem(vars(EXPERIMENT), "load", unread)
    assert re.search(words, refusal(**{flag: text}))


@pytest.mark.parametrize("text", ["adam(b1='x')", "sgd(momentum='a')", "adam(eps=(1,2))"])
def test_an_optimizer_argument_of_a_wrong_type_is_found_at_launch(text):
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam mixes dtypes
        assert refusal(optimizer=text).startswith("optimizer=")
        set_up(
            EXPERIMENT, Flags(**SMALL | {"optimizer": text.partition("(")[0]}), silent
        )  # it is the argument


@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan"), float("inf")])
@pytest.mark.parametrize("by_flag", [True, False])
def test_a_rate_outside_0_to_1_is_refused(monkeypatch, rate, by_flag):
    monkeypatch.setitem(vars(EXPERIMENT), "load", unread)
    if by_flag:
        message = refusal(dropout="bernoulli", rate=rate)
    else:
        literal = {"nan": "1e400-1e400", "inf": "1e400"}.get(str(rate), str(rate))
        message = refusal(dropout=f"bernoulli(rate={literal})")
    assert "rate" in message
    assert re.search(r"\[0, 1\]|literal", message)


@pytest.mark.parametrize(
    "text",
    ["bernoulli(rate=0.5)", 'bernoulli(rate=0.5)|bernoulli(rate=0.2,at="input")', "none"],
)
def test_a_rate_that_would_set_nothing_is_refused(text):
    message = refusal(dropout=text, rate=0.3)
    assert "rate=0.3 would set nothing" in message and repr(text) in message


@pytest.mark.parametrize("strength", ["0.5", "0", RAMP.format(0.0, 1.0)])
def test_a_strength_without_dropout_is_refused(strength):
    message = refusal(dropout="none", strength=strength)
    assert f"strength={strength} would do nothing" in message and "none" in message


@pytest.mark.parametrize("penalty", ["0.5", "0", "10", RAMP.format(0.0, 1.0)])
@pytest.mark.parametrize("dropout", ["none", "bernoulli"])
def test_a_penalty_without_one_is_refused(dropout, penalty):
    message = refusal(dropout=dropout, penalty=penalty)
    assert f"penalty={penalty} would do nothing" in message and dropout in message


def test_a_penalty_is_a_number_or_a_schedule():
    given = SMALL | {"dropout": "concrete", "batch_size": 128, "epochs": 1}
    for text, values in [("10", [10, 10]), (RAMP.format(0.0, 2.0), [0, 0.02])]:
        penalty = set_up(EXPERIMENT, Flags(**given, penalty=text), silent).program.problem.penalty
        found = [float(strength_at(penalty, step)) for step in (0, 1)]
        assert found == pytest.approx(values)
    assert "penalty must stay in [0, inf)" in refusal(**given, penalty="-1")
    assert "did you mean linear_schedule" in refusal(**given, penalty="liner_schedule()")


def test_draws_without_noise_are_refused():
    assert "mc_samples=5 would do nothing: none has no noise" in refusal(
        dropout="none", mc_samples=5
    )


@pytest.mark.parametrize(
    ("strength", "words"),
    [
        ("1.5", "it is 1.5 at step 0"),
        ("-0.1", "it is -0.1 at step 0"),
        ("nan", "it is nan at step 0"),
        (RAMP.format(0.0, 2.0), "it is 1.02 at step 51"),
        (RAMP.format(1.0, -1.0), "it is -0.02 at step 51"),
    ],
)
def test_a_strength_that_leaves_0_to_1_is_refused(strength, words):
    message = refusal(strength=strength, epochs=10, batch_size=128)
    assert "strength must stay in [0, 1]" in message and words in message


def test_a_strength_may_leave_0_to_1_after_the_last_step():
    given = SMALL | {"strength": RAMP.format(0.0, 2.0), "batch_size": 128}
    assert (
        set_up(EXPERIMENT, Flags(**given, epochs=4), silent).program.steps_per_epoch == 11
    )  # 44 steps
    assert "at step 51" in refusal(**given, epochs=5)


def test_zoneout_on_an_mlp_names_its_sites_and_the_models():
    message = refusal(dropout="zoneout", model="mlp")
    assert message.startswith("zoneout(rate=0.1) acts on STATE sites; mlp declares ")
    for site in ("input (INPUT)", "layer_0/hidden (HIDDEN)", "head/linear (LINEAR)"):
        assert site in message


def test_variational_on_an_mlp_is_refused_for_want_of_time():
    message = refusal(dropout="variational", model="mlp")
    assert "variational" in message and "mlp" in message
    assert "no site it acts on has a time axis" in message and "bernoulli" in message


def test_a_site_that_nothing_matches_is_refused():
    message = refusal(dropout='bernoulli(rate=0.5,at="hiden")')
    assert "'hiden'" in message and "layer_0/hidden (HIDDEN)" in message


@pytest.mark.parametrize(
    ("size", "devices", "words"),
    [
        (10, 4, "batch_size=10 does not divide over 4 devices; 8 or 12 would"),
        (3, 4, "batch_size=3 does not divide over 4 devices; 4 would"),
        (0, 1, "batch_size must be at least 1, got 0"),
        (-4, 4, "batch_size must be at least 1, got -4"),
    ],
)
def test_a_batch_that_does_not_divide_over_the_devices_is_refused(size, devices, words):
    with pytest.raises(ValueError, match=f"^{words}$"):
        check_batch_size(size, devices)


@pytest.mark.parametrize(("size", "devices"), [(1, 1), (8, 4), (4, 4), (7, 1)])
def test_a_batch_that_divides_is_taken(size, devices):
    check_batch_size(size, devices)


def test_the_batch_is_checked_at_launch():
    assert "batch_size must be at least 1" in refusal(batch_size=0)


@pytest.mark.parametrize("implementation", ["rbg", "unsafe_rbg"])
def test_numbers_that_depend_on_batching_are_refused(monkeypatch, implementation):
    monkeypatch.setitem(vars(EXPERIMENT), "load", unread)
    with jax.default_prng_impl(implementation):
        message = refusal()
    assert f"jax_default_prng_impl={implementation}" in message and "threefry2x32" in message


def test_numbers_of_the_old_threefry_are_refused(monkeypatch):
    monkeypatch.setitem(vars(EXPERIMENT), "load", unread)
    with jax.threefry_partitionable(False):
        assert "jax_threefry_partitionable=False" in refusal()


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), -0.1])
def test_a_learning_rate_that_is_none_is_refused(rate):
    assert f"learning_rate must be a finite number from 0 on, got {rate}" in refusal(
        learning_rate=rate
    )


@pytest.mark.parametrize("validation", [-1, 9, 1428])
def test_a_validation_split_that_cannot_be_had_is_refused(validation):
    message = refusal(validation=validation)
    assert f"validation={validation}" in message and "from 10 to 1427" in message


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"data_dir": "."}, "data_dir would do nothing"),
        ({"dataset": "mnist"}, "mnist is not there"),
        ({"dataset": "mnist", "data_dir": "/nonexistent"}, "data_dir=/nonexistent is not a folder"),
        ({"dataset": "minst"}, "dataset must be one of"),
    ],
)
def test_errors_of_the_data_are_errors_of_the_launch(given, words):
    assert words in refusal(**given)


def test_the_data_may_lie_in_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/nonexistent")
    assert "data_dir=/nonexistent/x is not" in refusal(dataset="mnist", data_dir="~/x")


def test_every_default_is_filled_in_as_the_help_says():
    said: list[str] = []
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam mixes dtypes
        setup = set_up(EXPERIMENT, Flags(dropout="zoneout"), said.append)
    config = setup.config
    assert (config.dropout, config.rate) == ("zoneout(rate=0.1)", 0.1)
    assert config.model == 'rnn(cell="lstm",width=128,layers=1,gates="tied")'
    assert (config.dataset, config.data_dir, config.seed) == ("digits", None, 0)
    assert (config.optimizer, config.strength, config.mc_samples) == ("adam", "1", 20)
    for name in ("validation", "epochs", "batch_size", "learning_rate"):
        of = "less than 10,000 examples" if name == "batch_size" else "digits"
        found = re.search(rf"{of}\s+([\d.]+?)(,|\.$)", FLAGS[name].help)
        assert found is not None and getattr(config, name) == float(found[1])
    assert len(said) == 2
    assert said[0].startswith("NOT MNIST") and said[1] == f"model=auto: {config.model}"
    assert len(setup.dataset.y_validation) == config.validation
    batches = -(-len(setup.dataset.y_train) // config.batch_size)
    assert setup.program.steps_per_epoch == batches


def test_without_noise_nothing_is_drawn_by_default():
    config = set_up(EXPERIMENT, Flags(**SMALL, dropout="none"), silent).config
    assert (config.dropout, config.rate, config.mc_samples) == ("none", None, 0)


def test_a_rate_goes_to_the_links_that_have_none():
    text = 'bernoulli|bernoulli(rate=0.2,at="input")'
    config = set_up(EXPERIMENT, Flags(**SMALL, dropout=text, rate=0.3), silent).config
    assert config.dropout == 'bernoulli(rate=0.3)|bernoulli(rate=0.2,at="input")'
    assert config.rate is None


def test_initial_weights_follow_the_seed_and_not_the_scheme():
    def kernel(**given) -> np.ndarray:
        setup = set_up(EXPERIMENT, Flags(**(SMALL | given)), silent)
        return np.asarray(setup.params["layer_0"]["kernel"])

    assert np.array_equal(kernel(), kernel(dropout="none"))
    assert not np.array_equal(kernel(), kernel(seed=1))


def test_pixels_are_scaled_to_0_to_1():
    """The weights never see the data set's own range."""
    setup = set_up(EXPERIMENT, Flags(**SMALL, dropout="none"), silent)
    params = jax.tree.map(np.asarray, setup.params)
    x = setup.dataset.x_test[0]
    hidden = np.maximum(x.ravel() / 16 @ params["layer_0"]["kernel"], 0)
    logits = hidden @ params["head"]["kernel"]
    values = {"params": setup.params, "mutable": {}, "learned": {}, "strength": np.float32(1)}
    wanted = logits - np.log(np.exp(logits).sum())
    assert np.allclose(setup.network.prediction(values, x), wanted, atol=1e-5)


def test_a_part_of_the_training_data_is_the_same_for_two_schemes():
    def rows(**given) -> np.ndarray:
        setup = set_up(
            EXPERIMENT,
            Flags(**(SMALL | {"train_examples": 100, "batch_size": 32} | given)),
            silent,
        )
        assert setup.program.examples == len(setup.dataset.x_train) == 100
        assert setup.program.steps_per_epoch == 4
        assert np.bincount(setup.dataset.y_train).tolist() == [10] * 10
        assert len(setup.dataset.y_validation) == 144
        return setup.dataset.x_train

    assert np.array_equal(rows(dropout="bernoulli"), rows(dropout="none"))
    assert not np.array_equal(rows(), rows(seed=1))


@pytest.mark.parametrize("size", [0, 9, 1290, 2000])
def test_a_part_that_cannot_be_had_is_refused_at_launch(size):
    message = refusal(train_examples=size)
    assert f"train_examples={size}: digits has 1293 training examples of 10 classes" in message
    assert message.endswith("it must be from 10 to 1283, or 1293")


@pytest.mark.parametrize(("flag", "value", "least"), [("epochs", 0, 1), ("mc_samples", -1, 0)])
def test_a_number_that_is_too_small_is_refused(flag, value, least):
    """Also where no command line has checked it, as in a grid."""
    assert refusal(**{flag: value}) == f"{flag} must be at least {least}, got {value}"


def test_a_run_on_a_part_says_so_and_is_replayed(small_run):
    path = small_run(train_examples=300, seed=1, mc_samples=0)
    config = json.loads((path / "config.json").read_text())
    assert config["train_examples"] == config["flags"]["train_examples"] == 300
    assert "--train_examples=300" in config["command"]
    run = runs.load(path)
    replay = run.replay()
    assert replay.examples == 300 and replay.steps == 4
    batches = [replay.batch(step) for step in (0, 1)]
    assert sorted(np.concatenate(batches).tolist()) == list(range(300))
    grows = "linear_schedule(init_value=0.5,end_value=1.0,transition_steps=30)"  # as in tests/runs
    whole = json.loads((small_run(strength=grows) / "config.json").read_text())
    assert whole["train_examples"] == 1293 and whole["flags"]["train_examples"] is None
    assert config["data_sha256"] != whole["data_sha256"]
