"""Turns score requests into forward passes and their logits into results."""
