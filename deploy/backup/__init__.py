"""Backs up Redis's append-only file and the caches, and restores them on a new machine.

It needs only Python's standard library, `tar` and `zstd`, because it runs on a bare machine
before evascore is installed.
"""
