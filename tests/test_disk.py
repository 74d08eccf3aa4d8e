import errno
import os
from pathlib import Path

import pytest

from dropjax.disk import write_whole


def test_write_whole_leaves_the_old_file_if_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    write_whole(path, b"old")

    def fsync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(OSError, match="No space"):
            write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    write_whole(path, b"new")
    assert path.read_bytes() == b"new" and [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_a_file_that_cannot_be_written_is_named_once(tmp_path):
    path = tmp_path / "none" / "file"
    with pytest.raises(OSError) as caught:
        write_whole(path, b"")
    assert str(caught.value) == f"[Errno 2] No such file or directory: '{path}'"
    (path := tmp_path / "folder" / "file").mkdir(parents=True)
    with pytest.raises(OSError) as caught:
        write_whole(path, b"")  # renaming fails, which names two files
    assert str(caught.value) == f"[Errno {errno.EISDIR}] Is a directory: '{path}'"


@pytest.mark.parametrize("wait", [True, False])
def test_write_whole_waits_for_the_disk_only_if_asked(tmp_path, monkeypatch, wait):
    synced, real = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(1), real(descriptor)))
    write_whole(tmp_path / "file", b"data", wait=wait)
    assert (tmp_path / "file").read_bytes() == b"data"
    assert len(synced) == (2 if wait else 0)  # the file, and the folder that names it


@pytest.mark.parametrize("wait", [True, False])
def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, wait):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def rename(temporary: Path, target: Path) -> None:
        assert temporary.read_bytes() == b"new"
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OSError, match=str(path)):
        write_whole(path, b"new", wait=wait)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
