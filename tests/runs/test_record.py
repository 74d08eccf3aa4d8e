"""Files that say when they were changed."""

import json
import math

import pytest

from dropjax.runs import record

VALUE = {"status": "completed", "accuracy": 0.97, "learned": {"rate": [0.25, None]}, "name": "ü"}


def test_what_was_written_is_read(tmp_path):
    path = tmp_path / "result.json"
    record.write(path, VALUE)
    assert record.read(path) == (VALUE, True)
    assert json.loads(path.read_text())["sha256"] == record.digest(VALUE)


def test_a_changed_bit_is_noticed_or_changes_no_value(tmp_path):
    whole = record.encode(VALUE)
    path = tmp_path / "result.json"
    for position in range(len(whole)):
        for bit in range(8):
            changed = bytearray(whole)
            changed[position] ^= 1 << bit
            path.write_bytes(changed)
            try:
                value, sealed = record.read(path)
            except record.RecordError as error:
                assert str(path) in str(error)
                continue
            # White space may differ; and where the name of the hash was hit, none is found.
            assert value == VALUE if sealed else b'"sha256"' not in bytes(changed)


def test_one_without_a_hash_is_told_apart(tmp_path):
    path = tmp_path / "result.json"
    path.write_text(json.dumps(VALUE))
    assert record.read(path) == (VALUE, False)
    assert not record.sealed_by("0.5.2")
    assert record.sealed_by("0.6.0") and record.sealed_by("0.10.1") and record.sealed_by("1.0.0")
    assert record.sealed_by(None) and record.sealed_by("?")


NO_OBJECTS = [b"", b"[1]", b"null", b"3", b'"a"', b"{", b'{"a": NaN}', b'{"a": Infinity}']
NO_OBJECTS += [b"\0", b"\xff", b"[" * 100_000, *(record.encode(VALUE)[:size] for size in (40, 150))]


@pytest.mark.parametrize("text", NO_OBJECTS)
def test_what_is_no_object_or_was_cut_is_refused(tmp_path, text):
    path = tmp_path / "result.json"
    path.write_bytes(text)
    with pytest.raises(record.RecordError, match=r"result\.json is damaged"):
        record.read(path)


def test_a_missing_file_is_an_error_of_the_same_class(tmp_path):
    with pytest.raises(record.RecordError, match="cannot be read: No such file"):
        record.read(tmp_path / "result.json")


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_numbers_that_json_has_not_are_refused(tmp_path, number):
    with pytest.raises(ValueError, match="not JSON compliant"):
        record.write(tmp_path / "result.json", {"accuracy": number})
    assert list(tmp_path.iterdir()) == []
