//! What the target says of the tables that changes are applied to.
//!
//! In: a session of the target that does nothing else, and the tables, each as its first change comes. Out: what is known of it. What may
//! fail: the session.
//!
//! A server takes a round trip and some milliseconds of planning to tell of one table, and little more to tell of many. When a stream begins, its
//! tables come one after the other, thousands of them where there are so many: so the neighbours by name are read ahead, the more
//! the faster new ones come. What was read ahead is good for some seconds, as the target's tables may be altered; what doesn't fit is
//! looked up anew by the attempt that follows each failure.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::catalog::target_table::{TargetTable, read_target_tables};
use crate::error::Result;
use crate::wire::Connection;

/// How long what was read ahead may be used.
const FRESH: Duration = Duration::from_secs(30);

/// How many tables are read at first, and at most.
const FEW: usize = 16;
const MANY: usize = 512;

/// Tells of the target's tables.
#[derive(Debug)]
pub(super) struct Lookup {
    session: Connection,
    /// By schema and name, with the time it was read.
    ahead: HashMap<(String, String), (Instant, TargetTable)>,
    /// How many are read at the next miss.
    next: usize,
    last: Instant,
}

impl Lookup {
    /// By a session of its own.
    pub(super) fn new(session: Connection) -> Lookup {
        Lookup { session, ahead: HashMap::new(), next: FEW, last: Instant::now() }
    }

    /// Reads the first tables of a schema before any is asked for: where it has few, all of them.
    pub(super) async fn read_ahead(&mut self, schema: &str) -> Result<()> {
        self.read(schema, "").await
    }

    async fn read(&mut self, schema: &str, first: &str) -> Result<()> {
        let now = Instant::now();
        for (name, table) in read_target_tables(&mut self.session, schema, first, self.next).await? {
            self.ahead.insert((schema.to_owned(), name), (now, table));
        }
        Ok(())
    }

    /// The table `schema.name`, as it is or was some seconds ago; `None` when there is none.
    pub(super) async fn table(&mut self, schema: &str, name: &str) -> Result<Option<TargetTable>> {
        let named = (schema.to_owned(), name.to_owned());
        if let Some((read, table)) = self.ahead.remove(&named)
            && read.elapsed() < FRESH
        {
            return Ok(Some(table));
        }
        if self.last.elapsed() >= FRESH {
            self.next = FEW;
        }
        self.ahead.retain(|_, (read, _)| read.elapsed() < FRESH);
        self.read(schema, name).await?;
        self.next = MANY.min(self.next * 4);
        self.last = Instant::now();
        Ok(self.ahead.remove(&named).map(|(_, table)| table))
    }
}
