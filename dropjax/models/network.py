"""A model on examples as they are in the data: how they are scaled, and what predictions mean."""

import dataclasses
import functools
from typing import Any, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from dropjax import evaluate
from dropjax.core.draw import CLEAN, Draw, deterministic, sampled
from dropjax.core.keys import Keys
from dropjax.core.literals import format_call
from dropjax.core.scheme import Scheme
from dropjax.core.spec import parse
from dropjax.evaluate.predict import sample_key_of
from dropjax.models import MODELS
from dropjax.models import parse as parse_model
from dropjax.models.fields import is_as_before

Array = jax.Array


def vocabulary_of(module: nn.Module) -> int:
    """How many types of tokens a module reads: its `vocabulary`; 0 if it reads no tokens."""
    return getattr(module, "vocabulary", 0)


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A Flax module that takes (x, draw), with its scheme, on one example as it is in the data.

    Predictions depend on `values`: {"params": the module's parameters, "mutable": its other
    collections, such as batch norm's running means, "learned": what the scheme has learned,
    "strength": the factor of its rates}. Networks with equal modules, schemes and numbers are equal
    and share their compiled programs, so that many runs can be loaded in one process.

    Args:
      module: the Flax module.
      scheme: with nothing learned and no strength applied yet.
      task: "classification", "binary" or "regression".
      shift, scale: the module sees (x - shift) / scale. A module with a vocabulary sees tokens as
        they are.
      target_shift, target_scale: for regression, where the module predicts
        (y - target_shift) / target_scale.
      origin, target_origin: numbers that were subtracted from the data's x and y in float64, before
        they became the float32 that the methods here take and return; 0 for most data.
      classes: the classes' names, by label; () if they have none.
    """

    module: nn.Module
    scheme: Scheme
    task: str = "classification"
    shift: ArrayLike = 0.0
    scale: ArrayLike = 1.0
    target_shift: ArrayLike = 0.0
    target_scale: ArrayLike = 1.0
    origin: ArrayLike = 0.0
    target_origin: ArrayLike = 0.0
    classes: tuple[str, ...] = ()

    @property
    def vocabulary(self) -> int:
        """How many types of tokens the module reads; 0 if it reads no tokens."""
        return vocabulary_of(self.module)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Network) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @functools.cached_property
    def _identity(self) -> Any:
        """A value that equal networks have in common; of its own if it cannot be compared."""
        leaves, structure = jax.tree.flatten(self.scheme)
        numbers = (*leaves, self.shift, self.scale, self.target_shift, self.target_scale)
        numbers += (self.origin, self.target_origin)
        try:
            # The type counts: a Python number promotes otherwise than an array.
            known = [(type(n), np.asarray(n).dtype.str, *_bits(n)) for n in numbers]
            identity = (type(self), self.module, structure, self.task, self.classes, *known)
            hash(identity)
        except TypeError:  # numbers are traced, or a module of one's own has a list
            return object()
        return identity

    def init(self, key: Array, x: Any) -> tuple[Any, Any]:
        """Initial parameters, and initial mutable variables ({} for most modules)."""
        inputs = self.inputs(x)
        # Compiled, as it takes several times as long op by op.
        variables = dict(jax.jit(lambda key: self.module.init(key, inputs, CLEAN))(key))
        return variables.pop("params"), variables

    def inputs(self, x: Any) -> Array:
        """What the module is given for one raw example: (x - shift) / scale, or its tokens."""
        if self.vocabulary:
            return jnp.asarray(x)
        shift, scale = (jnp.asarray(n, jnp.float32) for n in (self.shift, self.scale))
        return (jnp.asarray(x).astype(jnp.float32) - shift) / scale

    def outputs(self, params: Any, x: Any, draw: Draw, mutable: Any) -> Array:
        """The module's outputs for one example. Its mutable variables are not updated."""
        return self._apply({"params": params, **mutable}, x, draw)  # type: ignore[return-value]

    def forward(self, params: Any, x: Any, draw: Draw, mutable: Any = None) -> Any:
        """The outputs in training, of one example: what `train.Problem` takes for `apply`.

        Args:
          params: the module's parameters.
          x: an example, as it is in the data.
          draw: of the example.
          mutable: the module's mutable variables; None for a module without any. With them it
            returns (outputs, new variables), as a `stateful` problem needs.
        """
        if mutable is None:
            return self.outputs(params, x, draw, {})
        return self._apply({"params": params, **mutable}, x, draw, mutable=list(mutable))  # type: ignore[return-value]

    def prediction(self, values: Any, x: Array) -> Array:
        """The prediction for one example, without noise.

        Returns:
          For classification the log-probabilities (classes,), for a binary task (2,); for
          regression (targets,), in the units of the data, less `target_origin`.
        """
        return self._predicted(values, x, deterministic(self._bound(values)))

    def predictions(self, values: Any, xs: Any, *, batch_size: int = 1000) -> Array:
        """`prediction` for many examples.

        Args:
          values: see the class.
          xs: (examples, ...).
          batch_size: examples computed at a time; bounds the memory.
        """
        function = _Method(self, "prediction")
        return evaluate.map_examples(function, values, xs, batch_size=batch_size)

    def sampled_prediction(self, values: Any, x: Array, keys: Keys) -> Array:
        """`prediction` under one draw of the noise."""
        return self._predicted(values, x, sampled(self.scheme_in_evaluation(values), keys))

    def probabilities(self, values: Any, x: Array, keys: Keys) -> Array:
        """`sampled_prediction`, with probabilities instead of their logarithms."""
        prediction = self.sampled_prediction(values, x, keys)
        return prediction if self.task == "regression" else jnp.exp(prediction)

    def scheme_in_evaluation(self, values: Any) -> Scheme:
        """The scheme for sampled predictions: with learned values, and without augmentation."""
        return self._bound(values).in_evaluation()

    def monte_carlo(
        self, values: Any, xs: Any, key: Array, *, samples: int, batch_size: int
    ) -> Array:
        """Predictions for many examples, averaged over draws of the noise.

        Probabilities are averaged, not their logarithms. If the scheme draws nothing at the sites
        of this model, these are the predictions of one draw.

        Args:
          values: see the class.
          xs: (examples, ...).
          key: PRNG key.
          samples: draws an example.
          batch_size: examples computed at a time; bounds the memory.
        """
        draw = _Method(self, "sampled_prediction")
        try:
            if self.task != "regression":
                return evaluate.monte_carlo_log_probabilities(
                    draw, values, xs, key, samples=samples, batch_size=batch_size
                )
            if samples > 1:
                return self.moments(values, xs, key, samples=samples, batch_size=batch_size)[0]
        except evaluate.NoNoiseError:
            pass  # a scheme of the user's own, or patch with one token: a run is not lost for that
        # One draw: also of regression with one sample, for which there is no spread.
        both, rows = (values, sample_key_of(key, 0)), jnp.arange(len(xs))
        first = _Method(self, "_first_sample")
        return evaluate.map_examples(first, both, (xs, rows), batch_size=batch_size)

    def moments(
        self, values: Any, xs: Any, key: Array, *, samples: int, batch_size: int
    ) -> tuple[Array, Array]:
        """Mean and standard deviation over draws, of probabilities or of predicted numbers."""
        function = _Method(self, "probabilities")
        return evaluate.monte_carlo(
            function, values, xs, key, samples=samples, batch_size=batch_size, of_keys=True
        )

    def samples(self, values: Any, xs: Any, key: Array, *, samples: int, batch_size: int) -> Array:
        """The predictions behind `moments`, one for each draw: (samples, examples, ...)."""
        function = _Method(self, "probabilities")
        return evaluate.monte_carlo_samples(
            function, values, xs, key, samples=samples, batch_size=batch_size, of_keys=True
        )

    def text(self) -> str:
        """The text of the module, with every argument.

        Arguments that came after version 0.5.2 are left out at their defaults: the text is compared
        with the one that an older run recorded.
        """
        hidden = ("outputs", "parent", "name")
        fields = [f for f in dataclasses.fields(self.module) if f.name not in hidden]
        values = {f.name: getattr(self.module, f.name) for f in fields}
        arguments = {f.name: values[f.name] for f in fields if not is_as_before(f, values[f.name])}
        return format_call(MODELS.name_of(type(self.module)), arguments)

    def describe(self, x: np.ndarray) -> dict[str, Any]:
        """What `rebuild` needs, besides the texts of module and scheme, as JSON values.

        Args:
          x: an example.
        """
        numbers = ("shift", "scale", "target_shift", "target_scale")
        return (
            {
                "task": self.task,
                "outputs": self.module.outputs,  # type: ignore[attr-defined]
                "example_shape": list(x.shape),
                "example_dtype": str(x.dtype),
            }
            | {name: np.asarray(getattr(self, name)).tolist() for name in numbers}
            | self._rare()
        )

    def _rare(self) -> dict[str, Any]:
        """The part of `describe` that is empty for most networks, and for those before 0.6."""
        origins = {name: np.asarray(getattr(self, name)) for name in ("origin", "target_origin")}
        rare: dict[str, Any] = {
            name: origin.tolist() for name, origin in origins.items() if origin.any()
        }
        return rare | ({"classes": list(self.classes)} if self.classes else {})

    @classmethod
    def rebuild(cls, model: str, scheme: str, described: dict[str, Any]) -> Self:
        """Makes the network of a run again.

        Raises:
          KeyError, ValueError, TypeError: a text, or what was described, is wrong.
        """
        numbers = {
            name: np.asarray(described[name], np.float32)
            for name in ("shift", "scale", "target_shift", "target_scale")
        }
        if described["task"] not in evaluate.MEASURES:
            raise ValueError(f"no task {described['task']!r}")
        origins = {
            name: np.asarray(described.get(name, 0.0), np.float64)
            for name in ("origin", "target_origin")
        }
        module = parse_model(model, described["outputs"])
        classes = tuple(map(str, described.get("classes", ())))
        return cls(module, parse(scheme), described["task"], **numbers, **origins, classes=classes)

    def _apply(self, variables: Any, x: Any, draw: Draw, **options: Any) -> Any:
        return self.module.apply(variables, self.inputs(x), draw, **options)

    def _predicted(self, values: Any, x: Array, draw: Draw) -> Array:
        outputs = self.outputs(values["params"], x, draw, values["mutable"])
        if self.task == "classification":
            return jax.nn.log_softmax(outputs)
        if self.task == "binary":
            return jax.nn.log_sigmoid(jnp.concatenate([-outputs, outputs]))
        shift, scale = (jnp.asarray(n) for n in (self.target_shift, self.target_scale))
        return outputs * scale.astype(outputs.dtype) + shift.astype(outputs.dtype)

    def _first_sample(self, values_and_key: Any, example: Any) -> Array:
        (values, key), (x, row) = values_and_key, example
        return self.sampled_prediction(values, x, Keys.of(key, row, 1))

    def _bound(self, values: Any) -> Scheme:
        return self.scheme.scaled(values["strength"]).bind(values["learned"])


@dataclasses.dataclass(frozen=True)
class _Method:
    """A method of a network as a function; those of equal networks are equal, bound methods not."""

    network: Network
    name: str

    def __call__(self, *arguments: Any) -> Any:
        return getattr(self.network, self.name)(*arguments)


def _bits(number: Any) -> tuple[tuple[int, ...], bytes]:
    array = np.asarray(number)
    return array.shape, array.tobytes()
