"""What a process holds once its model is loaded is left out of collections."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[4]

# Prints how many objects the collector still walks, and whether it still finds a new cycle.
PROGRAM = """
import gc, weakref
from model import leave_out_loaded_objects

class Node:
    pass

before = len(gc.get_objects())
leave_out_loaded_objects()
after = len(gc.get_objects())
node = Node()
node.self = node
reference = weakref.ref(node)
del node
gc.collect()
print(before > 100_000, after < 1000, reference() is None)
"""


def test_loaded_objects_are_walked_no_more_and_new_cycles_are_found():
    command = [sys.executable, "-c", PROGRAM]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=100)
    assert run.stdout.split() == ["True"] * 3, run.stderr
