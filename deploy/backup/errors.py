"""The one way in which a backup or a restore refuses."""


class StateFailed(Exception):
    """It could not be done; the message is one line that says what to do."""
