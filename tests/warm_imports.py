"""Imports what every worker imports; `tests/warm_process.py` alone imports this module.

It leaves out `worker.main`, which reads the settings and builds the worker.
"""

import gc
import importlib
import os

_MODULES = (
    *("celery.bin.celery", "celery.bin.worker", "celery.apps.worker", "celery.worker.consumer"),
    *("celery.concurrency.solo", "celery.fixups.django", "celery.loaders.app"),
    *("model", "worker.process.registration", "worker.queue.micro_batch", "worker.queue.transport"),
    "worker.recovery.dead_workers",
)

# OpenMP reads this when it is loaded.
os.environ["OMP_WAIT_POLICY"] = "passive"
for name in _MODULES:
    importlib.import_module(name)
# The collector of a fork would copy the pages that all forks share.
gc.collect()
gc.freeze()
