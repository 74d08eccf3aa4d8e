"""Models from text: what is taken, and what is refused."""

import pytest

from dropjax import models
from dropjax.models.cnn import CNN
from dropjax.models.mlp import MLP
from dropjax.models.rnn import RNN

CNN_TEXT = 'cnn(channels=(8,4),blocks=2,kernel=5,pooling="average",residual=True,norm="batch")'


@pytest.mark.parametrize(
    ("text", "model"),
    [
        (CNN_TEXT, CNN(5, (8, 4), 2, 5, "average", (128,), True, "batch")),
        ("mlp(widths=(8,4))", MLP(5, (8, 4))),
        ("mlp", MLP(5)),
        ('rnn(cell="gru",width=7,layers=3)', RNN(5, "gru", 7, 3)),
        ('rnn(gates="untied")', RNN(5, gates="untied")),
    ],
)
def test_from_text(text, model):
    assert models.parse(text, 5) == model


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        ("cnn(channels=())", ValueError, "cnn: channels must name at least one stage"),
        ("cnn(channels=(8,0))", ValueError, r"cnn: channels must be positive, got \(8, 0\)"),
        ("cnn(blocks=0)", ValueError, "cnn: blocks must be positive, got 0"),
        ("cnn(dense=(-1,))", ValueError, "cnn: dense must be positive"),
        ("cnn(kernel=2)", ValueError, "cnn: kernel must be odd, got 2"),
        ('cnn(padding="full")', TypeError, "cnn: padding must be one of 'same', 'valid'"),
        ('cnn(padding="valid",residual=True)', ValueError, 'padding="valid" makes maps smaller'),
        ('cnn(padding="valid",kernel=1)', ValueError, 'padding="valid" would do nothing'),
        ("cnn(kernel=-1)", ValueError, "cnn: kernel must be odd, got -1"),
        ('cnn(pooling="sum")', TypeError, "cnn: pooling must be one of 'max', 'average'"),
        ('cnn(norm="layer")', TypeError, "cnn: norm must be one of 'none', 'batch'"),
        ("cnn(residual=1)", TypeError, "cnn: residual must be"),
        ("cnn(channels=8)", TypeError, "cnn: channels must be a tuple of integers"),
        ("mlp(widths=(0,))", ValueError, r"mlp: widths must be positive, got \(0,\)"),
        ("mlp(widths=(8,-1))", ValueError, "mlp: widths must be positive"),
        ("mlp(widths=8)", TypeError, "mlp: widths must be a tuple of integers.*got 8"),
        ("mlp(widths=(8.0,))", TypeError, "mlp: widths must be a tuple of integers"),
        ("mlp(widths=(True,))", TypeError, "mlp: widths must be a tuple of integers"),
        ("mlp(name='a')", ValueError, "mlp has no argument 'name'; it takes widths"),
        ("mpl", ValueError, "no model 'mpl'; did you mean mlp"),
        ("rnn(width=0)", ValueError, "width and layers must be positive, got width=0"),
        ("rnn(width=-1)", ValueError, "width and layers must be positive"),
        ("rnn(dense=(8,0))", ValueError, r"rnn: dense must be positive, got \(8, 0\)"),
        ("rnn(dense=8)", TypeError, "rnn: dense must be a tuple of integers"),
        ("rnn(layers=0)", ValueError, "width and layers must be positive.*layers=0"),
        ('rnn(cell="foo")', TypeError, "rnn: cell must be one of 'lstm', 'gru', 'elman', got 'f"),
        ("rnn(width=1.5)", TypeError, "rnn: width must be an integer, got 1.5"),
        ('rnn(gates="loose")', TypeError, "rnn: gates must be one of 'tied', 'untied'"),
        ('rnn(cell="elman",gates="untied")', ValueError, "would do nothing: elman has no gates"),
        ("transformer(width=6,heads=4)", ValueError, "width must be a multiple of heads=4, got 6"),
        ("transformer(layers=0)", ValueError, "layers must be positive, got 0"),
        ("transformer(vocabulary=-1)", ValueError, "vocabulary must be 0 or more"),
        ('transformer(pooling="max")', TypeError, "pooling must be one of 'mean', 'token'"),
        ("transformer(depth=3)", ValueError, "depth"),
    ],
)
def test_errors(text, error, match):
    with pytest.raises(error, match=match):
        models.parse(text, 3)
