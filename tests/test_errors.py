"""Messages: one printable line of limited length, whatever a file put into them."""

import logging
import pickle

import pytest

from adaptiveisp.errors import LONGEST_MESSAGE, DataError, logger, one_line, shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("a\nb\r\nc\td", "a b c d"),
        ("caf\udce9.dng", r"caf\xe9.dng"),
        ("\ud83d", r"\ud83d"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\x9b2J bell\x07", r"\x9b2J bell\x07"),
        ("Straße 東京 γ", "Straße 東京 γ"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_instead(text: str, expected: str) -> None:
    assert one_line(text) == expected
    assert str(DataError(text)) == expected


def test_a_long_message_keeps_its_beginning_and_its_remedy() -> None:
    message = str(DataError(f"file.json: {'x' * 1_000_000} is wrong; correct it"))
    assert message.startswith("file.json: xxx") and message.endswith("is wrong; correct it")
    assert len(message) == LONGEST_MESSAGE
    assert len(shown(["x"] * 100_000)) == 80


def test_errors_pickle_and_log_messages_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    assert str(pickle.loads(pickle.dumps(DataError("a\nb")))) == "a b"
    with caplog.at_level(logging.WARNING, logger.name):
        logger.warning("%s: %s", "x\x1b[2J.dng", "two\nlines")
    assert caplog.messages == [r"x\x1b[2J.dng: two lines"]
