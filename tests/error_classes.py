"""Lists the exception classes of the client's package."""

import importlib
import pkgutil

import evascore


def classes_of_errors() -> list[type[evascore.EvascoreError]]:
    """Every exception class of the package, those of the command line included."""
    for module in pkgutil.walk_packages(evascore.__path__, "evascore."):
        if not module.name.startswith(("evascore.lm_eval", "evascore.__main__")):
            importlib.import_module(module.name)
    found, unseen = set(), [evascore.EvascoreError]
    while unseen:
        kind = unseen.pop()
        if kind not in found and kind.__module__.startswith("evascore."):
            found.add(kind)
            unseen += kind.__subclasses__()
    return sorted(found, key=lambda kind: kind.__name__)
