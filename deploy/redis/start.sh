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

# Without a password: PING, for the health check. With it: all but what administers the server.
cat > /tmp/users.acl <<ACL
user default on nopass resetkeys resetchannels -@all +ping
user evascore on #$hash ~* &* +@all -@admin -@dangerous +info
user backup on #$hash resetkeys resetchannels -@all +ping +sync +psync +replconf
ACL

exec redis-server /etc/evascore/redis.conf "$@"
