"""From flags to cells: what is compared, and what is refused before anything runs."""

import dataclasses

import numpy as np
import pytest

from dropjax import data
from experiments.ablation import grid
from experiments.ablation.grid import Grid, Planned, Reader, parse_grid, plan_cells, values
from experiments.flags import in_id
from experiments.mnist import EXPERIMENT
from experiments.setup import LaunchError

FIXED = {"dataset": "digits", "model": "mlp(widths=(4,))", "epochs": 1, "optimizer": "sgd"}


def silent(line: str) -> None:
    raise AssertionError(f"nothing should be said, but: {line}")


def plan(*schemes: str, swept=None, seeds=1, say=silent, **fixed) -> list[Planned]:
    given = {k: v for k, v in (FIXED | fixed).items() if v is not None or k not in FIXED}
    return plan_cells(
        Grid(EXPERIMENT, schemes, swept or {}, tuple(range(seeds)), given), Reader(EXPERIMENT, say)
    )


def refusal(*schemes: str, **given) -> str:
    with pytest.raises(LaunchError) as caught:
        plan(*schemes, **given)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("none", ["none"]),
        ("none, bernoulli ,gaussian", ["none", "bernoulli", "gaussian"]),
        ('bernoulli(rate=0.2,at="a,b"),none', ['bernoulli(rate=0.2,at="a,b")', "none"]),
        (
            "bernoulli|dropconnect(rate=0.1),mlp(widths=(1,2))",
            ["bernoulli|dropconnect(rate=0.1)", "mlp(widths=(1,2))"],
        ),
    ],
)
def test_a_list_is_split_at_commas_outside_of_brackets_and_quotes(text, parts):
    assert list(values(text, "dropout")) == parts


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "dropout='' has an empty value"),
        ("none,", "has an empty value between its commas"),
        ("none,,bernoulli", "has an empty value"),
        ("none,bernoulli, none", "dropout has 'none' twice"),
        ("bernoulli(rate=0.1", r"does not close its \)"),
    ],
)
def test_a_list_with_a_gap_or_a_value_twice_is_refused(text, words):
    with pytest.raises(LaunchError, match=words):
        values(text, "dropout")


def test_swept_flags_have_the_types_of_their_flags():
    found = parse_grid("0.1,.3", "batch_size=32, 128; learning_rate=1e-3,3e-3 ;strength=0.5,1")
    assert found == {
        "rate": (0.1, 0.3),
        "batch_size": (32, 128),
        "learning_rate": (1e-3, 3e-3),
        "strength": ("0.5", "1"),
    }
    assert parse_grid(None, None) == {}
    text = "optimizer=sgd(momentum=0.9,nesterov=True),adam"
    rates = parse_grid(None, "learning_rate=0.1,cosine(peak=0.1,warmup=0.2)")["learning_rate"]
    assert rates == (0.1, "cosine(peak=0.1,warmup=0.2)")
    assert parse_grid(None, text)["optimizer"] == ("sgd(momentum=0.9,nesterov=True)", "adam")


@pytest.mark.parametrize(
    ("rate", "text", "words"),
    [
        (None, "batch_sice=32", "is not flag=value,value with one of train_examples, epochs"),
        (None, "batch_size", "'batch_size' is not flag=value,value"),
        (None, "batch_size=32;", "'' is not flag=value,value"),
        (None, "dropout=none", "has a list of its own, --dropout; what can be swept here: train"),
        (None, "rate=0.1", "has a list of its own, --rate; what"),
        (None, "seed=1,2", "has a list of its own, --seeds; what"),
        (
            None,
            "model=mlp",
            "cannot be swept: schemes are compared with one model; what can be: tr",
        ),
        (None, "dataset=digits", "cannot be swept: schemes are compared with one dataset; what"),
        (None, "epochs=1;epochs=2", "--grid names epochs twice"),
        (None, "epochs=1e3", "--grid: epochs must be integers, got 1e3"),
        (None, "clip=fast", "clip must be numbers, got fast"),
        (None, "learning_rate=1e-3,2(", r"does not close its \)"),
        (None, "learning_rate=1e-3,0.001", "learning_rate has a value twice"),
        (None, "epochs=", "--grid: epochs='' has an empty value$"),
        ("0.1,O.2", None, "--rate must be numbers, got 0.1, O.2"),
        ("0.1,0.10", None, "rate has a value twice"),
    ],
)
def test_a_grid_that_says_nothing_sensible_is_refused(rate, text, words):
    with pytest.raises(LaunchError, match=words):
        parse_grid(rate, text)


def ids(planned: list[Planned]) -> list[str]:
    return [one.cell.id for one in planned]


def test_cells_go_by_scheme_then_setting_then_seed():
    planned = plan("none", "bernoulli", swept={"rate": (0.1, 0.3), "batch_size": (64, 32)}, seeds=2)
    found = [(one.cell.scheme, *one.cell.setting.values(), one.cell.seed) for one in planned]
    wanted = [("none", None, batch_size, seed) for batch_size in (64, 32) for seed in (0, 1)]
    wanted += [
        ("bernoulli", rate, batch_size, seed)
        for rate in (0.1, 0.3)
        for batch_size in (64, 32)
        for seed in (0, 1)
    ]
    assert found == wanted
    assert all([*one.cell.setting] == ["rate", "batch_size"] for one in planned)
    last = planned[-1].cell
    assert last.config["dropout"] == "bernoulli(rate=0.3)" and last.config["batch_size"] == 32
    assert "--seed=1" in last.command and "'bernoulli(rate=0.3)'" in last.command
    assert len({*ids(planned)}) == len(planned)


