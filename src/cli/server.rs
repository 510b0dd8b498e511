//! What commands say about the databases of a whole server.

use serde_json::{Value, json};

use super::migrate::{is_whole, left_out, line, object};
use super::ui::Ui;
use super::{Context, Outcome, size};
use crate::config::{Config, Side};
use crate::error::{Error, ErrorKind, Result};
use crate::migrate::Options;
use crate::migrate::database::is_missing;
use crate::migrate::roles::Made;
use crate::migrate::server::{self, Listing, Moved, PassedOver, ServerOutcome};
use crate::state::{self, ItemOutcome};
use crate::wire::{Connection, Settings};

/// The databases of the target that hold a migration, be it one of another version of pgstream.
///
/// # Errors
/// Those of reading the list, and a lost connection.
pub(super) async fn migrated(target: &Config, excluded: &[String]) -> Result<Listing> {
    let mut listing = server::list(target, Side::Target, excluded).await?;
    let mut names = Vec::new();
    for name in std::mem::take(&mut listing.names) {
        match Connection::connect(&target.with_dbname(&name), Side::Target, &Settings::session()).await {
            Ok(mut session) => {
                let (_, ours) = state::schema_exists(&mut session).await?;
                session.close().await;
                names.extend(ours.then_some(name));
            }
            // It was dropped in between.
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(error),
        }
    }
    listing.names = names;
    Ok(listing)
}

/// The `migration` object of several databases: (name, method, status, error) of each.
pub(super) fn summary(databases: &[(&str, &str, &str, Option<String>)]) -> Value {
    let method = match databases.first() {
        Some((_, first, ..)) if databases.iter().all(|(_, method, ..)| method == first) => first,
        _ => "",
    };
    let has = |word: &str| databases.iter().any(|(_, _, status, _)| *status == word);
    let status = ["failed", "running", "syncing"].into_iter().find(|word| has(word)).unwrap_or("done");
    let failed: Vec<_> =
        databases.iter().filter_map(|(name, _, _, error)| Some((name, error.as_ref()?))).collect();
    let error = match failed.as_slice() {
        [] => None,
        // Of a single database it is its own error.
        [(_, error)] if databases.len() == 1 => Some((*error).clone()),
        [(name, error)] => Some(format!("database \"{name}\": {error}")),
        [(name, error), ..] => {
            let (failed, all) = (failed.len(), databases.len());
            Some(format!("{failed} of {all} databases; the first is \"{name}\": {error}"))
        }
    };
    json!({ "error": error, "method": method, "status": status })
}

/// Prints what came of every database, and of the roles.
pub(super) fn report(context: &Context<'_>, options: &Options, outcome: ServerOutcome) -> Result<Outcome> {
    let ui = context.ui;
    let made = options.roles.made();
    let ended = total(&outcome, made);
    if ui.manner().json {
        let details: Vec<Value> = outcome.databases.iter().map(detail).collect();
        let databases: Vec<_> = outcome
            .databases
            .iter()
            .zip(&details)
            .map(|(moved, detail)| {
                let text = |key: &str| detail[key].as_str().unwrap_or_default();
                let error = detail["error"].as_str().map(str::to_owned);
                (moved.name.as_str(), text("method"), text("status"), error)
            })
            .collect();
        ui.json(&json!({
            "migration": summary(&databases),
            "migration_detail": details,
            "passed_over": passed_over(&outcome.passed_over),
            "roles": roles(made),
            "seconds": outcome.elapsed.as_secs_f64(),
        }))?;
        return Ok(ended);
    }
    warn_of_passed_over(ui, &outcome.passed_over);
    for role in made.iter().filter(|made| made.outcome != ItemOutcome::Done) {
        let reason = role.reason.as_deref().unwrap_or_default();
        ui.warning(&format!("not on the target as on the source: {}: {reason}", role.item.key()), None);
    }
    let mut text = passwords(made);
    for Moved { name, result, .. } in outcome.databases {
        match result {
            Ok(outcome) => {
                for left in &outcome.omissions {
                    ui.warning(&format!("{name}: {}", left_out(left)), None);
                }
                text.push_str(&format!("{:<12} {}", outcome.method, line(&name, &outcome)));
            }
            Err(error) => {
                let word = if error.kind() == ErrorKind::Stopped { "stopped" } else { "failed" };
                text.push_str(&format!("{word:<12} database \"{name}\": {error}\n"));
                if error.kind() != ErrorKind::Stopped {
                    ui.failure(&error.context(format!("database \"{name}\"")));
                }
            }
        }
    }
    text.push_str(&format!("in {}\n", size::seconds(outcome.elapsed.as_secs_f64())));
    ui.print(&text)?;
    if ended == Outcome::Failed || ended == Outcome::Stopped {
        ui.hint(
            "Run the same command again: it goes on where this run ended, and does nothing where it is done.",
        );
    }
    Ok(ended)
}

