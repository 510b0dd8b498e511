//! Where sequences stand on both sides.

use std::collections::BTreeMap;

use super::rows::refused;
use super::{Difference, Sessions};
use crate::error::Result;
use crate::schema::Database;
use crate::sql::qualified;
use crate::wire::Connection;

/// Sequences asked for by one statement.
const BATCH: usize = 500;

type Name = (String, String);

/// Compares `last_value` and `is_called` of every sequence that both sides have; whether both have it, the definitions say.
pub(super) async fn compare(
    sessions: &mut Sessions,
    source: &Database,
    target: &Database,
) -> Result<Vec<Difference>> {
    let names: Vec<Name> = source
        .sequences
        .iter()
        .filter(|s| !s.contents_left_out)
        .filter(|s| target.sequences.iter().any(|t| t.schema == s.schema && t.name == s.name))
        .map(|s| (s.schema.clone(), s.name.clone()))
        .collect();
    let mut differences = Vec::new();
    let (here, there) = tokio::join!(read(&mut sessions.source, &names), read(&mut sessions.target, &names));
    let (here, there) = (here?, there?);
    for name in &names {
        let object = format!("SEQUENCE {}.{}", name.0, name.1);
        match (&here[name], &there[name]) {
            (Ok(source), Ok(target)) if source == target => {}
            (Ok(source), Ok(target)) => differences.push(Difference::new(
                object,
                format!("stands at {} on the source and at {} on the target", source.text(), target.text()),
            )),
            (Err(reason), _) => {
                differences.push(Difference::new(object, format!("could not be compared: source: {reason}")));
            }
            (_, Err(reason)) => {
                differences.push(Difference::new(object, format!("could not be compared: target: {reason}")));
            }
        }
    }
    Ok(differences)
}

#[derive(Debug, PartialEq, Eq)]
struct Position {
    last_value: i64,
    is_called: bool,
}

impl Position {
    fn text(&self) -> String {
        format!("{}{}", self.last_value, if self.is_called { "" } else { " (not yet given out)" })
    }
}

type Positions = BTreeMap<Name, Result<Position, String>>;

async fn read(connection: &mut Connection, names: &[Name]) -> Result<Positions> {
    let mut positions = Positions::new();
    for batch in names.chunks(BATCH) {
        match read_batch(connection, batch).await {
            Ok(found) => positions.extend(found.into_iter().map(|(name, position)| (name, Ok(position)))),
            // One that may not be read spoils its batch: ask for each, to know which.
            Err(error) => {
                refused("", "", error)?;
                for name in batch {
                    let position = match read_batch(connection, std::slice::from_ref(name)).await {
                        Ok(found) => found.into_iter().map(|(_, position)| Ok(position)).next(),
                        Err(error) => {
                            let reason = error.to_string();
                            refused("", "", error)?;
                            Some(Err(reason))
                        }
                    };
                    positions.extend(position.map(|position| (name.clone(), position)));
                }
            }
        }
    }
    Ok(positions)
}

async fn read_batch(connection: &mut Connection, batch: &[Name]) -> Result<Vec<(Name, Position)>> {
    let selects: Vec<String> = batch
        .iter()
        .enumerate()
        .map(|(index, (schema, name))| {
            format!("SELECT {index}, last_value, is_called FROM {}", qualified(schema, name))
        })
        .collect();
    let rows = connection.query(&selects.join(" UNION ALL "), &[]).await?;
    rows.iter()
        .map(|row| {
            let index: usize = row.value(0)?;
            let position = Position { last_value: row.value(1)?, is_called: row.is_true(2) };
            Ok((batch[index].clone(), position))
        })
        .collect()
}
