"""The operations of the model, one package each: its plain definition and its faster forms.

`<name>/reference.py` defines an operation; `<name>/__init__.py` is the one place that chooses the
form that runs.
"""
