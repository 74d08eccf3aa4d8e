"""Training: optax under `jax.pmap` in compiled chunks, with checkpoints that resume exactly."""

from dropjax.train import augment, lanes, schedules
from dropjax.train.average import ema, last
from dropjax.train.decay import weights_alone
from dropjax.train.fit import Fitted, fit
from dropjax.train.keys import keys_of
from dropjax.train.lane import Lane
from dropjax.train.lanes import Lanes
from dropjax.train.losses import (
    fraternal,
    fraternal_loss,
    multi_sample,
    multi_sample_loss,
    r_drop,
    r_drop_loss,
)
from dropjax.train.objectives import OBJECTIVES
from dropjax.train.program import Chunk, Program, chunks
from dropjax.train.regularize import MaxNorm, WeightPenalty
from dropjax.train.replay import Replay
from dropjax.train.step import Examples, Problem, State
from dropjax.train.stopping import Best, Stopping, stopped

__all__ = [
    "OBJECTIVES",
    "Best",
    "Chunk",
    "Examples",
    "Fitted",
    "Lane",
    "Lanes",
    "MaxNorm",
    "Problem",
    "Program",
    "Replay",
    "State",
    "Stopping",
    "WeightPenalty",
    "augment",
    "chunks",
    "ema",
    "fit",
    "fraternal",
    "fraternal_loss",
    "keys_of",
    "lanes",
    "last",
    "multi_sample",
    "multi_sample_loss",
    "r_drop",
    "r_drop_loss",
    "schedules",
    "stopped",
    "weights_alone",
]
