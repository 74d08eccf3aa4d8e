"""Training: optax under `jax.pmap` in compiled chunks, with checkpoints that resume exactly."""

from dropjax.train import schedules
from dropjax.train.fit import Fitted, fit
from dropjax.train.loop import Chunk, chunks
from dropjax.train.losses import (
    fraternal,
    fraternal_loss,
    multi_sample,
    multi_sample_loss,
    r_drop,
    r_drop_loss,
)
from dropjax.train.objectives import OBJECTIVES
from dropjax.train.program import Examples, Problem, Program, State

__all__ = [
    "OBJECTIVES",
    "Chunk",
    "Examples",
    "Fitted",
    "Problem",
    "Program",
    "State",
    "chunks",
    "fit",
    "fraternal",
    "fraternal_loss",
    "multi_sample",
    "multi_sample_loss",
    "r_drop",
    "r_drop_loss",
    "schedules",
]
