"""Where a scheme acts in a model: found by tracing, checked and printed before anything runs."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp

from dropjax.core.draw import Deterministic, Draw
from dropjax.core.scheme import Chain, Scheme, Sites, Weights
from dropjax.core.site import KINDS, Kind, Site
from dropjax.core.text import aligned
from dropjax.ops.keys import name_number

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class _Recorder(Deterministic):
    """A draw without noise that notes which sites the model declares."""

    scheme: Scheme = dataclasses.field(default_factory=Chain)
    sites: dict[str, tuple[Site, tuple[int, ...]]] = dataclasses.field(default_factory=dict)
    forks: tuple[int, ...] = ()
    seen: set[tuple[tuple[int, ...], str]] = dataclasses.field(default_factory=set)

    def _note(self, site: Site, shape: Sequence[int]) -> None:
        site = site.within(self.prefix)
        if (self.forks, site.name) in self.seen:
            raise ValueError(f"the model declares the site {site.name!r} twice")
        self.seen.add((self.forks, site.name))
        for name in self.sites:
            if name != site.name and name_number(name) == name_number(site.name):
                raise ValueError(
                    f"the sites {name!r} and {site.name!r} have the same crc32 and would draw the "
                    "same noise; rename one"
                )
        if len(site.axes) != len(shape):
            raise ValueError(
                f"site {site.name!r} names {len(site.axes)} axes {site.axes}, but its value has "
                f"shape {tuple(shape)}"
            )
        self.sites[site.name] = (site, tuple(shape))

    def fork(self, number: int) -> Self:
        # A fork draws noise of its own, so that it may meet the same sites again.
        return dataclasses.replace(self, forks=(*self.forks, number))

    def noise(self, site: Site, shape: Sequence[int]) -> Any:
        self._note(site, shape)
        return super().noise(site, shape)

    def linear(self, x: Array, w: Array, b: Array | None, site: Site) -> Array:
        self._note(site, w.shape)
        return super().linear(x, w, b, site)


def record(call: Callable[[Draw], Any]) -> Sites:
    """The sites of a model, by abstract tracing: nothing is computed.

    Args:
      call: runs the model on one example with the draw it is given.

    Returns:
      Each site with the shape of its value, by name, in the order the model meets them.

    Raises:
      ValueError: a name occurs twice, or a site's axes do not fit its value.
    """
    recorder = _Recorder()

    def traced() -> None:
        call(recorder)

    jax.eval_shape(traced)
    return recorder.sites


@dataclasses.dataclass(frozen=True)
class _Collector(Deterministic):
    """A draw without noise that notes the weights at the model's sites."""

    scheme: Scheme = dataclasses.field(default_factory=Chain)
    weights: dict[str, Array] = dataclasses.field(default_factory=dict)

    def apply(self, noise: Any, x: Array, site: Site, fallback: Array | None = None) -> Array:
        if KINDS[site.kind].weights:
            self.weights[site.within(self.prefix).name] = x
        return super().apply(noise, x, site, fallback)

    def linear(self, x: Array, w: Array, b: Array | None, site: Site) -> Array:
        self.weights[site.within(self.prefix).name] = w
        return super().linear(x, w, b, site)


def weights(call: Callable[[Draw], Any]) -> Weights:
    """The weights at a model's LINEAR, WEIGHT and TABLE sites.

    Args:
      call: runs the model on one example with the draw it is given. Its result is not used, so
        compiled code does not compute it.
    """
    collector = _Collector()
    call(collector)
    return collector.weights


def no_weights(sites: Sites) -> Weights:
    """Zeros in place of the weights, where only their shapes matter."""
    return {
        name: jnp.zeros(shape) for name, (site, shape) in sites.items() if KINDS[site.kind].weights
    }


