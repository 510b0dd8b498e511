//! Named places before and after each durable step, where a test may stop the program.
//!
//! In: the name of a step, and the step. Out: what the step gives. What may fail: only with the feature `fault-points`, and only where the variable
//! `FAILPOINTS` asks for it (`before part commit=return(abort)`, see the crate `fail`): an action `return(error)` fails there as a lost server
//! would, `return(abort)` ends the process at once, as `kill -9` would. Without the feature nothing of this is in the program.

use crate::error::{Error, Result};

/// Every step that leaves something behind on a server or a disk.
pub const STEPS: &[&str] = &[
    "placeholder passwords",
    "database",
    "roles",
    "state tables",
    "roles recorded",
    "choice recorded",
    "omission recorded",
    "error recorded",
    "error cleared",
    "old slot gone",
    "old publication gone",
    "undone",
    "replica identity recorded",
    "replica identity",
    "publication",
    "slot",
    "first checkpoint",
    "newcomer published",
    "newcomers published again",
    "temporary slot",
    "items",
    "single item",
    "recorded parts",
    "parts cut anew",
    "relation forgotten",
    "snapshot offered",
    "part commit",
    "snapshot withdrawn",
    "sequences",
    "phase copy",
    "phase post-data",
    "phase finish",
    "phase catch-up",
    "phase syncing",
    "durable checkpoint",
    "batch commit",
    "rows forgotten",
    "spool recorded",
    "spool found",
    "spool segment",
    "spool sync",
    "spool advanced",
    "spool gone",
    "pause asked for",
    "pause reached",
    "pause over",
    "cutover forgotten",
    "end position",
    "read-only recorded",
    "source read-only",
    "source writable",
    "writable recorded",
    "relation renamed",
    "changed large objects",
    "phase cutover",
    "drop slot",
    "drop publication",
    "replica identity back",
    "replica identity forgotten",
    "phase done",
    "state tables gone",
];

/// Reads what a test asks for; call it once, first.
#[cfg(feature = "fault-points")]
pub fn set_up() {
    // Lasts as long as the process.
    std::mem::forget(fail::FailScenario::setup());
}

/// The step, between its two places.
///
/// # Errors
/// Those of the step.
pub async fn step<T, E: From<Error>>(name: &str, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    before(name)?;
    let done = work.await?;
    after(name)?;
    Ok(done)
}

/// The place before a step that is sent in one function and answered in another.
///
/// # Errors
/// What a test asks for.
pub fn before(name: &str) -> Result<()> {
    at("before", name)
}

/// The place after it.
///
/// # Errors
/// What a test asks for.
pub fn after(name: &str) -> Result<()> {
    at("after", name)
}

#[cfg(not(feature = "fault-points"))]
fn at(_: &str, _: &str) -> Result<()> {
    Ok(())
}

#[cfg(feature = "fault-points")]
fn at(side: &str, name: &str) -> Result<()> {
    assert!(STEPS.contains(&name), "step \"{name}\" is in no list");
    let place = format!("{side} {name}");
    fail::fail_point!(&place, |action| match action.as_deref() {
        Some("abort") => std::process::abort(),
        _ => Err(Error::failed(format!("stopped {side} {name}, as the test asked"))),
    });
    Ok(())
}
