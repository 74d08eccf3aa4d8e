import errno
import os
from pathlib import Path

import pytest

from dropjax.disk import write_whole


@pytest.mark.parametrize(
    "module, name, wait", [(os, "fsync", True), (Path, "rename", True), (Path, "rename", False)]
)
def test_write_whole_leaves_the_old_file_and_no_other_if_it_fails(
    tmp_path, monkeypatch, module, name, wait
):
    path = tmp_path / "result.json"
    path.write_bytes(b"old")

    def full(*arguments) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(module, name, full)
        with pytest.raises(OSError, match=f"No space.*{path}"):
            write_whole(path, b"new", wait=wait)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    write_whole(path, b"new", wait=wait)
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]


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
