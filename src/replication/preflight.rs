//! What stands in the way of the stream, judged before anything is touched. Pure.
//!
//! In: what the source's catalogs tell. Out: every [`Obstacle`], so that one never hides another.
//!
//! The gravest is one that would hurt the source's application: on a published table whose rows nothing identifies, the server
//! refuses every UPDATE and DELETE from the moment the publication is made.

use crate::catalog::replication::{ReplicationSource, ReplicationTable};
use crate::sql::{ident, qualified};

/// What to do about tables whose rows nothing identifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MissingIdentity {
    /// Refuse to begin.
    #[default]
    Error,
    /// Set REPLICA IDENTITY FULL for the time of the migration.
    Full,
    /// Leave these tables out of the stream: only their rows at the time of the copy arrive.
    Skip,
}

/// What becomes of the changes of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changes {
    /// They are published.
    Published,
    /// They are, once the table has REPLICA IDENTITY FULL.
    PublishedWithFullIdentity,
    /// They do not arrive; the reason.
    Lost(&'static str),
    /// It has none that are wanted of its own: rows of a foreign table are elsewhere, those of a partitioned one in its partitions.
    Elsewhere,
}

/// What becomes of each table's changes when these tables are published, on a server of this version; `missing` must not be in the way of any of
/// them ([`obstacles`]).
///
/// A partitioned table is published as a whole, with the partitions that it gets later, where that can't hurt these: where it has a primary key, which
/// every partition then has, and no partition has to be left out.
pub fn changes(tables: &[ReplicationTable], version: u32, missing: MissingIdentity) -> Vec<Changes> {
    let mut changes: Vec<Changes> = tables.iter().map(|table| changes_of(table, version, missing)).collect();
    let mut parents: Vec<u32> = tables
        .iter()
        .zip(&changes)
        .filter(|(table, changes)| table.left_out || matches!(changes, Changes::Lost(_)))
        .filter_map(|(table, _)| table.partition_of)
        .collect();
    while let Some(parent) = parents.pop() {
        if let Some(place) = tables.iter().position(|table| table.oid == parent) {
            changes[place] = Changes::Elsewhere;
            parents.extend(tables[place].partition_of);
        }
    }
    changes
}

const OF_EXTENSION: &str =
    "a table of an extension that can't be published: its rows were copied, later changes are not replicated";

fn changes_of(table: &ReplicationTable, version: u32, missing: MissingIdentity) -> Changes {
    if table.left_out || table.kind == "f" || (table.kind == "p" && !(table.has_key && table.publishable)) {
        return Changes::Elsewhere;
    }
    if table.unlogged {
        return Changes::Lost("unlogged: its rows were copied, later changes leave no trace in the log");
    }
    if table.of_extension && !table.may_be_published(version) {
        return Changes::Lost(OF_EXTENSION);
    }
    if table.kind == "p" {
        return Changes::Published;
    }
    match missing {
        MissingIdentity::Skip if table.refuses_updates(version) || !table.identifies_rows() => {
            Changes::Lost("no replica identity: its rows were copied, later changes are not replicated")
        }
        MissingIdentity::Full if !table.identifies_rows() => Changes::PublishedWithFullIdentity,
        _ => Changes::Published,
    }
}

/// Something in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// Whether the stream can't begin while it is there.
    pub blocks: bool,
    /// What it is about, such as `source table "public.film"`.
    pub object: String,
    /// What is the matter: lower case, no full stop.
    pub what: String,
    /// What to do about it: a full sentence.
    pub hint: Option<String>,
}

fn obstacle(
    blocks: bool,
    object: impl Into<String>,
    what: impl Into<String>,
    hint: impl Into<String>,
) -> Obstacle {
    let hint = hint.into();
    Obstacle { blocks, object: object.into(), what: what.into(), hint: (!hint.is_empty()).then_some(hint) }
}

/// Judges a source; tables that are left out don't matter.
pub fn obstacles(source: &ReplicationSource, missing: MissingIdentity) -> Vec<Obstacle> {
    let mut found = server(source);
    let tables = source.tables.iter().filter(|table| !table.left_out);
    found.extend(tables.filter_map(|table| obstacle_of(table, source.version, missing)));
    found
}