/// Names the databases that nobody gets into; a provider's own are no reason to worry.
pub(super) fn warn_of_passed_over(ui: &Ui, passed_over: &[PassedOver]) {
    for passed in passed_over {
        let text = format!("database \"{}\" is passed over: {}", passed.name, passed.reason);
        match &passed.hint {
            Some(hint) => ui.warning(&text, Some(hint)),
            None => ui.note(&text),
        }
    }
}

/// The outcome of all together, for the exit code.
fn total(outcome: &ServerOutcome, made: &[Made]) -> Outcome {
    let one = |moved: &Moved| match &moved.result {
        Ok(outcome) if is_whole(outcome) => Outcome::Done,
        Ok(_) => Outcome::Differences,
        Err(error) => match error.kind() {
            ErrorKind::Stopped => Outcome::Stopped,
            ErrorKind::Usage | ErrorKind::Blocked => Outcome::Blocked,
            ErrorKind::Failed | ErrorKind::Connection => Outcome::Failed,
        },
    };
    let mut total = outcome.databases.iter().map(one).fold(Outcome::Done, Outcome::worse);
    // "Nothing was touched" is true of all or of none.
    if total == Outcome::Blocked && outcome.databases.iter().any(|moved| moved.result.is_ok()) {
        total = Outcome::Failed;
    }
    let left_out = outcome.passed_over.iter().any(|passed| passed.hint.is_some())
        || made.iter().any(|made| made.outcome != ItemOutcome::Done);
    if left_out { total.worse(Outcome::Differences) } else { total }
}

fn detail(moved: &Moved) -> Value {
    match &moved.result {
        Ok(outcome) => object(&moved.name, outcome),
        Err(error) => failed(moved, error),
    }
}

fn failed(moved: &Moved, error: &Error) -> Value {
    json!({
        "dbname": moved.name,
        "error": error.to_string(),
        "detail": error.detail(),
        "hint": error.hint(),
        "method": moved.method,
        "status": "failed",
        "stopped": error.kind() == ErrorKind::Stopped,
    })
}

/// Databases that nobody gets into, for programs.
pub(super) fn passed_over(list: &[PassedOver]) -> Value {
    let one =
        |passed: &PassedOver| json!({ "dbname": passed.name, "reason": passed.reason, "hint": passed.hint });
    list.iter().map(one).collect()
}

/// What came of roles and memberships.
pub(super) fn roles(made: &[Made]) -> Value {
    let one = |made: &Made| {
        let mut object = json!({
            "kind": made.item.kind,
            "name": made.item.name,
            "status": match made.outcome {
                ItemOutcome::Done => "created",
                ItemOutcome::Partial => "partial",
                ItemOutcome::Failed => "failed",
            },
            "reason": made.reason,
        });
        if let Some(password) = &made.password {
            object["password"] = json!(password);
        }
        object
    };
    made.iter().map(one).collect()
}

/// Placeholder passwords, where they are to be shown.
pub(super) fn passwords(made: &[Made]) -> String {
    made.iter()
        .filter_map(|made| {
            Some(format!(
                "placeholder password of role \"{}\": {}\n",
                made.item.name,
                made.password.as_ref()?
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_shows_the_mix() {
        let error = |text: &str| Some(text.to_owned());
        let (a, b) = (("a", "copy", "done", None), ("b", "replication", "syncing", None));
        assert_eq!(
            summary(std::slice::from_ref(&a)),
            json!({ "error": null, "method": "copy", "status": "done" })
        );
        assert_eq!(
            summary(&[a.clone(), b.clone()]),
            json!({ "error": null, "method": "", "status": "syncing" })
        );
        let c = ("c", "copy", "failed", error("no"));
        assert_eq!(summary(std::slice::from_ref(&c))["error"], "no");
        assert_eq!(summary(&[a, c.clone()])["error"], "database \"c\": no");
        let two = summary(&[c.clone(), b, ("d", "copy", "failed", error("nor"))]);
        assert_eq!(two["error"], "2 of 3 databases; the first is \"c\": no");
        assert_eq!(two["status"], "failed");
    }
}
