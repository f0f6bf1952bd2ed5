"""Takes locks in Redis that expire by themselves, also where Redis is full."""

import redis

from contract.store.connection.scripts import register


def take_lock(
    client: redis.Redis, name: str, holder: str, ttl_s: int, *, is_forced: bool = False
) -> bool:
    """Take a lock for `ttl_s` seconds; return whether it was free.

    Args:
        is_forced: whether to take or renew it even if another process holds it.
    """
    args = [holder, ttl_s, int(is_forced)]
    return bool(register(client, "take_lock")(keys=[name], args=args))
