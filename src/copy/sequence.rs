//! Sequences: their position is no row of a table and no part of a snapshot, so it is read last and set as it is.

use crate::error::{Error, Result};
use crate::schema::sequence::Sequence;
use crate::sql::{literal, qualified};
use crate::wire::Connection;

/// How many sequences are read or set at once: the text of a query has to stay reasonable.
const BATCH: usize = 500;

/// Sets every sequence of the target to the source's `last_value` and `is_called`. How many were set.
pub async fn copy_sequences(
    source: &mut Connection,
    target: &mut Connection,
    sequences: &[Sequence],
) -> Result<usize> {
    let positions =
        read(source, sequences).await.map_err(|e| e.context("could not read the source's sequences"))?;
    for (batch, positions) in sequences.chunks(BATCH).zip(positions.chunks(BATCH)) {
        let mut statements = vec!["BEGIN".to_owned()];
        statements.extend(batch.iter().zip(positions).map(|(sequence, (last_value, is_called))| {
            let name = literal(&qualified(&sequence.schema, &sequence.name));
            format!("SELECT pg_catalog.setval({name}::pg_catalog.regclass, {last_value}, {is_called})")
        }));
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

/// `last_value` and `is_called` of each. A sequence is a relation of its own, whose reading takes longer to plan than to do; the function tells the position of any
/// that was used, and nothing of the others.
async fn read(source: &mut Connection, sequences: &[Sequence]) -> Result<Vec<(i64, bool)>> {
    let oids: Vec<String> = sequences.iter().map(|sequence| sequence.oid.to_string()).collect();
    let used = "SELECT pg_catalog.pg_sequence_last_value(u.oid) FROM unnest($1::pg_catalog.oid[]) WITH ORDINALITY u(oid, n) ORDER BY u.n";
    let rows = source.query(used, &[Some(&format!("{{{}}}", oids.join(",")))]).await?;
    let mut positions = Vec::with_capacity(sequences.len());
    let mut unused = Vec::new();
    for (n, row) in rows.iter().enumerate() {
        let last_value = row.optional::<i64>(0)?;
        if last_value.is_none() {
            unused.push(n);
        }
        positions.push((last_value.unwrap_or_default(), true));
    }
    if positions.len() != sequences.len() {
        return Err(unexpected());
    }
    for batch in unused.chunks(BATCH) {
        let reads: Vec<String> = batch
            .iter()
            .map(|&n| {
                let name = qualified(&sequences[n].schema, &sequences[n].name);
                format!("SELECT {n} AS n, last_value, is_called FROM {name}")
            })
            .collect();
        for row in source.query(&reads.join(" UNION ALL "), &[]).await? {
            let position = positions.get_mut(row.value::<usize>(0)?).ok_or_else(unexpected)?;
            *position = (row.value(1)?, row.is_true(2));
        }
    }
    Ok(positions)
}

fn unexpected() -> Error {
    Error::failed("unexpected row in the result of a query for sequences")
}
