"""Lists the outputs and span units that a request can ask for; every tier reads these tables.

A new output is one entry here and its computation in `model/scoring/results.py`. Tests made from
this table name every place that does not know it yet: the answer models of the API, the client, its
command line, the documents.
"""

from collections.abc import Callable
from dataclasses import dataclass

from contract.grammar.vocabulary import VOCABULARY_SIZE

MAX_TOP_K = VOCABULARY_SIZE
DEFAULT_TOP_K = 5
MAX_NEXT_CHARS = 100
# The longest UTF-8 character has 4 bytes; the model reads on after the first three at most.
MAX_BYTES_READ_ON = 3
MAX_CUSTOM_ID_CHARS = 128

# JSON of a double takes at most 24 characters; here with its comma.
_NUMBER = 25
# A pair [byte, log_prob_nats] with its comma.
_PAIR = 34


@dataclass(frozen=True, slots=True)
class Output:
    """Something that a result holds on request, under the output's own name."""

    name: str
    meaning: str
    """One clause, for the API's description, the command line's help and the documents."""
    json_bytes: Callable[[int, int], int]
    """Most bytes of JSON that it adds to the result of one text of `num_bytes`, with `top_k`."""
    needs_moments: bool = False
    """Whether the model must compute entropy and variance of its predictions for it."""


# The summary comes with every result.
SUMMARY = Output(
    "summary",
    "log-likelihood, bits per byte, perplexity; always given",
    lambda num_bytes, top_k: 320,
)
OUTPUTS: tuple[Output, ...] = (
    SUMMARY,
    Output(
        "bytes",
        "log-probability, rank and entropy of each byte",
        lambda num_bytes, top_k: 64 + (2 * _NUMBER + len("320,")) * num_bytes,
        needs_moments=True,
    ),
    Output(
        "top_k",
        "the likeliest bytes at each position",
        lambda num_bytes, top_k: 16 + _PAIR * top_k * num_bytes,
    ),
    Output(
        "curvature",
        "Fast-DetectGPT's statistic for machine-written text",
        lambda num_bytes, top_k: 16 + _NUMBER,
        needs_moments=True,
    ),
)
OUTPUT_NAMES = tuple(output.name for output in OUTPUTS)
NEEDING_MOMENTS = frozenset(output.name for output in OUTPUTS if output.needs_moments)

UNITS = ("words", "lines", "characters")
"""Units into which `spans` cuts a whole text."""
RANGE_UNITS = ("bytes", "characters")
"""Units in which the ranges of `spans` count; the first is the default."""