fn server(source: &ReplicationSource) -> Vec<Obstacle> {
    let mut found = Vec::new();
    let mut block = |what: String, hint: &str| found.push(obstacle(true, "source", what, hint));
    if source.wal_level != "logical" {
        block(
            format!("wal_level is {}, and a stream of changes needs logical", source.wal_level),
            "Set wal_level = logical on the source and restart it, or use --method copy.",
        );
    }
    if let Some((what, hint)) = standby(source) {
        block(what.to_owned(), hint);
    }
    if source.free_slots < 2 {
        block(
            format!("{} replication slots are free, and up to 2 are needed", source.free_slots.max(0)),
            "Drop slots that nobody uses, or raise max_replication_slots on the source and restart it.",
        );
    }
    if source.free_senders < 2 {
        block(
            format!("{} WAL senders are free, and up to 2 are needed", source.free_senders.max(0)),
            "Raise max_wal_senders on the source and restart it.",
        );
    }
    if !source.may_replicate {
        block(
            "the user may not make a replication slot".to_owned(),
            "Give it the attribute: ALTER ROLE … REPLICATION (a managed service has its own way, such as GRANT rds_replication).",
        );
    }
    if let Some(refused) = &source.refused {
        block(
            format!("the user may open no replication session: {refused}"),
            "Give it the attribute: ALTER ROLE … REPLICATION; connect to the server itself, not to a pooler.",
        );
    }
    if !source.may_publish {
        block("the user may not make a publication".to_owned(), "Grant it CREATE on the source database.");
    }
    let mut warn = |object: String, what: String, hint: &str| found.push(obstacle(false, object, what, hint));
    if let Some(megabytes) = source.slot_keep_megabytes {
        warn(
            "source".to_owned(),
            format!(
                "max_slot_wal_keep_size is {megabytes} MB: a slot that falls further behind is lost, and the migration with it"
            ),
            "Raise it for the time of the migration, as far as the source's disk allows.",
        );
    }
    if source.in_recovery && !source.feeds_back {
        warn(
            "source".to_owned(),
            "hot_standby_feedback is off on this standby: its slot is lost, and the migration with it, once the primary removes rows that the slot may need".to_owned(),
            "Set hot_standby_feedback = on there, and primary_slot_name, so that it also holds while the two are apart.",
        );
    }
    for transaction in &source.running {
        warn(
            format!("source process {}", transaction.pid),
            format!(
                "a transaction of user \"{}\" has been running since {}; the slot can only be made after its end",
                transaction.user.as_deref().unwrap_or("?"),
                transaction.since.as_deref().unwrap_or("?"),
            ),
            "Let it end before the migration begins; --slot-timeout bounds the wait.",
        );
    }
    for transaction in &source.prepared {
        warn(
            format!("source transaction \"{}\"", transaction.gid),
            format!(
                "it was prepared by \"{}\" in database \"{}\" at {}; the slot can only be made after its end",
                transaction.owner, transaction.database, transaction.since
            ),
            "Run COMMIT PREPARED or ROLLBACK PREPARED.",
        );
    }
    if source.version < 110_000 {
        warn(
            "source".to_owned(),
            "PostgreSQL 10 does not send TRUNCATE: a table that is truncated after the copy keeps its rows on the target".to_owned(),
            "Let the application use DELETE until the cutover; pgstream verify finds such tables.",
        );
    }
    for timeout in &source.timeouts {
        warn(
            "source".to_owned(),
            format!(
                "{timeout} is on for pgstream's sessions, which switch it off when they begin: the copy's snapshot may be lost"
            ),
            "Connect without the pooler that keeps the setting away, or switch the timeout off for the user on the source (ALTER ROLE … SET).",
        );
    }
    for name in &source.subscriptions {
        warn(
            format!("source subscription \"{name}\""),
            "it is enabled: its changes go on in a database that is read-only, and a cutover is refused until it is disabled".to_owned(),
            &format!("Before the cutover, on the source: ALTER SUBSCRIPTION {} DISABLE;", ident(name)),
        );
    }
    if source.large_objects {
        warn(
            "large objects".to_owned(),
            "changes of large objects are not in the stream; they are copied again at the cutover".to_owned(),
            "",
        );
    }
    found
}

/// Why a standby won't do, or a primary beside what is none; and what will.
fn standby(source: &ReplicationSource) -> Option<(&'static str, &'static str)> {
    match (source.in_recovery, source.primary_named) {
        (true, _) if source.version < 160_000 => Some((
            "the server is a standby, and none before PostgreSQL 16 can send changes",
            "Name the primary as --source; a standby can be copied from, with --method copy.",
        )),
        (true, false) => Some((
            "the server is a standby: its primary is needed for the publication, and to tell where the changes end",
            "Name the primary as --source-primary beside it, or as --source; a standby can be copied from, with --method copy.",
        )),
        (false, true) => Some((
            "the server is no standby, and --source-primary names another one",
            "Leave out --source-primary.",
        )),
        (true, true) | (false, false) => None,
    }
}

