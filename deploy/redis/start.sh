#!/bin/sh
# Writes the access list with the password, then starts the Redis server.
#
# The password comes from the secret `redis_password`. If that is empty, one is generated at the first
# start. In both cases it is stored in the volume that web and worker read.
set -eu
umask 022

secret=/run/secrets/redis_password
shared=/var/lib/evascore/redis_password
if [ -s "$secret" ]; then
    tr -d '\n' < "$secret" > "$shared.new"
    mv "$shared.new" "$shared"
elif [ ! -s "$shared" ]; then
    head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' > "$shared.new"
    mv "$shared.new" "$shared"
fi
hash=$(sha256sum "$shared" | cut -d ' ' -f 1)

# Nobody can log in as `default`, but it needs all rights: Redis loads the append-only file as this user
# and skips commands that it may not run (EXEC, in 7.0). `probe`, for the health check, may only PING;
# `backup` may only have the append-only file rewritten, and write when it stored a backup.
cat > /tmp/users.acl <<ACL
user default off resetpass ~* &* +@all
user probe on nopass resetkeys resetchannels -@all +ping
user backup on nopass resetkeys resetchannels %W~evascore:last_backup -@all +bgrewriteaof +info +set
user evascore on #$hash ~* &* +@all -@admin -@dangerous +info +bgrewriteaof
ACL

# What a dead server left of a rewrite: nothing else would ever delete it.
rm -f /data/temp-rewriteaof-*.aof

# A dump of its memory would hold texts.
# shellcheck disable=SC3045  # BusyBox and dash know it.
ulimit -c 0
exec redis-server /etc/evascore/redis.conf "$@"
