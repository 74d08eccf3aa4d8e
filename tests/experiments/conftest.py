"""What the tests of experiments share."""

from collections.abc import Iterator

import jax
import pytest
from jax.experimental.compilation_cache.compilation_cache import reset_cache


@pytest.fixture(scope="module", autouse=True)
def compile_once(compilation_cache, tmp_path_factory) -> Iterator[None]:
    """The same few programs many times: compiled once, and kept on disk."""
    values = {
        "jax_compilation_cache_dir": str(tmp_path_factory.getbasetemp() / "xla"),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in values}
    for settings in (values, before):
        for name, value in settings.items():
            jax.config.update(name, value)
        reset_cache()  # else JAX stays with what it found at its first compilation
        if settings is values:
            yield
