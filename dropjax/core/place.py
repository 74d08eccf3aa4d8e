"""A scheme at one place of a model that knows nothing of sites: for the layers of frameworks."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from dropjax.core.keys import Keys
from dropjax.core.scheme import Learned, Scheme, check_shape
from dropjax.core.site import AXES, KINDS, Site
from dropjax.core.spec import parse
from dropjax.ops.bits import sharding_like
from dropjax.ops.checks import check_floating, normalize_axes

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Place:
    """One place and what happens there. Made by `of`.

    Args:
      links: each link of the scheme, with the site that stands for this place.
      axes: how many axes an example has.
      shared: axes of the whole value along which one decision is shared, as numbers.
    """

    links: tuple[tuple[Scheme, Site], ...]
    axes: int
    shared: tuple[int, ...] = ()

    @classmethod
    def of(
        cls,
        scheme: Scheme | str,
        axes: str | Sequence[str],
        depth: float = 1.0,
        broadcast_dims: int | str | Sequence[int | str] = (),
    ) -> Self:
        """A place whose values have these axes last.

        Args:
          scheme: a scheme or its text.
          axes: names of an example's axes.
          depth: of the place.
          broadcast_dims: axes along which one decision is shared: numbers of axes of the whole
            value, batch included, or names out of `axes`.

        Raises:
          ValueError, TypeError: the scheme cannot act on a value alone, names sites by `at`, or
            has no use for these axes; or its text is wrong.
        """
        names = (axes,) if isinstance(axes, str) else tuple(axes)
        if not names or not set(names) <= set(AXES) or len(set(names)) != len(names):
            # Any other name would silently be taken for a spatial axis.
            raise ValueError(f"axes must be different names out of {', '.join(AXES)}; got {axes!r}")
        scheme = parse(scheme) if isinstance(scheme, str) else scheme
        if not isinstance(scheme, Scheme):
            raise TypeError(
                f'scheme must be a scheme or its text such as "bernoulli(rate=0.5)", got {scheme!r}'
            )
        links = scheme.links
        acting = [link for link in links if link.acts_on | link.can_act_on]  # all but `none`
        sites = tuple((link, _site(link, names, depth)) for link in acting)
        return cls(sites, len(names), _numbers(broadcast_dims, names))

    @property
    def idle(self) -> bool:
        """Whether nothing happens here: there is no scheme, or every rate of it is 0."""
        rates = [list(link.rates_at(site).values()) for link, site in self.links]
        return all(own and all(isinstance(r, float) and r == 0 for r in own) for own in rates)

    @property
    def rate(self) -> Any:
        """The rate of the one link that has one.

        Raises:
          AttributeError: no link has one, or several have.
        """
        return getattr(self._rated()[0], "rate")  # noqa: B009  (the base class has none)

    def with_rate(self, rate: float) -> Self:
        """The place with another rate of the one link that has one.

        Raises:
          AttributeError: no link has one, or several have.
          ValueError, TypeError: it is no rate.
        """
        rated, _ = self._rated()
        links = tuple(
            (dataclasses.replace(link, rate=rate) if link is rated else link, site)
            for link, site in self.links
        )
        return dataclasses.replace(self, links=links)

    def _rated(self) -> tuple[Scheme, Site]:
        rated = [pair for pair in self.links if hasattr(pair[0], "rate")]
        if len(rated) != 1:
            names = " and ".join(str(link) for link, _ in rated) or "no scheme here"
            raise AttributeError(f"there is no one rate to speak of: {names} has one")
        return rated[0]

    def __call__(self, x: Array, deterministic: bool, key: Callable[[], Array]) -> Array:
        """`x` with noise, or at its expectation: what the layers of all frameworks do.

        Args:
          x: floats.
          deterministic: evaluates.
          key: makes the PRNG key. It is called only where noise is drawn: not in evaluation, and
            not where the place is idle.
        """
        if deterministic:
            return self.expected(x)
        if self.idle:
            return self.checked(x)
        return self.sampled(key(), x)

    def sampled(self, key: Array, x: Array) -> Array:
        """`x` with noise: each member of the batch has its own, except along shared axes."""

        def of_member(x: Array, number: Array) -> Array:
            shape = [1 if i - x.ndim in shared else size for i, size in enumerate(x.shape)]
            for i, (link, site) in enumerate(self.links):
                if link.resizes and shape[0] != x.shape[0]:
                    raise ValueError(
                        f"{link} leaves out parts of x along {site.axes[0]!r}, and cannot share a "
                        f"decision along it: broadcast_dims={self.shared}"
                    )
                keys = Keys.of(key, number).within(f"link {i}")
                y = link.apply(link.sample(keys, site, shape), x, site, None)
                check_shape(link, "apply", site, y, x.shape)
                x = y
            return x

        x = self.checked(x)
        # From the end, as an example has no axes of the batch.
        shared = [a - x.ndim for a in normalize_axes(self.shared, x.ndim, "broadcast_dims")]
        return self._over_batch(of_member, x, shared)

    def expected(self, x: Array) -> Array:
        """`x` at the scheme's expectation."""

        def of_member(x: Array, number: Array) -> Array:
            del number
            for link, site in self.links:
                y = link.expected(x, site, None)
                check_shape(link, "expected", site, y, x.shape)
                x = y
            return x

        return self._over_batch(of_member, self.checked(x))

    def checked(self, x: Array) -> Array:
        """`x` as an array.

        Raises:
          TypeError: it holds no floats.
          ValueError: it has fewer axes than are named.
        """
        x = check_floating(x)
        if x.ndim < self.axes:
            raise ValueError(
                f"x has {x.ndim} axes, but {self.axes} are named; its shape: {x.shape}"
            )
        return x

    def _over_batch(
        self, of_member: Callable[[Array, Array], Array], x: Array, shared: Sequence[int] = ()
    ) -> Array:
        """`of_member(member, number)` of each member of the batch.

        Args:
          of_member: a function of one example and its number.
          x: the batch.
          shared: axes, counted from the end, along which all members have one number.
        """
        batch = x.shape[: x.ndim - self.axes]
        own = [1 if axis - x.ndim in shared else size for axis, size in enumerate(batch)]
        numbers = jnp.arange(math.prod(own)).reshape(own)
        if shared:
            numbers = jnp.broadcast_to(numbers, batch)
        if sharding := sharding_like(x, x.shape):
            spec = PartitionSpec(*sharding.spec[: len(batch)])
            numbers = jax.sharding.reshard(numbers, NamedSharding(sharding.mesh, spec))
        for _ in batch:
            of_member = jax.vmap(of_member)
        return of_member(x, numbers)


