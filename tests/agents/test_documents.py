"""The body of an answer, in whatever pieces it comes."""

import pytest

from avo.agents.documents import documents

STREAM = 'event: x\r\ndata: {"a": 1}\r\n\r\n: waiting\n\ndata: one\ndata:two\n\ndata: \u00e9nd'.encode()


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_events_are_found_however_their_bytes_come(size: int) -> None:
    pieces = [STREAM[at : at + size] for at in range(0, len(STREAM), size)]
    assert list(documents(pieces)) == ['{"a": 1}', "one\ntwo", "\u00e9nd"]


def test_an_event_is_passed_on_as_soon_as_it_is_complete() -> None:
    left = iter([b"data: 1\n", b"\n", b"data: 2\n\n"])
    assert next(documents(left)) == "1"
    assert next(left) == b"data: 2\n\n"


def test_a_body_without_events_is_one_document() -> None:
    assert list(documents([b'{\n "data": ', b"1}\n"])) == ['{\n "data": 1}\n']
    assert list(documents([])) == [""]
