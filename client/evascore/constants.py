"""Repeats names and limits of the HTTP API; a test compares them with those of the service."""

OUTPUTS = ("bytes", "top_k", "curvature")
"""Outputs that a request can ask for; the summary is always there."""

REQUEST_OPTIONS = ("deadline_s", "priority", "model")
"""Options of a whole request, which a single one of its texts cannot have."""

DEFAULT_TOP_K = 5
MAX_TOP_K = 320
"""Bytes that the output `top_k` lists at each position."""

MAX_NEXT_CHARS = 100

NUM_SPECIAL_IDS = 64
"""The output `top_k` lists the model's special ids as -64 to -1, bytes as 0 to 255."""
