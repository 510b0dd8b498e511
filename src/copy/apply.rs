//! Makes items of the schema on the target, each together with its row in the state tables.
//!
//! Many items share a transaction and a round trip. When one fails, the batch is rolled back, what stood before it is made again, and
//! the failing one is tried alone, so that the error belongs to it and nothing else is lost.
//!
//! Nobody waits for the disk: a server that crashes loses the last items together with their rows in the state tables. The change of phase that follows is
//! durable, and with it all before it.

use super::failures::Failures;
use crate::ddl::Item;
use crate::error::{Error, ErrorKind, Result};
use crate::fault;
use crate::progress::Progress;
use crate::state::{ItemOutcome, record_done, record_item};
use crate::wire::{Connection, PipelineError};

/// What came of a list of items.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applied {
    /// Items that are there, whole or in part.
    pub made: usize,
    /// Items that the target refused; the state tables say why.
    pub failed: usize,
}

/// How many items share a transaction: each table takes a few locks, and the lock table of a default server has some 6,000 places.
pub(super) const BATCH: usize = 100;

/// After so many failures the rest is made one by one: a batch that fails is work done twice.
const PATIENCE: usize = 3;

/// Begins a transaction of a worker: of parts, whose rows commit together with theirs in the state tables, or of items.
pub(super) const BEGIN: [&str; 2] = ["BEGIN", "SET LOCAL synchronous_commit = off"];

/// Settings of a session that makes items: bodies of functions may name what is made later.
pub(super) const SESSION: &[&str] = &["SET check_function_bodies = off", "SET client_min_messages = warning"];

/// Makes `items` in their order, without those that need what could not be made. What fails is recorded, and so is what is left out for it.
///
/// # Errors
/// An item whose failure `failures` doesn't bear, a lost connection, or a server that is out of room: the run stops, and the next one tries
/// again.
pub async fn apply_items(
    target: &mut Connection,
    items: &[&Item],
    failures: &Failures,
    progress: &Progress,
) -> Result<Applied> {
    target.pipeline(SESSION).await?;
    let mut applied = Applied::default();
    let mut refused = Vec::new();
    let mut rest = items;
    while !rest.is_empty() {
        if let Some(missing) = failures.missing_for(rest[0]) {
            let reason = format!("needs {missing}, which could not be made");
            target.execute(&record_item(rest[0], ItemOutcome::Failed, Some(&reason))).await?;
            failures.add(rest[0]);
            applied.failed += 1;
            progress.add_items(1);
            rest = &rest[1..];
            continue;
        }
        let most = if applied.failed >= PATIENCE { 1 } else { BATCH };
        let whole = rest.iter().take(most).take_while(|item| failures.missing_for(item).is_none());
        let (batch, later) = rest.split_at(whole.count());
        let size = batch.len();
        let good = match size {
            1 => 0,
            _ => fault::step("items", apply_batch(target, batch))
                .await
                .map_err(|e| without_secrets(e, batch))?,
        };
        applied.made += good;
        progress.add_items(good as u64);
        if good == batch.len() {
            rest = later;
            continue;
        }
        let made = fault::step("single item", apply_one(target, batch[good], failures)).await;
        match made.map_err(|e| without_secrets(after(e, &refused), &batch[good..=good]))? {
            (ItemOutcome::Failed, reason) => {
                applied.failed += 1;
                refused.extend(reason.map(|reason| format!("{}: {reason}", batch[good].key())));
            }
            (ItemOutcome::Partial, _) => {
                applied.made += 1;
                // A role that is not there fails for each object that it owns.
                applied.failed = applied.failed.max(PATIENCE);
            }
            (ItemOutcome::Done, _) => applied.made += 1,
        }
        progress.add_items(1);
        rest = &rest[good + 1..];
    }
    Ok(applied)
}

/// Makes a batch in one transaction; when an item fails, makes again what stood before it. How many items from the front are made.
async fn apply_batch(target: &mut Connection, batch: &[&Item]) -> Result<usize> {
    match try_batch(target, batch).await? {
        None => Ok(batch.len()),
        Some(good) if good > 0 && try_batch(target, &batch[..good]).await?.is_none() => Ok(good),
        // What passes with one item less may come and go: the first is tried alone.
        Some(_) => Ok(0),
    }
}

/// Makes a batch in one transaction, or nothing of it: then the item that failed, by its position.
///
/// # Errors
/// A lost connection.
pub(super) async fn try_batch(target: &mut Connection, batch: &[&Item]) -> Result<Option<usize>> {
    let mut statements = BEGIN.map(str::to_owned).to_vec();
    let mut ends = Vec::with_capacity(batch.len());
    for item in batch {
        statements.extend(item.create.iter().chain(&item.decorate).cloned());
        ends.push(statements.len());
    }
    statements.extend([record_done(batch), "COMMIT".to_owned()]);
    let Err(PipelineError { index, error }) = target.pipeline(&statements).await else {
        return Ok(None);
    };
    tracing::debug!(%error, "a batch of items failed");
    if target.is_broken() {
        return Err(error);
    }
    target.execute("ROLLBACK").await?;
    Ok(Some(ends.partition_point(|&end| end <= index).min(batch.len() - 1)))
}

