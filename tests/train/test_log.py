import hashlib
import math

import pytest

from dropjax.train.log import NOTHING, JsonLines, LogError

RECORDS = [{"step": 1, "loss": 0.1}, {"step": 2, "loss": 1e-300, "name": "ü\n\u2028"}, {}]


@pytest.fixture
def log(tmp_path) -> JsonLines:
    return JsonLines(tmp_path / "log.jsonl")


def test_a_new_log_is_an_empty_file(log):
    assert log.path.read_bytes() == b"" and log.read() == [] and log.mark() == NOTHING


def test_what_is_appended_is_read_in_order(log):
    for record in RECORDS:
        log.append(record)
    assert log.read() == RECORDS
    assert [list(record) for record in log.read()] == [list(record) for record in RECORDS]
    assert log.path.read_text().count("\n") == 3 and log.path.read_text().endswith("\n")


def test_an_existing_log_is_continued(log):
    log.append({"a": 1})
    JsonLines(log.path).append({"a": 2})
    assert JsonLines(log.path).read() == [{"a": 1}, {"a": 2}]


def test_a_mark_is_length_and_sha256(log):
    log.append({"a": 1})
    data = log.path.read_bytes()
    assert log.mark() == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    log.rewind(NOTHING)
    assert log.mark() == {"bytes": 0, "sha256": hashlib.sha256(b"").hexdigest()}


@pytest.mark.parametrize("later", ['{"a": 2}\n', '{"a": 2}\n{"a"', '{"a', "\0\0\0", ""])
def test_rewind_drops_what_came_after_the_mark(log, later):
    log.append({"a": 1})
    before, mark = log.path.read_bytes(), log.mark()
    with log.path.open("a") as file:
        file.write(later)
    log.rewind(mark)
    assert log.path.read_bytes() == before
    log.append({"a": 3})
    assert log.read() == [{"a": 1}, {"a": 3}]


def test_rewind_to_nothing_empties(log):
    log.append({"a": 1})
    log.rewind(NOTHING)
    assert log.path.read_bytes() == b""


def test_rewind_refuses_any_change_before_the_mark_and_touches_nothing(log):
    for record in RECORDS[:2]:
        log.append(record)
    mark = log.mark()
    log.append({"later": True})
    good = log.path.read_bytes()
    for at in range(mark["bytes"]):
        bad = bytearray(good)
        bad[at] ^= 1
        log.path.write_bytes(bad)
        with pytest.raises(LogError, match=r"log\.jsonl was changed"):
            log.rewind(mark)
        assert log.path.read_bytes() == bad


def test_rewind_refuses_a_log_that_lost_lines(log):
    log.append({"a": 1})
    log.append({"a": 2})
    mark = log.mark()
    data = log.path.read_bytes()
    for size in (0, len(data) // 2, len(data) - 1):
        log.path.write_bytes(data[:size])
        with pytest.raises(LogError):
            log.rewind(mark)
        assert log.path.read_bytes() == data[:size]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_has_not_are_refused(log, number):
    with pytest.raises(ValueError, match="not JSON compliant"):
        log.append({"loss": [number]})
    assert log.read() == []
