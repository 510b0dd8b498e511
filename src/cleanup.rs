//! Removes what pgstream keeps on the servers for itself, and nothing else: not what was migrated.
//!
//! In: the target, in whatever state a migration left it. Out: a list of [`Leftover`]s, and their removal. What may fail: the
//! server; a schema of our name that isn't ours and a migration that is at work are refused, nothing touched.

use std::fmt;

use crate::config::Side;
use crate::error::{Error, Result};
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
    let warning = phase.filter(|phase| *phase != "done").map(|phase| {
        format!(
            "the migration into \"{database}\" is not done (phase {phase}); it can't be resumed afterwards"
        )
    });
    Ok(vec![Leftover { side: Side::Target, kind: "schema", name: state::SCHEMA.to_owned(), warning }])
}

/// Removes what [`find_on_target`] found, while no other pgstream works there.
///
/// # Errors
/// The server's, and a usage error while another pgstream is at work.
pub async fn remove_from_target(target: &mut Connection) -> Result<()> {
    state::lock(target).await?;
    let database = target.config().dbname.clone();
    state::drop_schema(target).await.map_err(|error| {
        let denied = error.sqlstate().is_some_and(|s| s.as_str() == "42501");
        let error =
            error.context(format!("could not drop schema \"pgstream\" in target database \"{database}\""));
        if denied { error.with_hint("Run it as the role that ran pgstream migrate.") } else { error }
    })
}
