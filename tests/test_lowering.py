"""Everything compiles for GPUs and TPUs as far as can be seen without one: it lowers for them."""

import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import export
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import dropjax
from dropjax import models, schemes, train
from dropjax.core import plan
from dropjax.runs import Network
from tests.blocks.test_form import CALLS
from tests.conftest import IN_A_HURRY

PLATFORMS = ("cuda", "rocm", "tpu")
KEY, X = jax.random.key(0), jnp.ones((2, 8, 8, 3), jnp.bfloat16)


def weights(x):
    return jnp.ones((3, 3), x.dtype) * x.max()


FUNCTIONS = {name for name in dropjax.__all__ if inspect.isfunction(getattr(dropjax, name))} - {
    "derive",
    "deterministic",
    "masksembles_masks",
    "sampled",
}
SPECIAL = {
    "dropout, traced rate": lambda key, x: dropjax.dropout(key, x, x.min().astype("float32")),
    "dropout, 32 bits": lambda key, x: dropjax.dropout(key, x, 0.5, bits=32),
    "keep_mask": lambda key, x: dropjax.keep_mask(key, 0.5, x.shape),
    "zoneout": lambda key, x: dropjax.zoneout(key, x, 0.5, previous=x),
    "dropconnect_linear": lambda key, x: dropjax.dropconnect_linear(key, x, 0.5, w=weights(x)),
    "dropconnect_gaussian": lambda key, x: dropjax.dropconnect_gaussian(key, x, 0.5, w=weights(x)),
    "dropconnect_moments": lambda key, x: dropjax.dropconnect_moments(x, 0.5, w=weights(x)),
    "dropblock": lambda key, x: dropjax.dropblock(key, x, 0.5, 3),
    "drop_path": lambda key, x: dropjax.drop_path(key, x, 0.5, batch_axes=0),
    "shake_drop": lambda key, x: dropjax.shake_drop(key, x, 0.5, batch_axes=0),
    "weight_drop": lambda key, x: dropjax.weight_drop(key, {"w": x}, 0.5, match="w"),
    "word": lambda key, x: dropjax.word_dropout(key, x.astype("int32"), 0.5, unknown=1),
    "max_dropout": lambda key, x: dropjax.max_dropout(x, 0.5, batch_axes=0),
    "attention": lambda key, x: dropjax.attention_dropout(key, x, 0.5, scaling="row"),
    "head_drop": lambda key, x: dropjax.head_drop(key, x, 0.5, batch_axes=0),
    "layer_drop": lambda key, x: dropjax.layer_drop(key, x, 0.5, previous=-x),
    "mixout": lambda key, x: dropjax.mixout(key, x, 0.5, previous=-x),
    "standout": lambda key, x: dropjax.standout(key, x),
    "variational_gaussian": lambda key, x: dropjax.variational_gaussian_linear(
        key, x, jnp.zeros(()), w=weights(x)
    ),
    "sparse_variational": lambda key, x: dropjax.sparse_variational_linear(
        key, x, jnp.full_like(weights(x), -9), w=weights(x)
    ),
    "cutout": lambda key, x: dropjax.cutout(key, x, size=4),
    "random_erasing": lambda key, x: dropjax.random_erasing(key, x, fill="noise"),
}
"""Calls of functions that take more than a key, an array and a rate, or are tried with options."""


def at_half(function):
    return lambda key, x: function(key, x, 0.5)


OPS = (
    SPECIAL
    | {
        name: at_half(getattr(dropjax, name))
        for name in sorted(FUNCTIONS - {n for op in SPECIAL.values() for n in op.__code__.co_names})
    }
    | {"dropout": at_half(dropjax.dropout)}
)
SHARDED = OPS | {f"blocks.{name}": call for name, call in CALLS.items()}
NETWORKS = [
    (
        'cnn(channels=(4,),residual=True,norm="batch",dense=(8,))',
        "spatial|bernoulli|cutout(size=3)|stochastic_depth|gaussian",
    ),
    ("mlp(widths=(8,))", 'dropconnect(at="layer")|sparse_variational(at="head")|alpha'),
    ("transformer(width=8,layers=1,heads=2,hidden=8)", "attention|patch|layer_drop|concrete"),
    ('rnn(width=8,gates="untied")', "variational|zoneout|recurrent|weight_drop"),
]


def lowers(function, *arguments) -> str:
    module = export.export(jax.jit(function), platforms=PLATFORMS)(*arguments)
    assert module.platforms == PLATFORMS
    return module.mlir_module()


def gradient_of_total(op):
    def total(x):
        leaves = jax.tree.leaves(op(KEY, x))
        return sum(jnp.sum(leaf.astype("float32")) for leaf in leaves)

    return jax.grad(total)


def with_gradient(op):
    """An op and the gradient of its total, as one program."""

    def both(key, x):
        return op(key, x), gradient_of_total(op)(x)

    return both


