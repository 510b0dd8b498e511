#!/bin/bash
# Captures what pgoutput sends for a fixed series of changes, as the fixtures beside this file: one message a line, in hexadecimal.
#   capture.sh URI     URI of an empty database of a superuser; wal_level=logical, max_prepared_transactions>0
# Writes MAJOR-SCENARIO.hex. Needs psql.
set -euo pipefail
uri=$1
cd "$(dirname "$0")"
# The slot is read up to what is flushed.
export PGOPTIONS='-c synchronous_commit=local'
sql() { psql -X -q -A -t -v ON_ERROR_STOP=1 -d "$uri" "$@"; }
version=$(sql -c 'SHOW server_version_num')
major=$((version / 10000))

# capture SCENARIO OPTIONS: runs standard input between the slot's creation and its reading
capture() {
  local two_phase=
  [ "$1" = prepared ] && two_phase=', false, true'
  sql -c "SELECT pg_create_logical_replication_slot('capture', 'pgoutput'$two_phase)" >/dev/null
  sql >/dev/null
  sql -c "SET logical_decoding_work_mem = '64kB'" >/dev/null 2>&1 && memory="SET logical_decoding_work_mem = '64kB';" || memory=
  sql -c "$memory SELECT encode(data, 'hex') FROM pg_logical_slot_get_binary_changes('capture', NULL, NULL, $2, 'publication_names', 'p')" \
    >"$major-$1.hex"
  sql -c "SELECT pg_drop_replication_slot('capture')" >/dev/null
}

sql <<'SQL'
SET client_min_messages = warning;
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE item (id int PRIMARY KEY, name varchar(20), price numeric(8,2), feeling mood, size positive);
CREATE TABLE whole (a int, b text);
ALTER TABLE whole REPLICA IDENTITY FULL;
CREATE TABLE large (id text PRIMARY KEY, doc text);
ALTER TABLE large ALTER id SET STORAGE EXTERNAL, ALTER doc SET STORAGE EXTERNAL;
CREATE SCHEMA s1;
CREATE TABLE s1."We""ird T" (k int NOT NULL, "a b" int);
CREATE UNIQUE INDEX by_k ON s1."We""ird T" (k);
ALTER TABLE s1."We""ird T" REPLICA IDENTITY USING INDEX by_k;
CREATE TABLE empty ();
CREATE TABLE ballast (filler text);
CREATE PUBLICATION p FOR TABLE item, whole, large, s1."We""ird T", empty;
SQL

messages=
[ "$major" -ge 14 ] && messages=", 'messages', 'true'"
truncate="TRUNCATE item, whole RESTART IDENTITY CASCADE;"
[ "$major" -ge 11 ] || truncate=

capture changes "'proto_version', '1'$messages" <<SQL
INSERT INTO item VALUES (1, 'tab	\\ é', 9.50, 'ok', 3), (2, '', NULL, NULL, NULL);
UPDATE item SET name = 'new' WHERE id = 1;
UPDATE item SET id = 20 WHERE id = 2;
DELETE FROM item WHERE id = 20;
INSERT INTO whole VALUES (1, NULL);
UPDATE whole SET b = 'x';
DELETE FROM whole;
INSERT INTO large VALUES ('short', repeat('d', 2100));
UPDATE large SET id = 'other';
INSERT INTO s1."We""ird T" VALUES (1, 2);
UPDATE s1."We""ird T" SET k = 3;
INSERT INTO empty DEFAULT VALUES;
BEGIN;
ALTER TABLE item ADD COLUMN extra bool DEFAULT true;
INSERT INTO item VALUES (3);
ALTER TABLE item DROP COLUMN extra;
INSERT INTO item VALUES (4);
COMMIT;
$truncate
SELECT pg_logical_emit_message(false, 'alone', 'between') IS NULL;
BEGIN;
SELECT pg_logical_emit_message(true, 'inside', 'part') IS NULL;
COMMIT;
SELECT pg_replication_origin_create('elsewhere') IS NULL;
SELECT pg_replication_origin_session_setup('elsewhere');
BEGIN;
SELECT pg_replication_origin_xact_setup('0/ABCDEF', '2020-01-01 00:00:00+00');
INSERT INTO whole VALUES (7, 'from elsewhere');
COMMIT;
SELECT pg_replication_origin_session_reset();
SELECT pg_replication_origin_drop('elsewhere');
SQL

[ "$major" -ge 14 ] || exit 0
capture binary "'proto_version', '1', 'binary', 'true'" <<'SQL'
INSERT INTO item VALUES (5, 'binary', 1.5, 'sad', 7);
SQL

# More than logical_decoding_work_mem, in a table that isn't published: the transaction is streamed, the fixture stays small.
ballast="INSERT INTO ballast SELECT repeat('b', 100) FROM generate_series(1, 2000);"
streamed() {
  cat <<SQL
BEGIN;
INSERT INTO whole VALUES (1, 'top');
SAVEPOINT kept;
INSERT INTO whole VALUES (2, 'kept');
$ballast
SAVEPOINT dropped;
INSERT INTO whole VALUES (3, 'dropped');
$ballast
ROLLBACK TO dropped;
INSERT INTO item VALUES (6);
TRUNCATE whole;
SELECT pg_logical_emit_message(true, 'inside', 'a chunk') IS NULL;
$ballast
COMMIT;
BEGIN;
INSERT INTO whole VALUES (4, 'rolled back');
$ballast
ROLLBACK;
SQL
}
streamed | capture streamed "'proto_version', '2', 'streaming', 'on'$messages"
[ "$major" -ge 15 ] || exit 0

capture prepared "'proto_version', '3', 'streaming', 'on', 'two_phase', 'on'" <<SQL
BEGIN;
INSERT INTO whole VALUES (5, 'committed');
PREPARE TRANSACTION 'first';
COMMIT PREPARED 'first';
BEGIN;
INSERT INTO whole VALUES (6, 'rolled back');
PREPARE TRANSACTION 'second';
ROLLBACK PREPARED 'second';
BEGIN;
INSERT INTO whole VALUES (7, 'streamed');
$ballast
PREPARE TRANSACTION 'third';
COMMIT PREPARED 'third';
SQL

[ "$major" -ge 16 ] || exit 0
sql -c "DELETE FROM item WHERE id = 6"
streamed | capture parallel "'proto_version', '4', 'streaming', 'parallel'$messages"
