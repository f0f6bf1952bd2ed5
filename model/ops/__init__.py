"""Implements the operations of the model, each in a package with a plain and faster versions.

`<name>/reference.py` defines an operation in plain PyTorch. `<name>/__init__.py` alone chooses the
version that runs.
"""