def check(scheme: Scheme, sites: Sites, model: str = "the model") -> None:
    """Refuses a scheme if one of its links would do nothing, or not what its name says.

    Raises:
      ValueError: no site of the model is one for the link; or the link refuses its sites; or two
        links act on one linear site.
    """
    declared = [site for site, _ in sites.values()]
    for link in scheme.links:
        wanted = [site for site in declared if link.wants(site)]
        name = str(link)
        if not link.acts_on and not link.can_act_on:
            if type(link).sample is not Scheme.sample:
                raise ValueError(f"{name} acts on no kind of sites: set acts_on in its class")
            if len(scheme.links) > 1:
                raise ValueError(f"{name} does nothing in a chain; leave it out of {scheme}")
        elif not wanted:
            raise ValueError(_meets_none(link, declared, model))
        elif reason := link.refuses(wanted):
            raise ValueError(f"{name} on {model}: {reason}")
    for site in declared:
        wanting = [str(link) for link in scheme.links if link.wants(site)]
        if site.kind is Kind.LINEAR and len(wanting) > 1:
            raise ValueError(
                f"{' and '.join(wanting)} both act on the linear site {site.name!r}, which takes "
                "one scheme; narrow one of them with at=..."
            )


def _kinds(kinds: Any) -> str:
    return ", ".join(sorted(kind.name for kind in kinds))


def _meets_none(link: Scheme, declared: Sequence[Site], model: str) -> str:
    takes = link.acts_on | link.can_act_on if link.at else link.acts_on
    text = f"{link} acts on {_kinds(takes)} sites"
    if link.at:
        text += f" whose name matches {link.at!r}"
    text += f"; {model} declares " + ", ".join(f"{s.name} ({s.kind.name})" for s in declared)
    could = link.can_act_on & {site.kind for site in declared}
    if could and not link.at:
        text += f'. By name it can also act on {_kinds(could)} sites: at="..."'
    matching = [site for site in declared if re.search(link.at, site.name)] if link.at else []
    if matching:
        kinds = _kinds({site.kind for site in matching})
        text += f". What matches is of kind {kinds}, which the scheme's can_act_on does not name"
    elif link.made_for:
        text += f". It was made for {link.made_for}"
    return text + "."


def rows(scheme: Scheme, sites: Sites) -> list[dict[str, str]]:
    """The site table, a row for each site and each link that acts on it."""
    learned = jax.eval_shape(
        lambda: scheme.init_learned(jax.random.key(0), sites, no_weights(sites))
    )
    bound = scheme.bind(learned).links
    table = []
    for site, shape in sites.values():
        row = {"site": site.name, "kind": site.kind.name, "shape": str(shape)}
        acting = [
            (link, with_learned)
            for link, with_learned in zip(scheme.links, bound, strict=True)
            if link.wants(site)
        ]
        for link, with_learned in acting:
            noise = str(with_learned.noise_shape(site, shape))
            rates = [
                f"{value:g}" if name == "rate" else f"{name}={value:g}"
                for name, value in link.rates_at(site).items()
            ]
            table.append(row | {"scheme": str(link), "noise": noise, "rate": ",".join(rates)})
        if not acting:
            table.append(row | {"scheme": "-", "noise": "-", "rate": "-"})
    return table


def remarks(scheme: Scheme, sites: Sites) -> list[str]:
    """The links' warnings about the sites they act on, one a line; most have none."""
    names_of: dict[tuple[str, str], list[str]] = {}
    for link in scheme.links:
        for name, (site, shape) in sites.items():
            if link.wants(site) and (remark := link.remark(site, shape)):
                names_of.setdefault((str(link), remark), []).append(name)
    return [f"{link} at {', '.join(names)}: {text}" for (link, text), names in names_of.items()]


def table(scheme: Scheme, sites: Sites) -> str:
    """The site table as aligned text, and below it what there is to say of single sites."""
    lines = [["site", "kind", "shape", "scheme", "noise", "rate"]]
    lines += [list(row.values()) for row in rows(scheme, sites)]
    return "\n".join([*aligned(lines), *remarks(scheme, sites)]) + "\n"
