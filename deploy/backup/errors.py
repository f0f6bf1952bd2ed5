"""The error that a backup or a restore raises."""


class StateFailed(Exception):
    """A backup or restore failed; the message is one line that says what to do."""
