#!/bin/sh
# Writes the access list from the password, then becomes the Redis server.
#
# The password is that of the secret `redis_password`; when that is empty, one is drawn at the first
# start. Either way it lies in the volume that web and worker read.
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

# Nobody may be `default`, yet it needs all rights: as it, Redis loads the append-only file, and skips
# what it may not do (EXEC, in 7.0). `probe` needs no password, for the health check, and may PING.
cat > /tmp/users.acl <<ACL
user default off resetpass ~* &* +@all
user probe on nopass resetkeys resetchannels -@all +ping
user evascore on #$hash ~* &* +@all -@admin -@dangerous +info
ACL

exec redis-server /etc/evascore/redis.conf "$@"
