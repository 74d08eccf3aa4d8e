"""Checkpoints that are whole or refused.

A checkpoint is a folder with `state.safetensors` and `manifest.json`. The manifest holds the sha256
of the first file and of itself. The folder is written under a temporary name, synced to disk and
renamed, so that it exists as a whole or not at all. If one was damaged later, that is noticed, and
the one before it is used. Nothing is unpickled.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors.numpy

from dropjax.disk import naming, sync, write_synced

_STATE, _MANIFEST, _FORMAT, _KEPT = "state.safetensors", "manifest.json", 1, 2


class CheckpointError(Exception):
    """A checkpoint is damaged, or is not one of this state."""


def flatten(tree: Any) -> dict[str, np.ndarray]:
    """The leaves of a tree by path, as NumPy arrays in row-major order."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    host = jax.device_get([leaf for _, leaf in leaves])
    names = [_name(path) for path, _ in leaves]
    return {name: np.asarray(leaf, order="C") for name, leaf in zip(names, host, strict=True)}


def _name(path: tuple[Any, ...]) -> str:
    """Keys joined by "/", with that sign escaped in a key as in a JSON pointer (RFC 6901)."""
    keys = [jax.tree_util.keystr((key,), simple=True) for key in path]
    return "/".join(key.replace("~", "~0").replace("/", "~1") for key in keys)


def tree_hash(tree: Any) -> str:
    """The sha256 of a tree's names, dtypes, shapes and bytes: the same for equal trees alone."""
    digest = hashlib.sha256()
    for name, leaf in sorted(flatten(tree).items()):
        digest.update(f"{name} {leaf.dtype} {leaf.shape}\n".encode())
        digest.update(leaf.tobytes())
    return digest.hexdigest()


def save(folder: Path, state: Any, step: int, **extra: Any) -> Path:
    """Writes a checkpoint, and removes older ones, but for the one before it.

    Checkpoints of later steps are removed too: they are there only if they were damaged, and an
    older one was used in their place.

    Args:
      folder: holds the checkpoints; it is made if it is not there.
      state: a tree of arrays.
      step: gives the checkpoint its name.
      **extra: JSON values for the manifest.

    Returns:
      The checkpoint's folder.

    Raises:
      ValueError: a number in `extra` is infinite or NaN, which JSON has not.
      OSError: it could not be written, for example as the disk is full. Older ones are intact.
    """
    arrays = flatten(state)
    payload = safetensors.numpy.save({name: _plain(array) for name, array in arrays.items()})
    manifest = {
        "format": _FORMAT,
        "step": step,
        "bytes": len(payload),
        "sha256": hashlib.sha256(payload).hexdigest(),
        "arrays": {n: [str(a.dtype), list(a.shape)] for n, a in arrays.items()},
        "extra": extra,
    }
    manifest["manifest_sha256"] = _digest(manifest)
    target, temporary = folder / f"{step:010d}", folder / f"tmp-{step:010d}-{os.getpid()}"
    with naming(target):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir()
            write_synced(temporary / _STATE, payload)
            write_synced(temporary / _MANIFEST, json.dumps(manifest, indent=1).encode())
            sync(temporary)
            if target.exists():
                # A damaged one of the same step: training went on from an older one.
                _remove(target)
            temporary.rename(target)
            sync(folder)
        except OSError:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    older = [path for path in _all(folder) if path.name <= target.name]
    for path in _all(folder):
        if path not in older[-_KEPT:]:
            _remove(path)
    for leftover in folder.glob("tmp-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    return target


def restore(
    folder: Path, template: Any, *, warn: Callable[[str], None], whole: bool = True
) -> tuple[Any, dict[str, Any]] | None:
    """Reads the newest checkpoint that is not damaged.

    Args:
      folder: holds the checkpoints.
      template: a tree with the structure, shapes and dtypes of the state.
      warn: is called with a line about each damaged checkpoint.
      whole: whether the template has all parts of the state; False to read some of them.

    Returns:
      The state, of NumPy arrays, and the manifest's `extra`; None if there is no checkpoint.

    Raises:
      CheckpointError: there are checkpoints, but none is good.
    """
    checkpoints = _all(folder)
    for path in reversed(checkpoints):
        try:
            return load(path, template, whole=whole)
        except CheckpointError as error:
            warn(f"checkpoint {path.name} is damaged and not used: {error}")
    if checkpoints:
        raise CheckpointError(f"none of the {len(checkpoints)} checkpoints in {folder} is good")
    return None


def load(path: Path, template: Any, *, whole: bool = True) -> tuple[Any, dict[str, Any]]:
    """Reads one checkpoint.

    Args:
      path: its folder.
      template: a tree with the structure, shapes and dtypes of the state.
      whole: see `restore`.

    Returns:
      The state, of NumPy arrays, and the manifest's `extra`.

    Raises:
      CheckpointError: it was changed in any bit, or its structure is not the template's.
    """
    try:
        manifest = json.loads((path / _MANIFEST).read_bytes())
        payload = (path / _STATE).read_bytes()
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(str(error)) from error
    try:
        right = isinstance(manifest, dict) and manifest.get("manifest_sha256") == _digest(manifest)
    except ValueError:  # a number in it is NaN
        right = False
    if not right:
        raise CheckpointError(f"{_MANIFEST} does not have the sha256 it states")
    if manifest["sha256"] != hashlib.sha256(payload).hexdigest():
        raise CheckpointError(f"{_STATE} does not have the sha256 that {_MANIFEST} states")
    if (manifest["format"], f"{manifest['step']:010d}") != (_FORMAT, path.name):
        raise CheckpointError(
            f"its format {manifest['format']} or its name is not what it should be"
        )
    try:
        arrays = safetensors.numpy.load(payload)
    except Exception as error:  # whatever safetensors finds wrong, the next older one may be right
        raise CheckpointError(f"{_STATE} cannot be read: {error}") from error
    expected = flatten(template)
    odd = sorted(arrays.keys() ^ expected.keys() if whole else expected.keys() - arrays.keys())
    if odd:
        raise CheckpointError(f"it is of another structure: {', '.join(odd[:3])}")
    for name, like in expected.items():
        stored, wanted = manifest["arrays"][name], [str(like.dtype), list(like.shape)]
        if stored != wanted:
            raise CheckpointError(
                f"{name} is {stored[0]}{stored[1]}, expected {wanted[0]}{wanted[1]}"
            )
    leaves = [arrays[name].view(like.dtype) for name, like in expected.items()]
    return jax.tree.unflatten(jax.tree.structure(template), leaves), manifest["extra"]


def _plain(array: np.ndarray) -> np.ndarray:
    """The same bits in a dtype of NumPy's own: bfloat16 and the like become integers."""
    if array.dtype.isbuiltin == 1:
        return array
    return array.view(f"u{array.dtype.itemsize}")


def _digest(manifest: dict[str, Any]) -> str:
    content = {key: value for key, value in manifest.items() if key != "manifest_sha256"}
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _all(folder: Path) -> list[Path]:
    """The checkpoints by step, damaged ones too. Other files and folders are left out."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_dir() and re.fullmatch(r"\d{10}", p.name))


def _remove(path: Path) -> None:
    # Under a temporary name first: half-removed, it must not look like a checkpoint.
    doomed = path.with_name(f"tmp-removed-{path.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)
