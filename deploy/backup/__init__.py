"""Keeps Redis's append-only file and the caches where a new machine finds them.

Needs Python's standard library, `tar` and `zstd` alone: it runs on a bare machine, before anything
of evascore is installed there.
"""
