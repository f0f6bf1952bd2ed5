"""Defines the colours of the heat maps: one for each range of surprisal in bits per byte."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shade:
    """A colour for surprisals of `from_bits` per byte and more."""

    from_bits: float
    background: str
    """As in CSS; '' for none."""
    ink: str = "black"


# From likely to surprising. A byte costs 8 bits where all bytes are equally likely. Each pair has a
# contrast of at least 4.5, as WCAG 2.2 asks for.
SHADES = (
    Shade(0.0, "", ""),
    Shade(1.0, "#fff3b0"),
    Shade(3.0, "#fdc86b"),
    Shade(5.0, "#f28a4b"),
    Shade(8.0, "#b3202c", "white"),
)


def shade_of(bits_per_byte: float) -> Shade:
    """The shade for a surprisal; rounding may make it a little less than 0."""
    return next((s for s in reversed(SHADES) if bits_per_byte >= s.from_bits), SHADES[0])


def labels() -> list[str]:
    """The range of each shade, in words."""
    bounds = [shade.from_bits for shade in SHADES]
    ranges = [f"{low:g}-{high:g}" for low, high in zip(bounds, bounds[1:], strict=False)]  # noqa: RUF007
    return [*ranges, f"{bounds[-1]:g}+"]
