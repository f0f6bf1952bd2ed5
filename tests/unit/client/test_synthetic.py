"""Made-up texts: the same for the same seed, skewed, of every length of character."""

import hashlib
import json
from itertools import islice

import pytest

from evascore.measuring.synthetic import Recipe, length, lines, texts


def test_same_seed_makes_the_same_texts_on_every_machine():
    made = "".join(json.dumps(line) for line in lines(Recipe(seed=7), 200))
    digest = hashlib.sha256(made.encode()).hexdigest()
    assert digest == "b86b09dbc7e68f92f915fe6ddb0fd8e9be1531fcd61cd38c26308f7802542373"


def test_other_seed_makes_other_texts():
    assert list(lines(Recipe(seed=1), 5)) != list(lines(Recipe(seed=2), 5))


def test_characters_take_one_to_four_bytes():
    made = "".join(text for text in islice(texts(Recipe(invalid_share=0)), 300))
    assert {len(char.encode()) for char in made} == {1, 2, 3, 4}


def test_asked_share_of_texts_is_not_utf8():
    made = list(islice(texts(Recipe(invalid_share=0.25)), 2000))
    assert 0.2 < sum(isinstance(text, bytes) for text in made) / len(made) < 0.3
    for text in made:
        if isinstance(text, bytes):
            with pytest.raises(UnicodeDecodeError):
                text.decode()


@pytest.mark.parametrize(("low", "high"), [(1, 1), (1, 7), (100, 4096)])
def test_lengths_keep_their_limits_and_short_ones_prevail(low, high):
    recipe = Recipe(min_bytes=low, max_bytes=high)
    sizes = [length(recipe, number / 1000) for number in range(1000)]
    assert min(sizes) == low
    assert max(sizes) <= high
    assert sizes[500] <= (low + high) / 2


@pytest.mark.parametrize("max_bytes", [1, 2, 3])
def test_smallest_texts_still_hold_a_character(max_bytes):
    recipe = Recipe(min_bytes=1, max_bytes=max_bytes)
    assert all(len(text) >= 1 for text in islice(texts(recipe), 200))
