"""Training: optax under `jax.pmap` in compiled chunks, with checkpoints that resume exactly."""

from dropjax.train.loop import Chunk, chunks
from dropjax.train.program import Examples, Problem, Program, State

__all__ = ["Chunk", "Examples", "Problem", "Program", "State", "chunks"]
