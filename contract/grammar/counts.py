"""Puts counts and their nouns into words."""


def counted(number: int, noun: str, form: str = "d") -> str:
    """Return a count with its noun, in the plural unless it is 1: "1 byte", "2 bytes".

    Args:
        form: how the number is formatted; `,` separates thousands.
    """
    return f"{number:{form}} {noun}{'' if number == 1 else 's'}"