@pytest.mark.parametrize(
    ("scheme", "model", "id"),
    [
        ("bernoulli(rate=0.25)", "mlp(widths=(4,))", "d39e3df4eab8"),
        ("none", "mlp(widths=(4,))", "6191665e973a"),
        ("none", "cnn", "d6ab585e8448"),
        ("none", "cnn(channels=(4,),dense=())", "d3a877fafc59"),
        ("none", "rnn(width=8)", "c55413e4237c"),
        ("none", "transformer", "501be4391cb6"),
    ],
)
def test_ids_are_those_of_version_0_5_2_on_every_model(scheme, model, id):
    """A change here makes every folder of an ablation run anew."""
    assert ids(plan(scheme, model=model)) == [id]


def test_a_flag_that_came_later_is_in_an_id_where_it_is_set():
    """--test, which 0.5.2 did not have."""
    config = plan("none")[0].resolved.config
    assert "test" not in in_id(config, {}) and "optimizer" in in_id(config, {})
    assert in_id(dataclasses.replace(config, test=100), {})["test"] == 100
    assert "test" not in in_id(dataclasses.replace(config, test=100), {"test": 100})


SMALLER = "batch_size=128 and 256 are the same: one full batch of 100 examples; leave one out"
WHOLE = "batch_size=1293 and 2000 are the same: one full batch of 12"


@pytest.mark.parametrize(
    ("scheme", "swept", "words"),
    [
        ("bernoulli", {"batch_size": (1293, 2000)}, WHOLE),
        ("bernoulli", {"strength": ("0.5", "0.50")}, "strength=0.5 and 0.50 are the same; leave"),
        ("concrete", {"penalty": ("1", "1.0")}, "penalty=1 and 1.0 are the same; leave one out"),
        ("bernoulli", {"optimizer": ("sgd", "sgd()")}, "optimizer=sgd and sgd() are the same; le"),
        ("none", {"train_examples": (100, 500), "batch_size": (128, 256)}, SMALLER),
        ("bernoulli", {"rate": (1.5,)}, "rate is the probability of dropping, in [0, 1]; got 1.5"),
        ("bernoulli", {"rate": (float("nan"),)}, "rate is the probability"),
        ("bernoulli", {"batch_size": (0,)}, "batch_size must be at least 1"),
        ("bernoulli", {"mc_samples": (-1,)}, "mc_samples must be at least 0, got -1"),
        ("bernoulli", {"train_examples": (0,)}, "train_examples=0: digits has 1293 training exam"),
        ("bernoulli", {"learning_rate": (-1.0,)}, "learning_rate must be a finite number"),
        ("bernoulli", {"strength": ("2",)}, "strength must stay in [0, 1]"),
        ("bernoulli", {"strength": ("liner_schedule",)}, "did you mean linear_schedule"),
        ("none", {"rate": (0.1,)}, "rate would do nothing for any of none, bernoulli(rate=0.1)"),
        ("bernouli", {}, "did you mean bernoulli"),
    ],
)
def test_what_computes_the_same_or_cannot_be_is_refused_before_anything_runs(scheme, swept, words):
    others = ["bernoulli(rate=0.1)"] if "rate" in swept and scheme == "none" else []
    fixed = {"optimizer": None} if "optimizer" in swept else {}
    assert words in refusal(scheme, *others, swept=swept, say=lambda line: None, **fixed)


def test_a_batch_of_more_than_all_examples_is_said():
    said: list[str] = []
    plan("none", batch_size=2000, say=said.append)
    assert said == [
        "batch_size=2000: each step is one full batch, as there are 1293 training examples"
    ]


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("validation", 200),
        ("train_examples", 100),
        ("epochs", 2),
        ("batch_size", 64),
        ("optimizer", "sgd(momentum=0.5)"),
        ("learning_rate", 0.5),
        ("strength", "0.5"),
        ("mc_samples", 3),
        ("model", "mlp(widths=(5,))"),
    ],
)
def test_an_id_changes_with_every_flag_that_matters(flag, value):
    first = ids(plan("bernoulli"))
    assert ids(plan("bernoulli")) == first != ids(plan("bernoulli", **{flag: value}))


def test_an_id_changes_with_the_scheme_the_seed_and_the_data(monkeypatch):
    (first,) = ids(plan("bernoulli"))
    assert ids(plan("bernoulli", seeds=2))[0] == first != ids(plan("bernoulli", seeds=2))[1]
    assert ids(plan("bernoulli(rate=0.5)")) == ids(plan("bernoulli()")) == [first]
    assert ids(plan("bernoulli(rate=0.4)")) != [first]
    digits = data.load("digits", None, say=silent)
    other = dataclasses.replace(digits, x_test=digits.x_test[::-1])
    with monkeypatch.context() as patch:
        patch.setitem(vars(EXPERIMENT), "load", lambda *arguments, **options: other)
        assert ids(plan("bernoulli")) != [first]
    monkeypatch.setattr(grid, "jax_setting", lambda name: name == "jax_enable_x64")
    assert ids(plan("bernoulli")) != [first], "in double precision"


