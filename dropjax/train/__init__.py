"""Training: optax under `jax.pmap` in compiled chunks, with checkpoints that resume exactly."""

from dropjax.train.fit import Fitted, fit
from dropjax.train.loop import Chunk, chunks
from dropjax.train.objectives import OBJECTIVES
from dropjax.train.program import Examples, Problem, Program, State
from dropjax.train.replay import Replay, keys_of

__all__ = [
    "OBJECTIVES",
    "Chunk",
    "Examples",
    "Fitted",
    "Problem",
    "Program",
    "Replay",
    "State",
    "chunks",
    "fit",
    "keys_of",
]
