"""Prints a scored text at a terminal, each character on a colour for its surprisal."""

from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from evascore.characters import Character
from evascore.shades import SHADES, Shade, labels, shade_of

# More would scroll the summary away; the page and --json show all of it.
MAX_SHOWN_CHARS = 4000


def console() -> Console:
    """The terminal, if stdout is one; NO_COLOR and TERM=dumb are respected."""
    # Without highlighting and markup a text is shown as it is.
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=True)


def has_colours(target: Console) -> bool:
    """Whether `target` shows colours."""
    return target.is_terminal and target.color_system is not None and not target.no_color


def heat_map(found: Iterable[Character]) -> Text:
    """The text with a background for each character."""
    shown = Text()
    for number, character in enumerate(found):
        if number == MAX_SHOWN_CHARS:
            shown.append(f"\n... only the first {MAX_SHOWN_CHARS:,} characters are shown")
            break
        # A newline would colour the rest of its line.
        mark = "\N{RETURN SYMBOL}" if character.text == "\n" else character.shown
        shown.append(mark, _style(shade_of(character.bits_per_byte)))
        if character.text == "\n":
            shown.append("\n")
    return shown


def legend() -> Text:
    """What the colours mean."""
    shown = Text("bits per byte: ")
    for label, shade in zip(labels(), SHADES, strict=True):
        shown.append(f" {label} ", _style(shade))
    return shown


def _style(shade: Shade) -> str:
    return f"{shade.ink} on {shade.background}" if shade.background else ""
