//! The point that a run copies the source at: a snapshot, the definitions that it sees, and a lock on every table.
//!
//! In: the state tables, and the source as it is. Out: a [`Point`], at which nothing can change any more what a COPY of any table
//! gives. What may fail: a lock that isn't granted in time, and a source whose tables are rewritten faster than they can be locked.
//!
//! # Why a snapshot alone is not enough
//! A snapshot holds still the versions of rows, not the files they are in. TRUNCATE, and every ALTER TABLE that writes a table anew, give it a
//! new file whose rows all look younger than any older snapshot: a COPY under that snapshot finds nothing, without an error (the manual's
//! chapter "MVCC Caveats"). For the stream such a change, once committed, lies at or past the snapshot, or before it:
//! - committed before the snapshot: the snapshot sees the new rows, and the stream's filter leaves the TRUNCATE out. Right.
//! - committed after the tables are locked: it can't, since it waits for the lock. Right.
//! - committed in between: the copy would lack rows which the snapshot sees, and changes of these rows, which come before the TRUNCATE in the stream,
//!   would not find them. So this is looked for once every lock is held, and where it is found, everything is taken again from a newer
//!   snapshot, which sees the rewritten table as it is.
//!
//! A table that came between the publication and the snapshot is treated alike: it is published, and a newer snapshot taken ([`later`]).
//!
//! Nothing has been copied under a snapshot that is given up. The newer one stands at a position of its own, which is stored with each part that
//! is copied under it; the stream leaves out what committed before that position, part by part. Hence each change still arrives exactly once.

use std::collections::HashMap;

use super::scope::{self, Seen, is_gone};
use super::{Method, Run, later, locks, stream};
use crate::catalog::selection::Selected;
use crate::copy::Snapshot;
use crate::error::{Error, Result};
use crate::schema::table::Table;
use crate::state::Migration;
use crate::wire::Connection;

/// How many snapshots are tried. All but the first lock the tables at once, so few rewrites get in between.
const TRIES: u32 = 6;

/// See the module.
pub(super) struct Point {
    /// Its session holds the locks.
    pub(super) snapshot: Snapshot,
    /// The source's definition at the snapshot, and what of it is selected.
    pub(super) selected: Selected,
    /// Tables (by OID) that came too late for the stream, and why: they are left out.
    pub(super) left_out: HashMap<u32, String>,
}

impl Run<'_> {
    /// Takes a snapshot that all tables can be copied under; the first that is tried is the one that a copy was checked under.
    pub(super) async fn point(
        &self,
        source: &mut Connection,
        target: &mut Connection,
        migration: &Migration,
        mut seen: Option<Seen>,
    ) -> Result<Point> {
        // As the last try knew them.
        let mut tables: Vec<Table> = Vec::new();
        let mut attempt = 1;
        loop {
            self.check_stop()?;
            let (mut snapshot, mut left_out, selected) = match seen.take() {
                Some(Seen { snapshot, selected }) => (snapshot, HashMap::new(), Some(selected)),
                None if self.method == Method::Copy => {
                    (Snapshot::export(&self.options.source).await?, HashMap::new(), None)
                }
                None => {
                    let (snapshot, left_out) = self.stream_snapshot(source, target, migration).await?;
                    (snapshot, left_out, None)
                }
            };
            self.progress.set_phase("reading the source's schema");
            // Reading the definitions takes its time, so that what is known to be there is locked before.
            self.share(&mut snapshot, source, &tables).await?;
            locks::limit(snapshot.connection(), self.options.lock_wait).await?;
            let selected = match selected {
                Some(selected) => Ok(selected),
                None => scope::read(snapshot.connection(), &self.options.ddl).await,
            };
            let changed = match selected {
                Ok(mut selected) => {
                    stream::forget_given_identities(target, &mut selected.database.tables).await?;
                    let rewritten = self.share(&mut snapshot, source, &selected.database.tables).await?;
                    let unpublished =
                        self.unpublished(&mut snapshot, target, migration, &selected, &left_out).await?;
                    if rewritten.is_empty() && (unpublished.is_empty() || attempt == TRIES) {
                        let reason = "made on the source while the copy began";
                        left_out.extend(unpublished.into_iter().map(|(oid, _)| (oid, reason.to_owned())));
                        return Ok(Point { snapshot, selected, left_out });
                    }
                    tables = selected.database.tables;
                    match (rewritten.first(), unpublished.first()) {
                        (Some(table), _) => Error::failed(format!(
                            "table \"{table}\" was truncated, rewritten or renamed after the snapshot was taken"
                        )),
                        (None, Some((_, table))) => {
                            Error::failed(format!("table \"{table}\" was made while the snapshot was taken"))
                        }
                        (None, None) => Error::failed("the source has changed"),
                    }
                }
                Err(error) if snapshot.connection().is_broken() || !is_gone(&error) => return Err(error),
                Err(error) => error.context("could not read the source's schema"),
            };
            if attempt == TRIES {
                return Err(changed.with_hint(
                    "Run the same command again while nothing truncates or alters tables of the source; what is done is kept.",
                ));
            }
            self.progress.note(format!("taking another snapshot of the source: {changed}"));
            snapshot.release().await;
            attempt += 1;
        }
    }

    /// Tables that the stream would not bring all changes of from this snapshot on; see [`later`].
    async fn unpublished(
        &self,
        snapshot: &mut Snapshot,
        target: &mut Connection,
        migration: &Migration,
        selected: &Selected,
        refused: &HashMap<u32, String>,
    ) -> Result<Vec<(u32, String)>> {
        if self.method == Method::Copy {
            return Ok(Vec::new());
        }
        let (_, publication) = stream::names(migration)?;
        let (missing, exact) = (self.options.replica_identity, snapshot.is_exact());
        let (session, wanted) = (snapshot.connection(), (&selected.database, &self.options.ddl));
        let mut found = later::unpublished(session, target, publication, wanted, missing, exact).await?;
        found.retain(|(oid, _)| !refused.contains_key(oid));
        Ok(found)
    }

    async fn share(
        &self,
        snapshot: &mut Snapshot,
        source: &mut Connection,
        tables: &[Table],
    ) -> Result<Vec<String>> {
        let (limit, progress) = (self.options.lock_wait, self.progress);
        locks::share(snapshot.connection(), source, tables, limit, progress, self.stop).await
    }
}
