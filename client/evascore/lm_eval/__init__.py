"""lm-eval on evascore: a model of its kind, and its command line with that model.

Needs lm-eval, which the package does not bring: `pip install "evascore[lm-eval]"`.
"""
