"""The time for which a sleeping worker sleeps: `fixed + per byte`, as the model has it."""

FIXED_S, S_PER_BYTE = 0.1, 0.0005