/// What is in the way of publishing this table, on a server of this version.
pub fn obstacle_of(table: &ReplicationTable, version: u32, missing: MissingIdentity) -> Option<Obstacle> {
    let object = format!("source table \"{}.{}\"", table.schema, table.name);
    let name = qualified(&table.schema, &table.name);
    if table.kind == "f" {
        return Some(obstacle(false, object, "changes of a foreign table are not in the stream", ""));
    }
    if table.unlogged {
        return Some(obstacle(
            false,
            object,
            "changes of an unlogged table are not in the stream: only its rows at the time of the copy arrive",
            format!("ALTER TABLE {name} SET LOGGED;"),
        ));
    }
    // A partitioned table's rows, and so its changes, are those of its partitions.
    if table.kind == "p" {
        return None;
    }
    if table.of_extension && !table.may_be_published(version) {
        return Some(obstacle(
            false,
            object,
            "it belongs to an extension and can't be published: only its rows at the time of the copy arrive",
            "",
        ));
    }
    if table.refuses_updates(version) {
        return Some(obstacle(
            missing != MissingIdentity::Skip,
            object,
            "it has REPLICA IDENTITY FULL and generated columns: once it is published, PostgreSQL 18 refuses every UPDATE and DELETE",
            format!(
                "Give it a primary key and ALTER TABLE {name} REPLICA IDENTITY DEFAULT, or use --replica-identity skip."
            ),
        ));
    }
    let identified = table.identifies_rows();
    if !table.publishable && (identified || missing != MissingIdentity::Skip) {
        return Some(obstacle(
            true,
            object,
            "the user does not own it, and only its owner may publish it",
            format!("Grant the owner's role to the user, or: ALTER TABLE {name} OWNER TO …;"),
        ));
    }
    if identified {
        return None;
    }
    let what =
        "nothing identifies its rows: once it is published, the server refuses every UPDATE and DELETE";
    match missing {
        MissingIdentity::Error => Some(obstacle(
            true,
            object,
            what,
            format!(
                "Add a primary key, or: ALTER TABLE {name} REPLICA IDENTITY FULL; or use --replica-identity full or skip."
            ),
        )),
        MissingIdentity::Full if !table.owned => Some(obstacle(
            true,
            object,
            "nothing identifies its rows, and only its owner may give it REPLICA IDENTITY FULL",
            format!(
                "Let its owner add a primary key, or: ALTER TABLE {name} REPLICA IDENTITY FULL; or use --replica-identity skip."
            ),
        )),
        MissingIdentity::Full if table.generated && version >= 180_000 => Some(obstacle(
            true,
            object,
            "nothing identifies its rows, and REPLICA IDENTITY FULL with generated columns makes PostgreSQL 18 refuse every UPDATE and DELETE",
            "Add a primary key, or use --replica-identity skip.",
        )),
        MissingIdentity::Full => Some(obstacle(
            false,
            object,
            "nothing identifies its rows: it gets REPLICA IDENTITY FULL until the cutover, and its UPDATEs and DELETEs are slow to apply",
            "",
        )),
        MissingIdentity::Skip => Some(obstacle(
            false,
            object,
            "nothing identifies its rows: its changes after the copy do not arrive",
            "",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> ReplicationSource {
        ReplicationSource {
            version: 150_000,
            wal_level: "logical".to_owned(),
            free_slots: 5,
            free_senders: 5,
            may_replicate: true,
            may_publish: true,
            ..ReplicationSource::default()
        }
    }

    fn table(replica_identity: &str, has_key: bool) -> ReplicationTable {
        ReplicationTable {
            oid: 1,
            partition_of: None,
            schema: "s".to_owned(),
            name: "t".to_owned(),
            kind: "r".to_owned(),
            unlogged: false,
            left_out: false,
            of_extension: false,
            owned: true,
            publishable: true,
            replica_identity: replica_identity.to_owned(),
            has_key,
            generated: false,
        }
    }

    #[test]
    fn nothing_is_in_the_way_of_a_good_source() {
        let source = ReplicationSource {
            tables: vec![table("d", true), table("f", false), table("i", true)],
            ..good()
        };
        assert_eq!(obstacles(&source, MissingIdentity::Error), []);
    }

    #[test]
    fn a_standby_is_followed_from_16_on_with_its_primary_named() {
        let standby = ReplicationSource {
            version: 160_000,
            in_recovery: true,
            primary_named: true,
            feeds_back: true,
            ..good()
        };
        assert_eq!(obstacles(&standby, MissingIdentity::Error), []);
        let silent = ReplicationSource { feeds_back: false, ..standby.clone() };
        let found = obstacles(&silent, MissingIdentity::Error);
        assert!(!found[0].blocks && found[0].what.contains("hot_standby_feedback"), "{found:?}");
        for other in [
            ReplicationSource { version: 150_000, ..standby.clone() },
            ReplicationSource { primary_named: false, ..standby.clone() },
            ReplicationSource { in_recovery: false, ..standby },
        ] {
            let found = obstacles(&other, MissingIdentity::Error);
            assert!(found.len() == 1 && found[0].blocks, "{found:?}");
        }
    }

    #[test]
    fn a_table_whose_updates_would_fail_blocks_and_names_the_statement_to_type() {
        for table in [table("d", false), table("n", true), table("i", false)] {
            let source = ReplicationSource { tables: vec![table], ..good() };
            let found = obstacles(&source, MissingIdentity::Error);
            assert!(found.len() == 1 && found[0].blocks, "{found:?}");
            assert!(
                found[0].hint.as_deref().unwrap().contains(r#"ALTER TABLE "s"."t" REPLICA IDENTITY FULL;"#)
            );
            assert!(!obstacles(&source, MissingIdentity::Full)[0].blocks);
            assert!(!obstacles(&source, MissingIdentity::Skip)[0].blocks);
        }
    }

    #[test]
    fn a_table_of_somebody_else_is_published_only_by_the_function_and_never_altered() {
        let theirs =
            |publishable, identity| ReplicationTable { owned: false, publishable, ..table(identity, true) };
        let blocks = |table, missing| {
            let source = ReplicationSource { tables: vec![table], ..good() };
            obstacles(&source, missing).iter().any(|found| found.blocks)
        };
        assert!(blocks(theirs(false, "d"), MissingIdentity::Skip));
        assert!(!blocks(theirs(false, "n"), MissingIdentity::Skip), "it is left out");
        assert!(!blocks(theirs(true, "d"), MissingIdentity::Full));
        assert!(blocks(theirs(true, "n"), MissingIdentity::Full));
    }

    #[test]
    fn generated_columns_block_full_identity_on_18_alone() {
        let table = ReplicationTable { generated: true, ..table("f", false) };
        let source = ReplicationSource { tables: vec![table], ..good() };
        assert_eq!(obstacles(&source, MissingIdentity::Full), []);
        let source = ReplicationSource { version: 180_000, ..source };
        assert!(obstacles(&source, MissingIdentity::Full)[0].blocks);
    }

    #[test]
    fn a_partitioned_table_is_published_as_a_whole_only_where_no_partition_can_be_hurt() {
        let root = ReplicationTable { kind: "p".to_owned(), ..table("d", true) };
        let leaf =
            |identity: &str| ReplicationTable { oid: 2, partition_of: Some(1), ..table(identity, true) };
        let whole = |tables: &[ReplicationTable]| changes(tables, 150_000, MissingIdentity::Skip)[0];
        assert_eq!(whole(&[root.clone(), leaf("d")]), Changes::Published);
        assert_eq!(whole(&[root.clone(), leaf("n")]), Changes::Elsewhere);
        assert_eq!(whole(&[ReplicationTable { has_key: false, ..root }, leaf("d")]), Changes::Elsewhere);
    }

    #[test]
    fn a_right_that_the_server_does_not_honour_blocks_with_the_servers_words() {
        let source = ReplicationSource { refused: Some("permission denied".to_owned()), ..good() };
        let found = obstacles(&source, MissingIdentity::Error);
        assert!(found.len() == 1 && found[0].blocks, "{found:?}");
        assert!(found[0].what.ends_with("no replication session: permission denied"), "{found:?}");
    }

    #[test]
    fn truncates_that_never_come_and_timeouts_that_stay_are_warned_of() {
        let timeouts = vec!["idle_in_transaction_session_timeout".to_owned()];
        let source = ReplicationSource { version: 100_000, timeouts, ..good() };
        let found = obstacles(&source, MissingIdentity::Error);
        assert!(found.iter().all(|o| !o.blocks), "{found:?}");
        for word in ["TRUNCATE", "idle_in_transaction_session_timeout"] {
            assert!(found.iter().any(|o| o.what.contains(word)), "{found:?}");
        }
    }

    #[test]
    fn every_obstacle_of_the_server_is_found_at_once() {
        let source = ReplicationSource {
            version: 150_000,
            slot_keep_megabytes: Some(1),
            large_objects: true,
            ..ReplicationSource::default()
        };
        let found = obstacles(&source, MissingIdentity::Error);
        assert_eq!(found.iter().filter(|o| o.blocks).count(), 5, "{found:?}");
        assert_eq!(found.iter().filter(|o| !o.blocks).count(), 2, "{found:?}");
    }
}
