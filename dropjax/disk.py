"""Files that are never half written: the old one or the new one is there, whole.

Text and JSON files, logs, checkpoints and exported models are written by these functions. A process
that is killed, or a disk that is full, leaves the old file as it was.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def write_whole(path: Path, data: bytes, *, wait: bool = True) -> None:
    """Writes a file under a temporary name and renames it, so that it is the old or the new one.

    Args:
      path: the file.
      data: all that it will hold.
      wait: until the file is on disk, so that it also survives a crash of the machine. False for
        files that can be made again.

    Raises:
      OSError: it cannot be written; the error names `path`. What was there before is intact.
    """
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    with naming(path):
        try:
            if wait:
                write_synced(temporary, data)
            else:
                temporary.write_bytes(data)
            temporary.rename(path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        if wait:
            sync(path.parent)


def write_synced(path: Path, data: bytes) -> None:
    """Writes a file in place and waits until it is on disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync(folder: Path) -> None:
    """Waits until the names in a folder are on disk: a renamed file has its new name then."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Lets an OSError from within name this file: the errors of writing name none."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        del error.filename2  # of renaming; None would be shown as a name
        raise