/// Makes one item in its own transaction; what only decorates it may fail. What came of it, and why it isn't whole.
async fn apply_one(
    target: &mut Connection,
    item: &Item,
    failures: &Failures,
) -> Result<(ItemOutcome, Option<String>)> {
    let mut tries = 0;
    loop {
        let mut create = BEGIN.map(str::to_owned).to_vec();
        create.extend(item.create.iter().cloned());
        let Err(PipelineError { error, .. }) = target.pipeline(&create).await else { break };
        if target.is_broken() {
            return Err(error);
        }
        target.execute("ROLLBACK").await?;
        tries += 1;
        if is_passing(&error) && tries < 3 {
            continue;
        }
        if is_environment(&error) || is_passing(&error) {
            return Err(explain(item, error));
        }
        let reason = error.to_string();
        target.execute(&record_item(item, ItemOutcome::Failed, Some(&reason))).await?;
        failures.add(item);
        if failures.stops_at(item) {
            return Err(stopping(item, error, &failures.dependents(item)));
        }
        return Ok((ItemOutcome::Failed, Some(reason)));
    }
    let mut reasons = Vec::new();
    for statement in &item.decorate {
        if let Some(error) = guarded(target, std::slice::from_ref(statement)).await? {
            reasons.push(error.to_string());
        }
    }
    reasons.dedup();
    let outcome = if reasons.is_empty() { ItemOutcome::Done } else { ItemOutcome::Partial };
    let reason = (!reasons.is_empty()).then(|| reasons.join("; "));
    target.pipeline(&[record_item(item, outcome, reason.as_deref()), "COMMIT".to_owned()]).await?;
    Ok((outcome, reason))
}

/// A statement of an item may hold a password or a connection string, and any of a batch's may be the one that the error names.
fn without_secrets(error: Error, items: &[&Item]) -> Error {
    if items.iter().any(|item| item.secret) { error.without_statement() } else { error }
}

/// An item may stop the run because one before it could not be made.
fn after(error: Error, refused: &[String]) -> Error {
    refused.iter().take(3).fold(error, |error, refused| error.with_detail(format!("Before that: {refused}.")))
}

/// Runs statements under a savepoint of the session's transaction; the error of the one that fails, all being undone.
///
/// # Errors
/// A lost connection.
pub async fn guarded<S: AsRef<str>>(session: &mut Connection, statements: &[S]) -> Result<Option<Error>> {
    if statements.is_empty() {
        return Ok(None);
    }
    let mut guarded = vec!["SAVEPOINT guarded"];
    guarded.extend(statements.iter().map(AsRef::as_ref));
    guarded.push("RELEASE guarded");
    let Err(failure) = session.pipeline(&guarded).await else { return Ok(None) };
    if session.is_broken() {
        return Err(failure.error);
    }
    session.execute("ROLLBACK TO guarded").await?;
    Ok(Some(failure.error))
}

/// Deadlocks and lock timeouts pass.
fn is_passing(error: &Error) -> bool {
    error.sqlstate().is_some_and(|s| matches!(s.as_str(), "40P01" | "40001" | "55P03"))
}

/// The server, not the item, is in trouble: no room (53), an operator's intervention (57), a system error (58, but not a
/// missing file of an extension or a library), or a read-only server.
fn is_environment(error: &Error) -> bool {
    error.kind() == ErrorKind::Connection
        || error.sqlstate().is_some_and(|s| {
            matches!(s.class(), "08" | "53" | "57")
                || (s.class() == "58" && s.as_str() != "58P01")
                || s.as_str() == "25006"
        })
}

/// How many dependents of a failed item are named.
const NAMED: usize = 10;

fn stopping(item: &Item, error: Error, dependents: &[String]) -> Error {
    let error = explain(item, error);
    if dependents.is_empty() {
        return error;
    }
    let named = dependents.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = match dependents.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    error.with_detail(format!("These need it: {named}{more}."))
}

fn explain(item: &Item, error: Error) -> Error {
    let name = match &item.schema {
        Some(schema) => format!("{schema}.{}", item.name),
        None => item.name.clone(),
    };
    let environment = is_environment(&error);
    let error =
        error.context(format!("could not create {} \"{name}\" on the target", item.kind.to_lowercase()));
    if environment || error.hint().is_some() {
        return error;
    }
    match item.kind {
        "EXTENSION" => error.with_hint(
            "Install the extension's files on the target's host, or leave it out with --exclude-extension; then run the same command again.",
        ),
        _ => error.with_hint(
            "Mend the cause, then run the same command again: what is made stays. With --keep-going it is left out, with all that needs it.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ddl::Section;
    use crate::schema::{Class, ObjectId};

    #[test]
    fn an_error_shows_no_statement_of_an_item_with_a_secret() {
        let plain = Item::new(ObjectId::new(Class::Relation, 1), "TABLE", Section::PreData, None, "t");
        let secret = Item { secret: true, ..plain.clone() };
        let error = || Error::failed("refused").with_statement("CREATE ROLE r PASSWORD 'x'");
        assert!(without_secrets(error(), &[&plain, &plain]).statement().is_some());
        assert_eq!(without_secrets(error(), &[&plain, &secret]).statement(), None);
    }
}
