"""Writes numbers with their nouns, as messages and tables show them."""


def counted(count: int, noun: str) -> str:
    """A number of things: `1 line`, `2,000 lines`.

    Args:
        noun: in the singular; its plural ends in s.
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
