"""Scores of characters are sums over bytes; control characters are shown as visible ones."""

import math

import pytest

from evascore.characters import characters

BIT = -math.log(2)


def test_each_character_has_the_bits_of_its_bytes():
    text = "aé\n😀".encode()
    found = list(characters(text, [BIT * bits for bits in range(1, len(text) + 1)]))
    assert [(each.text, each.start, each.num_bytes) for each in found] == [
        ("a", 0, 1),
        ("é", 1, 2),
        ("\n", 3, 1),
        ("😀", 4, 4),
    ]
    assert [each.bits for each in found] == pytest.approx([1, 5, 4, 26])
    assert [each.bits_per_byte for each in found] == pytest.approx([1, 2.5, 4, 6.5])


def test_byte_that_is_not_utf8_is_shown_as_hexadecimal():
    found = list(characters(b"\xffa\xc3", [BIT] * 3))
    assert [each.shown for each in found] == ["\\xff", "a", "\\xc3"]
    assert [each.start for each in found] == [0, 1, 2]


@pytest.mark.parametrize(
    ("character", "shown"),
    [("\x1b", "␛"), ("\r", "␍"), ("\x7f", "�"), ("\x9b", "�"), ("\u202e", "�"), ("é", "é")],
)
def test_what_a_terminal_would_obey_is_shown_as_a_sign(character, shown):
    (found,) = characters(character.encode(), [BIT] * len(character.encode()))
    assert found.shown == shown
