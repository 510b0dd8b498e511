//! What is different by the doing of a migration that goes on: it is put right at the cutover, and is no difference.
//!
//! In: the target's state tables. Out: the items that the stream's changes must not meet, and so aren't made yet; the replica identities that source tables were
//! given for the time of the stream. What may fail: reading the state.

use std::collections::HashMap;

use super::Difference;
use crate::ddl::Item;
use crate::error::Result;
use crate::schema::Database;
use crate::state::{self, FullIdentity, ItemState, Migration, Phase};
use crate::wire::Connection;

/// What a migration leaves to its cutover. Nothing, where none goes on.
#[derive(Debug, Default)]
pub(super) struct UntilCutover {
    /// Items that were made or could not be, while the source is followed.
    made: Option<HashMap<String, ItemState>>,
    identities: Vec<FullIdentity>,
}

impl UntilCutover {
    pub(super) async fn read(target: &mut Connection, migration: Option<&Migration>) -> Result<UntilCutover> {
        let Some(migration) = migration.filter(|migration| migration.method == "replication") else {
            return Ok(UntilCutover::default());
        };
        // Before, the copy may make them yet; after it, all that there is has been made.
        let follows = matches!(migration.phase, Phase::CatchUp | Phase::Syncing | Phase::Cutover);
        let made = if follows { Some(state::items(target).await?) } else { None };
        Ok(UntilCutover { made, identities: state::full_identities(target).await? })
    }

    /// Gives the source's tables the replica identity that they will have again. Those that have another one by now.
    pub(super) fn take_back_identities(&self, source: &mut Database) -> Vec<Difference> {
        let taken_back = self.identities.iter().filter(|given| given.take_back(&mut source.tables));
        taken_back
            .map(|FullIdentity { schema, table, .. }| {
                let what = "has REPLICA IDENTITY FULL on the source until the cutover";
                Difference::new(format!("TABLE {schema}.{table}"), what)
            })
            .collect()
    }

    /// What is to be said of an item of the source that the target doesn't have, where the cutover makes it.
    pub(super) fn makes(&self, item: &Item) -> Option<Difference> {
        let made = self.made.as_ref().filter(|_| item.acts_on_changes())?;
        (!made.contains_key(&item.key())).then(|| Difference::new(item.key(), "is made at the cutover"))
    }
}
