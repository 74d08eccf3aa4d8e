"""The product with a gradient of its own is the product, under every transformation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from dropjax.ops.matmul import matmul

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (3, 4, 5))
W = jax.random.normal(jax.random.key(1), (5, 6))
WS = jax.random.normal(jax.random.key(2), (3, 5, 6))


def close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5), a, b)


def both(f):
    """What f makes of our product and of JAX's."""
    return f(matmul), f(lambda x, w: x @ w)


def loss(product):
    return lambda x, w: jnp.sum(jnp.sin(product(x, w)))


@pytest.mark.parametrize("x", [X, X[0], X[0, 0]], ids=lambda x: f"{x.ndim} axes")
def test_value_and_gradients(x):
    close(*both(lambda m: m(x, W)))
    close(*both(lambda m: jax.jit(m)(x, W)))
    close(*both(lambda m: jax.grad(loss(m), argnums=(0, 1))(x, W)))
    close(*both(lambda m: jax.jvp(loss(m), (x, W), (x + 1, W + 1))))
    close(*both(lambda m: jax.hessian(loss(m), argnums=1)(x, W)))


def test_under_vmap_with_the_weights_shared_or_not():
    close(*both(lambda m: jax.vmap(m, (0, None))(X, W)))
    close(*both(lambda m: jax.vmap(m, (1, None), 1)(X, W)))
    close(*both(lambda m: jax.vmap(m)(X, WS)))
    close(*both(lambda m: jax.vmap(m, (None, 0))(X[0], WS)))
    close(*both(lambda m: jax.vmap(jax.grad(loss(m), argnums=1), (0, None))(X, W)))

    def lanes(m):
        over_both = jax.vmap(jax.vmap(loss(m), (0, None)), (None, 0))
        return lambda x, ws: jnp.sum(over_both(x, ws))

    close(*both(lambda m: jax.grad(lanes(m), argnums=(0, 1))(X, WS)))


def test_the_gradient_of_a_batch_has_no_axis_of_examples_inside():
    """The reason why it is a primitive: B gradients of the weights would be B times the memory."""

    def total(w):
        return jnp.sum(jax.vmap(loss(matmul), (0, None))(X, w))

    def shapes(jaxpr):
        for equation in jaxpr.eqns:
            yield from (v.aval.shape for v in equation.outvars)
            for inner in jax.tree.leaves(list(equation.params.values())):
                if hasattr(inner, "jaxpr"):
                    yield from shapes(inner.jaxpr)

    assert (3, 5, 6) not in set(shapes(jax.make_jaxpr(jax.grad(total))(W).jaxpr))


def test_dtypes_are_kept_and_mixed_ones_are_jax_s_business():
    assert matmul(X.astype("bfloat16"), W.astype("bfloat16")).dtype == jnp.bfloat16
    gradient = jax.grad(lambda x: jnp.sum(matmul(x, W.astype("bfloat16"))))(X.astype("bfloat16"))
    assert gradient.dtype == jnp.bfloat16
    with jax.numpy_dtype_promotion("standard"):
        assert matmul(X, W.astype("bfloat16")).dtype == jnp.float32


def test_in_scan_and_under_checkpoint():
    def run(m):
        def step(h, x):
            h = jnp.tanh(jax.checkpoint(m)(h, W[:, :5]) + x)
            return h, h

        return lambda x: jnp.sum(jax.lax.scan(step, x[0], x)[1])

    close(*both(lambda m: jax.grad(run(m))(X[0])))


def test_on_explicit_meshes_and_in_shard_map():
    mesh = jax.make_mesh((1,), ("d",), axis_types=(AxisType.Explicit,))
    spec = PartitionSpec("d")
    with jax.set_mesh(mesh):
        x = jax.device_put(X, NamedSharding(mesh, spec))
        close(matmul(x, W), X @ W)
        close(jax.grad(loss(matmul))(x, W), jax.grad(loss(jnp.matmul))(X, W))
    mesh = jax.make_mesh((1,), ("d",), axis_types=(AxisType.Auto,))
    mapped = jax.shard_map(
        lambda x, w: jax.lax.psum(loss(matmul)(x, w), "d"),
        mesh=mesh,
        in_specs=(spec, PartitionSpec()),
        out_specs=PartitionSpec(),
    )
    close(jax.grad(mapped, argnums=1)(X, W), jax.grad(loss(jnp.matmul), argnums=1)(X, W))
