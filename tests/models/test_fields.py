"""Texts of models are those of older runs, which a resume compares."""

import dataclasses

import pytest

from dropjax import models
from dropjax.runs import Network
from dropjax.schemes import parse

# As version 0.5.2 wrote them, with every default.
BEFORE = {
    "mlp": "mlp(widths=(512,256))",
    "rnn": 'rnn(cell="lstm",width=128,layers=1,gates="tied")',
    "cnn": (
        'cnn(channels=(32,64,128),blocks=1,kernel=3,pooling="max",dense=(128,),residual=False,'
        'norm="none")'
    ),
    "transformer": (
        'transformer(width=64,layers=2,heads=4,hidden=128,patch=4,pooling="mean",vocabulary=0)'
    ),
}


def text_of(text: str) -> str:
    return Network(models.parse(text, 3), parse("none")).text()


@pytest.mark.parametrize("name", BEFORE)
def test_a_model_at_its_defaults_has_the_text_that_it_had(name):
    assert text_of(name) == BEFORE[name] == text_of(BEFORE[name])


@pytest.mark.parametrize("text", ["rnn(dense=(32,))", 'cnn(padding="valid")'])
def test_an_argument_that_was_added_is_in_the_text_where_it_does_something(text):
    argument = text.partition("(")[2]
    assert text_of(text).endswith(f",{argument}") and text_of(text_of(text)) == text_of(text)


@pytest.mark.parametrize("name", BEFORE)
def test_every_argument_is_in_the_text_or_was_added(name):
    fields, text = dataclasses.fields(models.parse(name, 3)), text_of(name)
    names = {f.name for f in fields if f.name not in ("outputs", "parent", "name")}
    left_out = {argument for argument in names if f"{argument}=" not in text}
    assert left_out == {f.name for f in fields if f.metadata.get("added")}
