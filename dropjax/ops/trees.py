"""Trees of arrays whose leaves are named by paths such as "layer_0/kernel"."""

import re
from collections.abc import Callable
from typing import Any

import jax


def map_matching(function: Callable[[str, Any], Any], tree: Any, match: str) -> Any:
    """The tree with `function(path, leaf)` in place of each leaf whose path matches.

    Args:
      function: of a leaf's path and the leaf.
      tree: of arrays.
      match: a regular expression that is searched for in paths; "" matches all.

    Raises:
      ValueError: match is no regular expression, or no path matches.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    try:
        re.compile(match)
    except re.error as error:
        raise ValueError(f"match={match!r} is not a regular expression: {error}") from None
    if not any(re.search(match, path) for path in paths):
        raise ValueError(f"match={match!r} matches none of {', '.join(paths)}")
    return jax.tree.unflatten(
        structure,
        [
            function(path, leaf) if re.search(match, path) else leaf
            for path, (_, leaf) in zip(paths, leaves, strict=True)
        ],
    )
