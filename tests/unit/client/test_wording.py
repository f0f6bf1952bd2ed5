"""Numbers agree with their nouns."""

import pytest

from evascore.wording import counted


@pytest.mark.parametrize(
    ("count", "expected"), [(0, "0 lines"), (1, "1 line"), (2, "2 lines"), (1000, "1,000 lines")]
)
def test_noun_agrees_with_its_number(count, expected):
    assert counted(count, "line") == expected
