"""Shows results in a notebook: a table, and the text on a colour for each character's surprisal."""

import html
from collections.abc import Iterable
from itertools import islice

from evascore.characters import Character
from evascore.shades import SHADES, Shade, labels, shade_of

# A browser draws this many at once; a page of a book has 3,000.
MAX_SHOWN_CHARS = 20_000
_TEXT = "white-space:pre-wrap;overflow-wrap:anywhere;font-family:monospace;line-height:1.6"


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Names and values as an HTML table."""
    cells = "".join(
        f'<tr><th scope="row" style="text-align:left">{html.escape(name)}</th>'
        f'<td style="text-align:left">{html.escape(value)}</td></tr>'
        for name, value in rows
    )
    return f"<table>{cells}</table>"


def heat_map(found: Iterable[Character]) -> str:
    """The text as HTML with its legend; the bits of a character show where the mouse is."""
    characters = iter(found)
    shown = "".join(map(_marked, islice(characters, MAX_SHOWN_CHARS)))
    if next(characters, None) is not None:
        shown += f"<em> (only the first {MAX_SHOWN_CHARS:,} characters are shown)</em>"
    legend = " ".join(
        _in_shade(shade, f"&nbsp;{label}&nbsp;")
        for shade, label in zip(SHADES, labels(), strict=True)
    )
    return f'<div dir="auto" style="{_TEXT}">{shown}</div><p>bits per byte: {legend}</p>'


def _marked(character: Character) -> str:
    title = f' title="{character.bits:.2f} bits"'
    if character.text == "\n":
        return f"{_in_shade(shade_of(character.bits_per_byte), '↵', title)}<br>"
    text = html.escape(character.shown)
    return _in_shade(shade_of(character.bits_per_byte), text, title)


def _in_shade(shade: Shade, content: str, attributes: str = "") -> str:
    if shade.background:
        attributes += f' style="background:{shade.background};color:{shade.ink}"'
    return f"<span{attributes}>{content}</span>"
