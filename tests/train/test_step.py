"""The state of training: what it is called in Python, and in a checkpoint."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dropjax import Kind, Site
from dropjax.schemes import parse
from dropjax.train import Problem, State
from dropjax.train.checkpoint import flatten
from dropjax.train.step import Step


def initial_state() -> State:
    def model(params, x, draw):
        return draw.linear(x, params["w"], None, Site("hidden", Kind.LINEAR, ("input", "output")))

    problem = Problem(
        model, lambda z, y: {"loss": jnp.sum((z - y) ** 2)}, parse("concrete"), optax.sgd(0.1)
    )
    params = {"w": jnp.arange(6.0).reshape(3, 2)}
    step = Step(problem, 4, 2, (jax.devices()[0],)).with_sites(jnp.ones(3), params, {})
    return step.state(jax.random.key(0), jnp.ones(3), params, {}, ["loss"])


def test_what_is_trained_is_the_models_parameters_and_what_the_scheme_learns():
    state = initial_state()
    np.testing.assert_array_equal(state.trained.params["w"], np.arange(6.0).reshape(3, 2))
    assert state.trained.learned.keys() == {"hidden"}
    assert state.params == {"params": state.trained.params, "learned": state.trained.learned}


def test_a_checkpoint_names_the_arrays_as_version_0_5_2_did():
    assert flatten(initial_state()).keys() == {
        "step",
        "params/params/w",
        "params/learned/hidden/logit",
        "totals/loss",
        "totals/weight",
        "diverged_at",
    }
