"""Generates texts in many scripts for tests and benchmarks, from a seed.

A seed gives the same texts on every machine. As in real corpora, long texts are rare. Characters
take 1 to 4 bytes, and some texts are not UTF-8. The texts have no meaning.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from evascore.texts import length_bytes, named

Chance = Callable[[], float]

# Words of each script with its share of the texts; 1, 2, 3 and 4 bytes per character all occur.
_WORDS: tuple[tuple[str, float, str], ...] = (
    ("en", 0.34, "the of and to in time river light stone people never house night small winter"),
    ("de", 0.10, "der und die nicht über Straße schön Wälder größer Möglichkeit heute Käse"),
    ("fr", 0.08, "le la été où garçon très déjà forêt être âme cœur naïf français hiver"),
    ("ru", 0.10, "и не что дом река время человек зима ночь камень свет дорога никогда"),
    ("el", 0.05, "και το νερό σπίτι φως νύχτα χειμώνας άνθρωπος δρόμος ποτέ μικρός"),
    ("ar", 0.06, "من في البيت الليل النهر الشتاء نور حجر طريق إنسان صغير أبدا"),
    ("hi", 0.06, "और नहीं घर नदी समय रात प्रकाश पत्थर मनुष्य सर्दी रास्ता छोटा"),
    ("zh", 0.08, "的 不是 时间 河流 房子 夜晚 冬天 石头 光 人们 从来 小路"),
    ("ja", 0.05, "の は 時間 川 家 夜 冬 石 ひかり ひと 小さな みち カタカナ"),
    ("emoji", 0.05, "😀 🚀 👩‍🔬 🌊 ❤️ 🇪🇺 👍🏽 🎉 ok yes 🐍 🧪"),
    ("code", 0.03, "def return for i in range(10): x[i]+=1 if a<b: {} == != // 0xff"),
)
_UNSPACED = frozenset({"zh", "ja"})


@dataclass(frozen=True, slots=True)
class Recipe:
    """Properties of the texts."""

    seed: int = 0
    min_bytes: int = 8
    max_bytes: int = 4096
    skew: float = 3.0
    """1 spreads the logarithms of the lengths evenly; a larger number makes long texts rarer."""
    invalid_share: float = 0.02
    """Share of texts that are not UTF-8."""


def texts(recipe: Recipe) -> Iterator[str | bytes]:
    """Yield texts, without end."""
    # Only random(), whose sequence Python promises to keep from version to version.
    chance = random.Random(recipe.seed).random
    while True:
        size = length(recipe, chance())
        text = _text(size, chance)
        yield _spoiled(text, chance) if chance() < recipe.invalid_share else text


def length(recipe: Recipe, chance: float) -> int:
    """Draw a length in bytes between the limits of the recipe.

    Args:
        chance: a random number of [0, 1); the length grows with it.
    """
    ratio = recipe.max_bytes / recipe.min_bytes
    return min(int(recipe.min_bytes * ratio ** (chance**recipe.skew)), recipe.max_bytes)


def lines(recipe: Recipe, count: int) -> Iterator[dict[str, str]]:
    """Yield `count` texts as JSON objects; the `custom_id` of each holds its number."""
    for number, text in zip(range(count), texts(recipe), strict=False):
        yield {"custom_id": f"synthetic-{recipe.seed}-{number}", **named("text", text)}


def _text(size: int, chance: Chance) -> str:
    """Words of one script, cut to at most `size` bytes and at least one character."""
    language, words = _script(chance())
    gap = "" if language in _UNSPACED else " "
    parts, num_bytes = [], 0
    while num_bytes < size:
        parts.append(words[int(chance() * len(words))])
        num_bytes += length_bytes(parts[-1]) + len(gap)
    whole = gap.join(parts)
    return whole.encode()[:size].decode(errors="ignore") or whole[0]


def _script(chance: float) -> tuple[str, list[str]]:
    for language, share, words in _WORDS:
        chance -= share
        if chance < 0:
            return language, words.split()
    return language, words.split()


def _spoiled(text: str, chance: Chance) -> bytes:
    """Insert a byte that never occurs in UTF-8."""
    encoded = text.encode()
    at = int(chance() * (len(encoded) + 1))
    return encoded[:at] + b"\xff" + encoded[at:]
