#!/bin/sh
# One Redis server in the volume data/, every write on disk before it is answered. Instance 0 is the primary; the others are
# replicas of it and follow it when it moves.
set -eu
redis-server --dir data --port "$PORT0" --bind 127.0.0.1 --appendonly yes --appendfsync always --save '' --daemonize no &
server=$!
trap 'kill $server 2>/dev/null || true' TERM INT
known=
while kill -0 $server 2>/dev/null; do
  if [ "$HOLDFAST_INSTANCE" != 0 ] && address=$(holdfast instance address "${HOLDFAST_APP_ID#/}.0" 2>/dev/null) && [ "$address" != "$known" ]; then
    redis-cli -p "$PORT0" replicaof ${address% *} ${address#* } >/dev/null && known=$address
  fi
  sleep 1 &
  wait $! || true
done
wait $server
