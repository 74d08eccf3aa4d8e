"""Where schemes act in a model, with noise of which shape and at which rate; and where they cannot.

For images of 8 by 12 pixels, rows of 3 features or 5 tokens.
"""

import functools

import jax
import numpy as np
import pytest

from dropjax import models
from dropjax.core.plan import check, record, rows
from dropjax.schemes import parse

MODELS = {
    "cnn": ("cnn(channels=(3,5),dense=(4,))", np.ones((8, 12, 2), np.float32)),
    "residual": (
        "cnn(channels=(2,3),blocks=2,residual=True,dense=())",
        np.ones((8, 12, 2), np.float32),
    ),
    "mlp": ("mlp(widths=(4,))", np.ones((5, 3), np.float32)),
    "text": ("transformer(width=4,heads=2,layers=1,vocabulary=8)", np.arange(5)),
} | {
    cell: (f'rnn(cell="{cell}",width=4,layers=2)', np.ones((5, 3), np.float32))
    for cell in ("lstm", "gru", "elman")
}
CASES = {
    "cutout": ("cnn", ["input (8, 12, 1) 1"]),
    "random_erasing": ("cnn", ["input (8, 12, 1) 0.5"]),
    "spatial": ("cnn", ["stage_0/map (1, 1, 3) 0.2", "stage_1/map (1, 1, 5) 0.2"]),
    "feature_alpha": ("cnn", ["stage_0/map (1, 1, 3) 0.1", "stage_1/map (1, 1, 5) 0.1"]),
    'spatial(at="embedded")': ("text", ["embed/embedded (1, 4) 0.2"]),
    'feature_alpha(at="embedded")': ("text", ["embed/embedded (1, 4) 0.1"]),
    "dropblock": ("cnn", ["stage_0/map (4, 6, 3) 0.1", "stage_1/map (2, 3, 5) 0.1"]),
    'dropblock(per_channel=False,at="stage_0")': ("cnn", ["stage_0/map (4, 6, 1) 0.1"]),
    'dropblock(at="input")': ("cnn", ["input (8, 12, 2) 0.1"]),
    "embedding": ("text", ["embed/table (8, 1) 0.1"]),
    "word": ("text", ["embed/embedded (5, 1) 0.3"]),
    "rnn_drop": ("lstm", [f"layer_{i}/readout (1, 4) 0.25" for i in (0, 1)]),
    "recurrent": ("lstm", [f"layer_{i}/update (5, 4) 0.25" for i in (0, 1)]),
    'recurrent(mask="sequence")': ("gru", [f"layer_{i}/update (1, 4) 0.25" for i in (0, 1)]),
    "weight_drop": ("lstm", [f"layer_{i}/recurrent_kernel (4, 16) 0.5" for i in (0, 1)]),
}
BRANCHES = [f"stage_{i}/block_{j}/branch (1, 1, 1)" for i in (0, 1) for j in (0, 1)]
# Yamada et al. 2019 and Huang et al. 2016, section 3: p_l = l / L (1 - p_L).
LINEAR = [f"{branch} {(i + 1) / 8:g}" for i, branch in enumerate(BRANCHES)]
CONSTANT = [f"{branch} 0.5" for branch in BRANCHES]
for _name in ("shake_drop", "stochastic_depth"):
    CASES[f"{_name}(rate=0.5)"] = ("residual", LINEAR)
    CASES[f'{_name}(rate=0.5,rule="constant")'] = ("residual", CONSTANT)


@functools.cache
def sites_of(name):
    text, x = MODELS[name]
    return record(lambda draw: models.parse(text, 2).init(jax.random.key(0), x, draw))


@pytest.mark.parametrize("scheme", CASES)
def test_where_it_acts(scheme):
    model, wanted = CASES[scheme]
    check(parse(scheme), sites_of(model))
    acting = [row for row in rows(parse(scheme), sites_of(model)) if row["scheme"] != "-"]
    assert [f"{row['site']} {row['noise']} {row['rate']}" for row in acting] == wanted


@pytest.mark.parametrize(
    "scheme, model, reason",
    [
        ("cutout", "mlp", "its input has no height and width"),
        ("random_erasing", "mlp", "its input has no height and width"),
        ('dropblock(at="hidden")', "cnn", "a site it acts on has no spatial axis"),
        ("dropblock(block_size=(3,3,3))", "cnn", "has 3 sizes, but the sites it acts on have 2"),
        ('feature_alpha(at="hidden")', "mlp", "no site it acts on has a spatial axis.*alpha"),
        ('spatial(at="hidden")', "mlp", "no site it acts on has a spatial axis.*bernoulli"),
        ("embedding", "mlp", "acts on TABLE sites; the model declares input"),
        ("weight_drop", "mlp", "acts on WEIGHT sites; the model declares input"),
        ("recurrent", "elman", r"recurrent\(rate=0.25\) acts on UPDATE sites; the model"),
        ("rnn_drop", "elman", "rnn_drop.* acts on READOUT sites"),
        ("rnn_drop", "gru", "rnn_drop.* acts on READOUT sites"),
        ("shake_drop", "cnn", "acts on BRANCH sites; the model declares"),
        ("stochastic_depth", "cnn", "acts on BRANCH sites; the model declares"),
    ],
)
def test_where_it_cannot_act(scheme, model, reason):
    with pytest.raises(ValueError, match=reason):
        check(parse(scheme), sites_of(model))
