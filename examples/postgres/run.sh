#!/bin/sh
# One PostgreSQL server in the volume data/. Instance 0 makes the database and is the primary, wherever it runs: Holdfast names the instance whose data
# was the primary's and no other. The others are read replicas that stream from it and follow it when it moves, by the file peers.txt.
set -eu
PATH="$(ls -d /usr/lib/postgresql/*/bin | tail -n 1):$PATH"
umask 077

holdfast peers --watch -o text --file peers.txt &
peers=$!

primary() { awk '$7 == "primary" { print $3, $4; found = 1 } END { exit !found }' peers.txt; } # "address port"

follow() { # tells the server where the primary is now; true when that is news
  address=$(primary 2>/dev/null) && [ "$address" != "${known:-}" ] || return 1
  known=$address
  echo "primary_conninfo = 'host=${address% *} port=${address#* } user=holdfast'" >data/pg/primary.conf
}

if [ ! -d data/pg ]; then # made aside and renamed: a crash leaves all of it or nothing
  rm -rf data/new
  if [ "$HOLDFAST_INSTANCE" = 0 ]; then
    initdb --pgdata=data/new --username=holdfast --auth=trust
    echo "include_if_exists = 'primary.conf'" >>data/new/postgresql.conf
  else
    until address=$(primary) && pg_basebackup --pgdata=data/new --host="${address% *}" --port="${address#* }" --username=holdfast; do
      rm -rf data/new
      sleep 1
    done
    touch data/new/standby.signal
  fi
  mv data/new data/pg
  sync data
fi

[ "$HOLDFAST_INSTANCE" = 0 ] || follow || true
postgres -D data/pg -p "$PORT0" -c unix_socket_directories= &
server=$!
trap 'kill -INT $server $peers 2>/dev/null || true' TERM INT # fast shutdown: does not wait for clients
while kill -0 $server 2>/dev/null; do
  if [ "$HOLDFAST_INSTANCE" != 0 ] && follow; then kill -HUP $server; fi
  sleep 2 &
  wait $! || true
done
kill $peers 2>/dev/null || true
wait $server
