"""The examples of Hypothesis have no time limit: a busy machine may hold up any of them."""

from contextlib import suppress

# A machine on which only tests for a GPU run may lack it.
with suppress(ImportError):
    from hypothesis import settings

    settings.register_profile("busy machine", deadline=None)
    settings.load_profile("busy machine")
