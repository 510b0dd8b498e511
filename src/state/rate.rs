//! How fast the copy has been going lately, from its own record.

use crate::error::Result;
use crate::wire::Connection;

/// What was copied within a span of time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recent {
    /// Estimated size of the parts that were finished, in bytes.
    pub bytes: u64,
    /// From the start of the first of them until now, in seconds.
    pub seconds: f64,
}

/// The parts that were finished within the last five minutes; `None` where there are none.
pub async fn recent_parts(target: &mut Connection) -> Result<Option<Recent>> {
    let row = target
        .query_one(
            "SELECT sum(bytes)::int8, extract(epoch FROM pg_catalog.clock_timestamp() - min(started_at))::float8 \
             FROM pgstream.part WHERE state = 'done' \
               AND finished_at > pg_catalog.clock_timestamp() - interval '5 minutes'",
            &[],
        )
        .await?;
    match (row.optional(0)?, row.optional(1)?) {
        (Some(bytes), Some(seconds)) => Ok(Some(Recent { bytes, seconds })),
        _ => Ok(None),
    }
}
