//! Removes what pgstream keeps on the servers for itself, and nothing else: not what was migrated.
//!
//! In: source and target, in whatever state a migration left them; either may be gone. Out: a list of [`Leftover`]s, and their removal. What may
//! fail: the servers; a schema of our name that isn't ours and a migration that is at work are refused, nothing touched.
//!
//! On the source, only the slot and the publication that the target's state names are touched; where the target is gone, those of our
//! mark (`pgstream_` and 16 hexadecimal digits) in the source database that nobody reads.

use std::fmt;

use crate::catalog::server::identity;
use crate::config::Side;
use crate::error::{Error, Result};
use crate::fault;
use crate::replication::{self, Primary, object_name};
use crate::sql::{ident, literal};
use crate::state;
use crate::wire::Connection;

/// Something that pgstream made for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// Where it is.
    pub side: Side,
    /// What kind of object it is.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// What is lost with it, where that matters.
    pub warning: Option<String>,
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} \"{}\"", self.side, self.kind, self.name)
    }
}

impl Leftover {
    fn new(side: Side, kind: &'static str, name: impl Into<String>) -> Leftover {
        Leftover { side, kind, name: name.into(), warning: None }
    }

    /// The statement that removes it by hand.
    pub fn statement(&self) -> String {
        match self.kind {
            SLOT => format!("SELECT pg_drop_replication_slot({});", literal(&self.name)),
            PUBLICATION => format!("DROP PUBLICATION {};", ident(&self.name)),
            READ_ONLY => format!("ALTER DATABASE {} RESET default_transaction_read_only;", ident(&self.name)),
            IDENTITY => format!("ALTER TABLE {} REPLICA IDENTITY DEFAULT;", self.name),
            _ => format!("DROP SCHEMA {} CASCADE;", ident(&self.name)),
        }
    }
}

const SLOT: &str = "replication slot";
const PUBLICATION: &str = "publication";
const IDENTITY: &str = "replica identity FULL of table";
const READ_ONLY: &str = "default_transaction_read_only of database";

/// What the target's state says of the source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traces {
    /// Everything that may be on the source.
    pub on_source: Vec<Leftover>,
    /// The migration is done, and its cutover has removed them.
    pub done: bool,
}

/// Reads what the target's state, or the target's name alone, says of the source.
///
/// # Errors
/// The server's, and a usage error for state of another format.
pub async fn traces(target: &mut Connection) -> Result<Traces> {
    let mut traces = Traces::default();
    let mut add = |kind, name: String| traces.on_source.push(Leftover::new(Side::Source, kind, name));
    match state::read(target).await? {
        Some(migration) => {
            migration.slot.into_iter().for_each(|slot| add(SLOT, slot));
            migration.publication.into_iter().for_each(|publication| add(PUBLICATION, publication));
            for given in state::full_identities(target).await? {
                add(IDENTITY, crate::sql::qualified(&given.schema, &given.table));
            }
            let done = migration.phase == state::Phase::Done;
            // The source of a migration that is done stays read-only: the application has moved.
            if migration.source_read_only && !done {
                add(READ_ONLY, migration.source_database);
            }
            traces.done = done;
        }
        None => {
            let there = identity(target).await?;
            let name = object_name(&there.system_identifier, &there.database);
            add(SLOT, name.clone());
            add(PUBLICATION, name);
            traces.done = true;
        }
    }
    Ok(traces)
}

/// Which of `expected` are really on the source.
///
/// # Errors
/// The server's.
pub async fn find_on_source(source: &mut Connection, expected: Vec<Leftover>) -> Result<Vec<Leftover>> {
    let mut found = Vec::new();
    for leftover in expected {
        let there = match leftover.kind {
            SLOT => replication::read_slot(source, &leftover.name).await?.is_some(),
            PUBLICATION => replication::publication_exists(source, &leftover.name).await?,
            _ => true,
        };
        if there {
            found.push(leftover);
        }
    }
    Ok(found)
}

/// Slots and publications of our mark in the source database, where no target tells which are its own.
///
/// # Errors
/// The server's.
pub async fn find_marked(source: &mut Connection) -> Result<Vec<Leftover>> {
    let rows = source
        .query(
            "SELECT true, slot_name::text FROM pg_catalog.pg_replication_slots WHERE NOT active AND plugin = 'pgoutput' \
               AND database = pg_catalog.current_database() AND slot_name::text ~ '^pgstream_[0-9a-f]{16}$' \
             UNION ALL SELECT false, p.pubname::text FROM pg_catalog.pg_publication p WHERE p.pubname::text ~ '^pgstream_[0-9a-f]{16}$' \
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_replication_slots s WHERE s.slot_name::text = p.pubname::text AND s.active)",
            &[],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let kind = if row.is_true(0) { SLOT } else { PUBLICATION };
            let warning = row.is_true(0).then(|| {
                "the target is not there to ask: whatever it holds can't follow the source afterwards"
                    .to_owned()
            });
            Ok(Leftover { warning, ..Leftover::new(Side::Source, kind, row.value::<String>(1)?) })
        })
        .collect()
}

/// What there is on the target.
///
/// # Errors
/// The server's, and a usage error for a schema `pgstream` that isn't ours.
pub async fn find_on_target(target: &mut Connection) -> Result<Vec<Leftover>> {
    let (exists, ours) = state::schema_exists(target).await?;
    if !exists {
        return Ok(Vec::new());
    }
    let database = target.config().dbname.clone();
    if !ours {
        return Err(Error::usage(format!(
            "target database \"{database}\" has a schema \"pgstream\" that pgstream did not make"
        ))
        .with_hint("Look at what it holds; cleanup does not touch it."));
    }
    // Not read by `state::read`, which refuses the tables of other versions: they are cleaned up as well.
    let rows = target.query("SELECT phase FROM pgstream.migration", &[]).await?;
    let phase = rows.first().and_then(|row| row.text(0));
    let spool = state::spool::read(target).await?.map_or_else(String::new, |spool| {
        format!("; files of its spool may be left in \"{}\" on host \"{}\"", spool.directory, spool.host)
    });
    let warning = phase.filter(|phase| *phase != "done").map(|phase| {
        format!(
            "the migration into \"{database}\" is not done (phase {phase}); it can't be resumed afterwards"
        ) + &spool
    });
    Ok(vec![Leftover { warning, ..Leftover::new(Side::Target, "schema", state::SCHEMA) }])
}

/// Removes a slot or a publication that [`find_on_source`] or [`find_marked`] found; what else was found there is put back by the cutover's own functions.
///
/// # Errors
/// The server's.
pub async fn remove_from_source(
    source: &mut Connection,
    primary: &mut Primary,
    found: &[Leftover],
) -> Result<()> {
    for leftover in found {
        match leftover.kind {
            SLOT => fault::step("drop slot", replication::drop_slot(source, &leftover.name)).await?,
            PUBLICATION => {
                let source = primary.session(source);
                fault::step("drop publication", replication::drop_publication(source, &leftover.name))
                    .await?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Removes what [`find_on_target`] found, while no other pgstream works there.
///
/// # Errors
/// The server's, and a usage error while another pgstream is at work.
pub async fn remove_from_target(target: &mut Connection) -> Result<()> {
    let database = target.config().dbname.clone();
    state::drop_schema(target).await.map_err(|error| {
        let denied = error.sqlstate().is_some_and(|s| s.as_str() == "42501");
        let error =
            error.context(format!("could not drop schema \"pgstream\" in target database \"{database}\""));
        if denied { error.with_hint("Run it as the role that ran pgstream migrate.") } else { error }
    })
}