def test_an_id_does_not_change_with_where_the_data_lies(monkeypatch, tmp_path):
    digits = dataclasses.replace(data.load("digits", None, say=silent), name="mnist")
    monkeypatch.setitem(vars(EXPERIMENT), "load", lambda *arguments, **options: digits)
    found = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        found += plan("none", dataset="mnist", validation=144, data_dir=str(tmp_path / name))
    first, second = (one.cell for one in found)
    assert first.id == second.id and first.config["data_dir"] != second.config["data_dir"]


@pytest.mark.parametrize(
    ("flag", "points", "schemes", "counts"),
    [
        ("strength", ("0.5", "1"), ("none", "bernoulli"), (1, 2)),
        ("penalty", ("0.5", "1"), ("bernoulli", "concrete"), (1, 2)),
        ("mc_samples", (2, 5), ("none", "bernoulli"), (1, 2)),
        ("rate", (0.2, 0.4), ("bernoulli(rate=0.1)", "gaussian"), (1, 2)),
    ],
)
def test_a_flag_is_swept_where_it_has_a_meaning(flag, points, schemes, counts):
    planned = plan(*schemes, swept={flag: points})
    for scheme, count in zip(schemes, counts, strict=True):
        own = [one.cell for one in planned if one.cell.scheme == scheme]
        assert [cell.setting[flag] for cell in own] == ([None] if count == 1 else [*points])


@pytest.mark.parametrize(
    ("flag", "value", "schemes"),
    [
        ("strength", "0.5", ("none",)),
        ("penalty", "2", ("none", "bernoulli")),
        ("mc_samples", 3, ("none",)),
    ],
)
def test_a_flag_that_means_nothing_for_any_scheme_is_refused(flag, value, schemes):
    words = f"{flag} would do nothing for any of {', '.join(schemes)}"
    assert words in refusal(*schemes, **{flag: value})
    assert words in refusal(*schemes, swept={flag: (value,)})


def test_a_fixed_flag_is_for_the_schemes_for_which_it_means_something():
    none, bernoulli = plan("none", "bernoulli", strength="0.5", mc_samples=3)
    assert (none.cell.config["strength"], none.cell.config["mc_samples"]) == ("1", 0)
    assert (bernoulli.cell.config["strength"], bernoulli.cell.config["mc_samples"]) == ("0.5", 3)


def test_a_flag_that_is_fixed_and_swept_or_fixed_at_what_cannot_be_is_refused():
    assert "epochs must be at least 1, got 0" in refusal("none", epochs=0)
    assert "--epochs is swept by --grid" in refusal("none", swept={"epochs": (1, 2)}, epochs=3)


def test_auto_is_the_model_that_all_schemes_were_made_for():
    said: list[str] = []
    planned = plan("none", "zoneout", model="auto", say=said.append)
    assert {one.cell.config["model"].partition("(")[0] for one in planned} == {"rnn"}
    assert said == ["model=auto: rnn, for all cells"]


def test_auto_is_refused_where_networks_would_differ_and_shared_models_are_named():
    message = refusal("none", "bernoulli", "zoneout", model="auto")
    assert "model=auto would be mlp for bernoulli, rnn for zoneout" in message
    assert message.endswith("Set --model: they all act on rnn")


def test_cells_of_one_split_share_its_arrays_and_read_the_data_once(monkeypatch):
    real, read = data.load, []

    def load(*arguments, **options):
        read.append(arguments)
        return real(*arguments, **options)

    monkeypatch.setitem(vars(EXPERIMENT), "load", load)
    planned = plan("none", "bernoulli", swept={"train_examples": (100, 200)}, seeds=2)
    assert len(read) == 1 and len(planned) == 8
    assert len({id(one.resolved.whole.x_train) for one in planned}) == 1
    by_subset: dict[tuple[int, int], set[int]] = {}
    for one in planned:
        config = one.resolved.config
        subset = by_subset.setdefault((config.train_examples, config.seed), set())
        subset.add(id(one.resolved.dataset.x_train))
        rows = one.resolved.whole.train_rows(config.train_examples, config.seed)
        assert np.array_equal(one.resolved.rows, rows)
        assert np.array_equal(one.resolved.dataset.x_train, one.resolved.whole.x_train[rows])
    assert len(by_subset) == 4 and all(len(arrays) == 1 for arrays in by_subset.values())
    # Each subset has a hash of its own, whatever the scheme.
    assert len({one.cell.config["data_sha256"] for one in planned}) == 4


def test_a_grid_of_too_many_cells_is_refused(monkeypatch):
    monkeypatch.setattr(grid, "MOST", 5)
    assert len(plan("none", seeds=5)) == 5
    assert "the grid has more than 5 cells" in refusal("none", seeds=6)
