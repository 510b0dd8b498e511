//! Queries of the catalogs, and many of them in one round trip.
//!
//! In: SQL whose columns have the names of a model struct's fields. Out: the structs. What may fail: the connection, and the server,
//! whose error names the query.

use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::wire::Connection;

/// A query whose rows are `T`s: each comes through the server's `row_to_json`, so that arrays and nested `json_agg` become vectors and
/// NULL becomes `None`. OIDs need a cast to `int8` and `"char"` one to `text`.
#[derive(Debug)]
pub struct Query<T> {
    sql: String,
    rows: PhantomData<T>,
}

impl<T: DeserializeOwned> Query<T> {
    /// A query of one SELECT, without a semicolon.
    pub fn new(sql: impl Into<String>) -> Query<T> {
        Query { sql: sql.into(), rows: PhantomData }
    }

    /// Runs this query alone.
    pub async fn run(self, connection: &mut Connection) -> Result<Vec<T>> {
        let mut batch = Batch::default();
        let ticket = batch.add(self);
        batch.run(connection).await?.take(ticket)
    }
}

/// Queries that go to the server together.
#[derive(Debug, Default)]
pub struct Batch {
    queries: Vec<String>,
}

/// Where the rows of a query of a batch are.
#[derive(Debug)]
pub struct Ticket<T> {
    index: usize,
    rows: PhantomData<T>,
}

/// The rows of a batch's queries.
#[derive(Debug)]
pub struct Answers {
    queries: Vec<String>,
    rows: Vec<Vec<String>>,
    side: crate::config::Side,
}

impl Batch {
    /// Adds a query; the ticket is for its rows.
    pub fn add<T>(&mut self, query: Query<T>) -> Ticket<T> {
        self.queries.push(query.sql);
        Ticket { index: self.queries.len() - 1, rows: PhantomData }
    }

    /// Runs all queries in one round trip.
    pub async fn run(self, connection: &mut Connection) -> Result<Answers> {
        let side = connection.side();
        let mut script = String::new();
        let mut starts = Vec::with_capacity(self.queries.len());
        for (index, sql) in self.queries.iter().enumerate() {
            starts.push(script.chars().count());
            script.push_str(&format!("SELECT {index}, pg_catalog.row_to_json(x) FROM ({sql}) x;\n"));
        }
        let answer = connection.simple(&script).await.map_err(|error| {
            // Errors of parsing say where, in characters of the whole script from 1 on.
            let position = error.notice().and_then(|notice| notice.position()).map_or(0, |p| p as usize);
            let index = starts.partition_point(|start| *start < position).checked_sub(1);
            let error = match index.and_then(|index| self.queries.get(index)) {
                Some(sql) => error.with_statement(sql),
                None => error,
            };
            could_not_read(error, side)
        })?;
        let mut rows = Vec::with_capacity(answer.len());
        for row in answer {
            rows.push((row.value(0)?, row.value(1)?));
        }
        Ok(self.answered(rows, side))
    }

    /// The answers whose rows are these, each of the query of that number.
    pub(super) fn answered(
        self,
        rows: impl IntoIterator<Item = (usize, String)>,
        side: crate::config::Side,
    ) -> Answers {
        let mut answers = vec![Vec::new(); self.queries.len()];
        for (index, row) in rows {
            if let Some(list) = answers.get_mut(index) {
                list.push(row);
            }
        }
        Answers { queries: self.queries, rows: answers, side }
    }
}

impl Answers {
    /// The rows of the query that the ticket was given for.
    pub fn take<T: DeserializeOwned>(&mut self, ticket: Ticket<T>) -> Result<Vec<T>> {
        let rows = self.rows.get_mut(ticket.index).map(std::mem::take).unwrap_or_default();
        rows.iter()
            .map(|row| {
                serde_json::from_str(row).map_err(|e| {
                    let sql = self.queries.get(ticket.index).map_or("", String::as_str);
                    could_not_read(Error::failed(e.to_string()), self.side).with_statement(sql)
                })
            })
            .collect()
    }
}

fn could_not_read(error: Error, side: crate::config::Side) -> Error {
    error.context(format!("could not read the system catalogs of the {side}"))
}