@pytest.mark.parametrize("name", OPS)
def test_an_op_and_its_gradient_lower(name):
    lowers(with_gradient(OPS[name]), KEY, X)


@pytest.mark.parametrize(
    "axis, cannot",
    [(0, set()), (2, {"patch_dropout", "targeted_dropout"}), (3, {"controlled_dropout"})],
)
def test_on_an_explicit_mesh_an_op_takes_any_axis_or_says_how_to_make_it_whole(axis, cannot):
    """And of a batch, which is the axis that is split in training, its gradient too."""
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Explicit,))
    spec = PartitionSpec(*["data" if i == axis else None for i in range(X.ndim)])
    x = jax.ShapeDtypeStruct(X.shape, X.dtype, sharding=NamedSharding(mesh, spec))
    refused = {}
    with jax.set_mesh(mesh):
        for name, op in SHARDED.items():
            try:
                jax.eval_shape(op if axis else with_gradient(op), KEY, x)
            except ValueError as error:
                refused[name] = re.search(r"axis (-?\d) of (\w) is .* = (jax.*\))$", str(error))
        for name, said in refused.items():
            assert said and int(said[1]) % X.ndim == axis, name

            def advised(key, x, said=said, op=SHARDED[name]):
                return op(key, eval(said[3], {"jax": jax, said[2]: x}))

            jax.eval_shape(advised, KEY, x)
    assert set(refused) == cannot


def batch_of(size) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((size, *X.shape[1:]), X.dtype)


def in_a_hurry(function, *arguments):
    return jax.jit(function).lower(*arguments).compile(IN_A_HURRY)(*arguments)


def test_a_number_of_examples_that_is_left_open_changes_no_result():
    """With `jax.export` a size may be a symbol. An op then is the program that it is for a number
    but for the symbol, or, where JAX itself slices in another way, has the same values.
    """
    (batch,) = export.symbolic_shape("batch")
    columns = {"blocks.fractal_join"}  # its first axis is no batch

    def program(op, size) -> str:
        text = str(jax.make_jaxpr(op)(KEY, batch_of(size)))
        text = re.sub(r"(?:(\d+)\*)?batch\b", lambda m: str(len(X) * int(m[1] or 1)), text)
        return re.sub(r" at 0x\w+|\s", "", text)

    others = {
        name: op
        for name, op in SHARDED.items()
        if name not in columns and program(op, batch) != program(op, len(X))
    }
    assert len(others) < 4

    def values(key, x):
        return {name: op(key, x) for name, op in others.items()}

    x = jax.random.normal(KEY, X.shape, X.dtype)
    exported = export.export(jax.jit(values))(jax.eval_shape(lambda: KEY), batch_of(batch))
    actual, expected = in_a_hurry(exported.call, KEY, x), in_a_hurry(values, KEY, x)
    for name in others:
        for a, b in zip(*map(jax.tree.leaves, (actual[name], expected[name])), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.mark.parametrize("name", SHARDED)
def test_where_no_size_is_known_an_op_works_or_names_the_axis(name):
    sizes = export.symbolic_shape("batch, height, width, channels")
    x = jax.ShapeDtypeStruct(sizes, X.dtype)
    try:
        jax.eval_shape(SHARDED[name], KEY, x)
    except ValueError as error:
        assert re.search(
            r"the size of axis -?\d must be a number, as it |does not fit w", str(error)
        )


@pytest.mark.parametrize("model, scheme", NETWORKS)
def test_a_chunk_of_training_lowers(model, scheme):
    network = Network(models.parse(model, 3), schemes.parse(scheme))
    x, y = np.ones((6, 8, 8, 1), np.float32), np.arange(6, dtype=np.int32) % 3
    # Shapes are all that lowering asks for.
    shapes = jax.eval_shape(lambda: network.init(KEY, jnp.asarray(x[0])))
    params, mutable = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    problem = train.Problem(
        network.forward,
        train.OBJECTIVES["classification"],
        network.scheme,
        optax.adam(0.1),
        plan.record(lambda draw: network.outputs(params, x[0], draw, mutable)),
        stateful=bool(mutable),
    )
    program = train.Program(
        problem, train.Examples(x, y), key=KEY, batch_size=4, devices=jax.devices()[:1]
    )
    state = jax.eval_shape(
        lambda: program.step.state(KEY, x[0], params, mutable, ["accuracy", "loss"])
    )

    def chunk(state):
        # What a device runs, under the name of its axis, as pmap has it.
        def on_device(device):
            data, order = (jnp.asarray(x), jnp.asarray(y)), jnp.arange(6)
            return program._steps(device, state, KEY, data, order, 0, 2, 0)

        return jax.vmap(on_device, axis_name="device")(jnp.arange(1))

    text = lowers(chunk, state)
    # A CPU has patches and a matrix product instead.
    assert ("stablehlo.convolution" in text) == model.startswith("cnn")
