#!/usr/bin/env bash
# usage: with-postgres.sh COMMAND [ARGUMENT…]
#
# Runs COMMAND with a PostgreSQL server of its own, whose URL is in JPKI_TEST_POSTGRES, and exits with COMMAND's code.
# The server listens on a free loopback port only, admits everybody there, and is stopped and removed at the end,
# whatever signal but SIGKILL ends it. Data are flushed as in production (fsync is on): the tests kill things and look what is left.
# Clusters that Debian's package started are left alone.
set -euo pipefail
(($#)) || { sed -n '2,7s/^# \?//p' "$0" >&2; exit 2; }

bin=$(compgen -G '/usr/lib/postgresql/*/bin' | sort -V | tail -n1) || true
[[ -x $bin/initdb ]] || { echo "no PostgreSQL server under /usr/lib/postgresql (deploy/test/install.sh installs one)" >&2; exit 1; }

dir=$(mktemp -d "${TMPDIR:-/tmp}/jpki-postgres.XXXXXXXX")
child=
cleanup() {
  trap '' HUP INT TERM
  if [[ -e $dir/data/postmaster.pid ]]; then
    as_postgres "$bin/pg_ctl" -D "$dir/data" -m fast -t 60 stop >/dev/null 2>&1 ||
      as_postgres "$bin/pg_ctl" -D "$dir/data" -m immediate stop >/dev/null 2>&1 || true
  fi
  rm -rf "$dir"
}
trap cleanup EXIT
trap 'interrupted 129' HUP
trap 'interrupted 130' INT
trap 'interrupted 143' TERM
interrupted() {
  [[ -n $child ]] || exit "$1" # still starting
  kill -TERM -- "$target" 2>/dev/null || true
}

# PostgreSQL refuses to run as root.
as_postgres() { (cd / && "$@"); }
if ((EUID == 0)); then
  chown postgres "$dir"
  as_postgres() { (cd / && runuser -u postgres -- "$@"); }
fi

as_postgres "$bin/initdb" -D "$dir/data" -U postgres --auth=trust --encoding=UTF8 --locale=C --no-sync >"$dir/log" 2>&1 ||
  { cat "$dir/log" >&2; exit 1; }
chmod a+rw "$dir/log"

# Nobody can reserve a port for a server that is yet to start, so draw one (below the range the kernel hands out) and
# try again if it is taken.
for try in {1..20}; do
  port=$((15000 + RANDOM % 16000))
  : >"$dir/log"
  if as_postgres "$bin/pg_ctl" -D "$dir/data" -w -t 60 -l "$dir/log" \
    -o "-c listen_addresses=127.0.0.1 -c port=$port -c unix_socket_directories='' -c max_connections=200" start >/dev/null 2>&1; then
    break
  fi
  if ((try == 20)) || ! grep -q 'Address already in use' "$dir/log"; then
    cat "$dir/log" >&2
    exit 1
  fi
done
export JPKI_TEST_POSTGRES="postgres://postgres@127.0.0.1:$port/postgres?sslmode=disable"

# The command runs in the background so that a signal is acted on at once. At a terminal it shares our process group,
# to be able to read from it, and hears Ctrl-C itself; elsewhere it gets a group of its own, to be ended as a whole.
if [[ -t 0 ]]; then
  (trap - INT && exec "$@") <&0 &
  child=$! target=$!
else
  set -m
  "$@" <&0 &
  child=$! target=-$!
  set +m
fi
while :; do
  code=0
  wait "$child" || code=$?
  kill -0 "$child" 2>/dev/null || break # else a signal ended the wait, not the command
done
exit "$code"
