"""Where schemes act in a model, at which rate and with noise of which shape; where they cannot."""

import jax
import jax.numpy as jnp
import pytest

from dropjax import models
from dropjax.core.plan import check, record, rows
from dropjax.schemes import parse

RESIDUAL = "cnn(channels=(2,3),blocks=2,residual=True,dense=())"
BRANCHES = [f"stage_{i}/block_{j}/branch" for i in (0, 1) for j in (0, 1)]
CNN, MLP, ONE_STAGE = "cnn(channels=(3,5),dense=(4,))", "mlp(widths=(4,))", "cnn(channels=(3,))"
TEXT = "transformer(width=4,heads=2,layers=1,vocabulary=8)"


def sites_of(model, shape):
    x = jnp.zeros(shape, int if "vocabulary" in model else float)
    return record(lambda draw: models.parse(model, 2).init(jax.random.key(0), x, draw))


def branches(*rates):
    return {name: ("(1, 1, 1)", rate) for name, rate in zip(BRANCHES, rates, strict=True)}


@pytest.mark.parametrize(
    "scheme, model, shape, found",
    [
        ("cutout", ONE_STAGE, (4, 6, 2), {"input": ("(4, 6, 1)", "1")}),
        ("dropblock", ONE_STAGE, (8, 8, 2), {"stage_0/map": ("(4, 4, 3)", "0.1")}),
        (
            "dropblock(per_channel=False)",
            ONE_STAGE,
            (8, 10, 2),
            {"stage_0/map": ("(4, 5, 1)", "0.1")},
        ),
        ('dropblock(at="input")', ONE_STAGE, (8, 8, 2), {"input": ("(8, 8, 2)", "0.1")}),
        ("embedding", TEXT, (5,), {"embed/table": ("(8, 1)", "0.1")}),
        *(
            (scheme, CNN, (8, 12, 1), {f"stage_{i}/map": (f"(1, 1, {n})", rate) for i, n in maps})
            for maps in [[(0, 3), (1, 5)]]
            for scheme, rate in [("feature_alpha", "0.1"), ("spatial", "0.2")]
        ),
        ("random_erasing", ONE_STAGE, (4, 6, 2), {"input": ("(4, 6, 1)", "0.5")}),
        (
            "shake_drop(rate=0.5)",
            RESIDUAL,
            (4, 4, 1),
            branches("0.125", "0.25", "0.375", "0.5"),
        ),
    ],
)
def test_where_it_acts(scheme, model, shape, found):
    sites = sites_of(model, shape)
    check(parse(scheme), sites)
    acting = [row for row in rows(parse(scheme), sites) if row["scheme"] != "-"]
    assert {row["site"]: (row["noise"], row["rate"]) for row in acting} == found
