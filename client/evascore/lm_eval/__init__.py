"""Adds evascore as a model to lm-eval (EleutherAI's evaluation harness).

It needs lm-eval, which `pip install "evascore[lm-eval]"` installs.
"""
