//! Sequences: their position is no row of a table and no part of a snapshot, so it is read last and set as it is.

use crate::error::{Error, Result};
use crate::schema::sequence::Sequence;
use crate::sql::{literal, qualified};
use crate::wire::Connection;

/// How many sequences are read by one query: each is a relation of its own, and the query's text has to stay reasonable.
const BATCH: usize = 500;

/// Sets every sequence of the target to the source's `last_value` and `is_called`, in one transaction. How many were set.
pub async fn copy_sequences(
    source: &mut Connection,
    target: &mut Connection,
    sequences: &[Sequence],
) -> Result<usize> {
    for batch in sequences.chunks(BATCH) {
        let reads: Vec<String> = batch
            .iter()
            .zip(0..)
            .map(|(s, n): (_, usize)| {
                format!("SELECT {n} AS n, last_value, is_called FROM {}", qualified(&s.schema, &s.name))
            })
            .collect();
        let rows = source
            .query(&format!("{} ORDER BY n", reads.join(" UNION ALL ")), &[])
            .await
            .map_err(|e| e.context("could not read the source's sequences"))?;
        let mut statements = vec!["BEGIN".to_owned()];
        for row in &rows {
            let sequence = batch
                .get(row.value::<usize>(0)?)
                .ok_or_else(|| Error::failed("unexpected row in the result of a query for sequences"))?;
            statements.push(format!(
                "SELECT pg_catalog.setval({}::pg_catalog.regclass, {}, {})",
                literal(&qualified(&sequence.schema, &sequence.name)),
                row.value::<i64>(1)?,
                row.is_true(2),
            ));
        }
        statements.push("COMMIT".to_owned());
        if let Err(failure) = target.pipeline(&statements).await {
            if !target.is_broken() {
                target.execute("ROLLBACK").await?;
            }
            let name =
                failure.index.checked_sub(1).and_then(|n| batch.get(n)).map_or("", |s| s.name.as_str());
            return Err(failure.error.context(format!("could not set sequence \"{name}\" on the target")));
        }
    }
    Ok(sequences.len())
}
