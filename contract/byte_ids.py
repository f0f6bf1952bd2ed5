"""The ids of EvaByte's vocabulary, for those who must not load the model; a test compares the two.

64 special ids, then the 256 byte values.
"""

VOCABULARY_SIZE = 320
NUM_SPECIAL_IDS = 64
BOS_ID = 1
EOS_ID = 2
