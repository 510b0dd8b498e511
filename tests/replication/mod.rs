//! The stream between real servers: changes of the source arrive on the target, exactly once.
//!
//! # Traps of logical replication, and their tests
//! Where no module is named, it is one of this folder; "the writers" are the random ones of [`torture`] and of `live::killed`, under which everything
//! is killed and both sides are compared. A trap that can't be stepped into here has its reason instead.
//!
//! | positions and feedback | test, or reason |
//! |---|---|
//! | the end of a commit is acknowledged, not its begin; the end of one transaction is the begin of the next | positions: `a_stream_that_is_taken_up_again_and_again_repeats_nothing` |
//! | LSNs of messages are 0 for some and not monotonic | never read: the assembler knows commit LSNs alone; interrupted: `streamed_transactions_that_interleave…` |
//! | a stream that starts before the confirmed position is silently moved on | positions: `a_slot_that_is_ahead_of_the_checkpoint_is_refused` |
//! | the confirmed position goes back when the source crashes | positions: `a_source_that_crashes_sends_nothing_twice` |
//! | the server believes an acknowledgement beyond its log | property of `replication::feedback`; failover: `a_source_whose_log_ends_before_the_checkpoint_is_refused` |
//! | a quiet database pins the log unless keepalives are acknowledged | interrupted: `a_quiet_database_lets_the_source_go…`; transactions: `transactions_without_rows_move_the_checkpoint` |
//! | … but not before what came earlier is durable | interrupted: `nothing_is_confirmed_that_waits_for_the_target`; positions: `a_target_that_crashes_loses_nothing` |
//! | wal_sender_timeout during a long statement, and while one huge message arrives | positions: `the_source_hears_from_us_while_the_target_is_busy`; large: `a_row_that_takes_longer…` |
//! | flush goes back, or is ahead of write | property of `replication::feedback` |
//! | timeouts of a role end the session that holds the snapshot | `live::roles`: `plain_roles_move_a_database…` |
//! | open and prepared transactions hold slot creation up | positions: `a_slot_that_waits_for_a_transaction_names_it…` |
//! | slot in use, dropped, lost by size, lost by idleness | interrupted: `a_slot_that_decodes…_and_so_is_one_in_use`, `a_slot_that_nobody_used…`; positions: `a_slot_that_is_missing…`, `a_slot_whose_log_was_removed…` |
//! | failover: with the slot, with one made by hand, without; behind the target; the old primary comes back; several hosts | [`failover`] |
//! | slots on a standby wait for the primary | the primary is asked to write down what runs: `live::standby`; unnamed, the standby is only copied from: `migrate::a_standby_is_copied_from_and_without_its_primary_not_followed` |
//!
//! | relations, keys, rows | test, or reason |
//! |---|---|
//! | a relation changes in the middle of a transaction; dropped and made again; added columns with defaults | [`drift`] |
//! | columns in another order, dropped ones, other OIDs of types on each side | changes: `columns_are_matched_by_name`, `values_of_every_kind…` |
//! | values of TOAST that did not change, with every kind of key | changes: `unchanged_toast_values_stay_as_they_are` |
//! | updates that set nothing | changes: `an_update_of_key_columns_alone…` |
//! | REPLICA IDENTITY FULL: one of several rows alike; types without equality; equal values that differ | changes: `with_full_identity_exactly_one…` |
//! | publishing a table makes the application's UPDATE fail | `live::choices`: `a_table_without_replica_identity_is_refused…`; units of `replication::preflight` |
//! | a row that is missing changes nothing, in silence | changes: `a_row_that_is_missing_stops_the_stream_or_is_counted` |
//! | row filters and column lists turn updates into something else | the publication is pgstream's own and has neither |
//! | partitions: changes by leaf, rows that move, attached and detached ones | changes: `partitions_arrive…`; `live::altered` |
//! | awkward names; no columns, 1600 columns | changes: `any_name_is_a_name`, `tables_without_columns…` |
//! | unlogged, foreign and temporary tables are absent | positions: `what_stands_in_the_way_is_read_from_every_major` |
//!
//! | transactions | test, or reason |
//! |---|---|
//! | empty and filtered ones; logical messages in and out of transactions | transactions: `transactions_without_rows_move_the_checkpoint` |
//! | savepoints rolled back, streamed or not; chunks that interleave; descriptions of relations in a part that is rolled back | [`transactions`]; interrupted: `streamed_transactions_that_interleave…` |
//! | applied while they arrive: silent ones, refused ones, ones that others commit before | transactions: `a_large_transaction_…`; the simulation |
//! | larger than memory; cut by a crash in the middle | the same, with files; the writers |
//! | prepared ones: across crashes, streamed, rolled back; slots that decode them early; open at the cutover | transactions: `prepared_transactions_arrive…`; interrupted; `live::cutover` |
//! | changes that came to the source by replication | interrupted: `changes_that_came_to_the_source…` |
//! | the publication is younger than the slot, or goes | positions: `a_publication_that_is_gone…`; it is always made first |
//! | tables that are made later | drift; `live::altered` |
//! | errors, notices and settings in the middle of the stream | positions: `sessions_that_are_ended_are_opened_again`; interrupted: `settings_that_the_source_reports…` |
//! | commits between the end that a cutover reads and the end of the writing | `live::cutover`: `what_is_committed_while…` |
//!
//! | the target | test, or reason |
//! |---|---|
//! | triggers, foreign keys and rules act again; those enabled ALWAYS do even in the role replica | changes: `triggers_and_foreign_keys…`; `live::roles` |
//! | the role replica by every way that permits it, and without | `live::roles`; changes: `without_the_right_to_silence…` |
//! | deferrable keys are not enforced there, which would hide a change that is applied twice | the writers compare such a table |
//! | values that swap places; delete and insert of one key | changes: `values_that_swap_places…` |
//! | TRUNCATE of several tables, with foreign keys, with RESTART | changes: `truncate_empties_all_its_tables…` |
//! | identity columns ALWAYS; generated columns | changes: `identity_columns…`, `generated_columns…` |
//! | one key twice in an upsert | no upserts are made |
//! | COPY refuses row-level security, and passes over rules | `live::roles` (a table with policies); such tables get statements |
//! | sequences and large objects are in no stream | `live::moved`, `live::cutover` |
//! | functions in indexes and defaults that trust in search_path | as in a subscription, search_path is empty: the failing change is named (changes: `a_change_that_the_target_refuses…`) |
//!
//! | values | test, or reason |
//! |---|---|
//! | text depends on settings of role and database | changes: `values_of_every_kind…`; `live::roles` |
//! | money and xml depend on settings of both sides | `live::roles` |
//! | binary forms hold OIDs | the stream is text; COPY is binary for built-in types alone (units of `copy::format`) |
//! | infinities, BC, NaN, -0, bounds of arrays, padding, empty strings | changes: `values_of_every_kind…`, `an_older_source…` |
//! | other encodings, and none | `encodings` |
//! | a large row is held several times | large: `a_row_that_takes_longer…`; measured: 200 MB and 500 MB rows take twice their size, and nothing afterwards |
//! | bytea of half a gigabyte and more has no text form | the source refuses to send it: the stream stops and names the column (by hand: it takes gigabytes) |

mod changes;
mod drift;
mod failover;
mod gathered;
mod interrupted;
mod large;
mod parts;
mod positions;
pub(crate) mod stream;
mod torture;
mod transactions;