def _numbers(
    broadcast_dims: int | str | Sequence[int | str], names: Sequence[str]
) -> tuple[int, ...]:
    """Axes as numbers, those that were named counted from the end."""
    single = isinstance(broadcast_dims, (int, str))
    numbers = []
    for dim in (broadcast_dims,) if single else tuple(broadcast_dims):
        if isinstance(dim, str):
            if dim not in names:
                raise ValueError(
                    f"broadcast_dims names the axis {dim!r}; there are {', '.join(names)}. An axis "
                    "of the batch is a number"
                )
            dim = names.index(dim) - len(names)
        numbers.append(dim)
    return tuple(numbers)


def _site(link: Scheme, axes: tuple[str, ...], depth: float) -> Site:
    """The site that a link is shown in place of one that a model declares."""
    name = str(link)
    if link.at:
        raise ValueError(f"{name}: at would do nothing here, where there are no named sites")
    if isinstance(link, Learned):
        raise ValueError(
            f"{name} learns values of its own: give the model sites and train it with dropjax.train"
        )
    kinds = [kind for kind in KINDS if kind in link.acts_on | link.can_act_on]
    kind = next((kind for kind in kinds if not KINDS[kind].needs), None)
    if kind is None:
        raise ValueError(f"{name} needs {KINDS[kinds[0]].needs}")
    site = Site("drop", kind, axes, depth)
    if reason := link.refuses([site]):
        raise ValueError(f"{name} with axes={axes}: {reason}")
    return site
