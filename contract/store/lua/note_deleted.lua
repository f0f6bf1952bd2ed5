#!lua flags=allow-oom
-- Notes that something of a user is deleted in the same step.
-- KEYS: forgettable since
-- include: forgetting
note_deleted(KEYS[1])
