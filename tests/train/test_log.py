import hashlib
import json
import math

import pytest

from dropjax.train.log import NOTHING, JsonLines, LogError

RECORDS = [{"step": 1, "loss": 0.1}, {"step": 2, "loss": 1e-300, "name": "ü\n\u2028"}, {}]


@pytest.fixture
def log(tmp_path) -> JsonLines:
    return JsonLines(tmp_path / "log.jsonl")


def test_a_new_log_is_an_empty_file(log):
    assert log.path.read_bytes() == b"" and log.read() == [] and log.mark() == NOTHING


def test_what_is_appended_is_read_in_order_and_an_existing_log_is_continued(log):
    for record in RECORDS[:2]:
        log.append(record)
    again = JsonLines(log.path)
    again.append(RECORDS[2])
    assert again.read() == JsonLines(log.path).read() == RECORDS
    assert [list(record) for record in again.read()] == [list(record) for record in RECORDS]
    assert log.path.read_text().count("\n") == 3 and log.path.read_text().endswith("\n")


def test_a_mark_is_length_and_sha256(log):
    log.append({"a": 1})
    data = log.path.read_bytes()
    assert log.mark() == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    log.rewind(NOTHING)
    assert log.path.read_bytes() == b""
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


def test_rewind_refuses_any_change_before_the_mark_and_touches_nothing(log):
    for record in RECORDS[:2]:
        log.append(record)
    mark = log.mark()
    log.append({"later": True})
    good = log.path.read_bytes()
    flipped = [good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in range(mark["bytes"])]
    cut = [good[:size] for size in (0, mark["bytes"] // 2, mark["bytes"] - 1)]
    for bad in (*flipped, *cut):
        log.path.write_bytes(bad)
        with pytest.raises(LogError, match=r"log\.jsonl was changed"):
            log.rewind(mark)
        assert log.path.read_bytes() == bad


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_has_not_are_refused(log, number):
    with pytest.raises(ValueError, match="not JSON compliant"):
        log.append({"loss": [number]})
    assert log.read() == []


@pytest.mark.parametrize("change", ["removed", "cut", "edited", "longer"])
@pytest.mark.parametrize("by", ["append", "mark"])
def test_a_log_that_is_changed_while_it_is_written_is_written_again(tmp_path, change, by):
    said: list[str] = []
    log = JsonLines(tmp_path / "log.jsonl", said.append)
    log.append({"a": 1})
    log.append({"a": 2})
    before, data = log.mark(), log.path.read_bytes()
    changed = {"cut": data[:-3], "edited": data.replace(b"1", b"3"), "longer": data + b"{"}
    log.path.unlink() if change == "removed" else log.path.write_bytes(changed[change])
    if by == "append":
        log.append({"a": 3})
        after = data + b'{"a": 3}\n'
        log.mark()  # an edit of equal length is noticed here
    else:
        assert log.mark() == before
        after = data
    assert log.path.read_bytes() == after
    assert said == [f"{log.path} was changed or removed; it is written again as it was"]
    assert log.read() == [json.loads(line) for line in after.splitlines()]
