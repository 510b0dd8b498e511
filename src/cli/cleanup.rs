//! `pgstream cleanup`: lists what pgstream keeps on the servers for itself, asks, and removes it.
//!
//! The source is cleaned before the target, whose state names what is there: cut short, the same command goes on.

use serde_json::json;

use super::args::Cleanup;
use super::{Context, Outcome, server};
use crate::cleanup::{self, Leftover, Traces};
use crate::config::{Config, Side};
use crate::error::{Error, ErrorKind, Result};
use crate::migrate::cutover::{give_back, put_back_identities};
use crate::replication::Primary;
use crate::state;
use crate::wire::{Connection, Settings};

pub(super) async fn run(context: &Context<'_>, options: &Cleanup) -> Result<Outcome> {
    let target = context.servers.needed(Side::Target)?;
    let source = context.servers.named(Side::Source)?;
    if !options.databases.all_databases {
        let name = target.dbname.clone();
        let (removed, left) = clean(context, options, target, source).await?;
        return report(context, &named(&name, removed), &named(&name, left));
    }
    let migrated = server::migrated(&target, &options.databases.excluded()?).await?;
    let (mut removed, mut left, mut failed) = (Vec::new(), Vec::new(), false);
    for name in &migrated.names {
        let source = source.as_ref().map(|source| source.with_dbname(name));
        match clean(context, options, target.with_dbname(name), source).await {
            Ok((gone, stays)) => {
                removed.extend(named(name, gone));
                left.extend(named(name, stays));
            }
            Err(error) => {
                failed = true;
                context.ui.failure(&error.context(format!("database \"{name}\"")));
            }
        }
    }
    let outcome = report(context, &removed, &left)?;
    Ok(if failed { outcome.worse(Outcome::Failed) } else { outcome })
}

/// What is in or about one of the target's databases.
struct Named {
    dbname: String,
    leftover: Leftover,
}

fn named(dbname: &str, leftovers: Vec<Leftover>) -> Vec<Named> {
    leftovers.into_iter().map(|leftover| Named { dbname: dbname.to_owned(), leftover }).collect()
}

/// Cleans up one database; what was removed, and what is left on a source that can't be reached.
async fn clean(
    context: &Context<'_>,
    options: &Cleanup,
    target: Config,
    source: Option<Config>,
) -> Result<(Vec<Leftover>, Vec<Leftover>)> {
    let mut target = reach(context, Some(target), Side::Target).await?;
    let unnamed = source.is_none();
    let mut source = reach(context, source, Side::Source).await?;
    if source.is_none() && target.is_none() {
        return Err(Error::connection("no server can be reached, so nothing was removed"));
    }

    let mut found = Vec::new();
    let mut traces = Traces { done: true, ..Traces::default() };
    if let Some(target) = &mut target {
        found = cleanup::find_on_target(target).await?;
        if !found.is_empty() {
            state::lock(target).await?;
        }
        traces = traces_of(target).await?;
    }
    if unnamed && !traces.done && !traces.on_source.is_empty() {
        return Err(Error::usage("the migration has left objects on its source, and no source is given")
            .with_detail(format!("They are {}.", list(&traces.on_source)))
            .with_hint("Name it by --source, even if it is gone; nothing was removed."));
    }
    let mut left = Vec::new();
    match (&mut source, &target) {
        (Some(source), Some(_)) => {
            let on_source = cleanup::find_on_source(source, traces.on_source).await?;
            found.splice(0..0, on_source);
        }
        (Some(source), None) => found = cleanup::find_marked(source).await?,
        (None, _) if !traces.done => left = traces.on_source,
        (None, _) => {}
    }
    if found.is_empty() {
        return Ok((found, left));
    }
    confirm(context, options, &found)?;
    let any_on_source = found.iter().any(|leftover| leftover.side == Side::Source);
    if let Some(source) = source.as_mut().filter(|_| any_on_source) {
        let mut primary = Primary::of(source).await?;
        cleanup::remove_from_source(source, &mut primary, &found).await?;
        let source = primary.session(source);
        if let Some(target) = &mut target
            && let Some(migration) = state_of(target).await?
        {
            put_back_identities(source, target).await?;
            if migration.source_read_only && migration.phase != state::Phase::Done {
                give_back(source, target).await?;
            }
        }
    }
    if let Some(target) = &mut target
        && found.iter().any(|leftover| leftover.side == Side::Target)
    {
        cleanup::remove_from_target(target).await?;
    }
    Ok((found, left))
}

/// A session of a side; `None`, with a warning, where it can't be reached.
async fn reach(context: &Context<'_>, config: Option<Config>, side: Side) -> Result<Option<Connection>> {
    let Some(config) = config else { return Ok(None) };
    match Connection::connect(&config, side, &Settings::session()).await {
        Ok(session) => Ok(Some(session)),
        // A database that was dropped is as gone as a server.
        Err(error)
            if error.kind() == ErrorKind::Connection
                || error.sqlstate().is_some_and(|s| s.as_str() == "3D000") =>
        {
            context.ui.warning(&format!("the {side} can't be cleaned up: {error}"), None);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// What the state says of the source; nothing where it is of another version.
async fn traces_of(target: &mut Connection) -> Result<Traces> {
    match cleanup::traces(target).await {
        Err(error) if error.kind() == ErrorKind::Usage => Ok(Traces { done: true, ..Traces::default() }),
        other => other,
    }
}

async fn state_of(target: &mut Connection) -> Result<Option<state::Migration>> {
    match state::read(target).await {
        // State of another version names nothing that we could put back.
        Err(error) if error.kind() == ErrorKind::Usage => Ok(None),
        other => other,
    }
}

fn list(leftovers: &[Leftover]) -> String {
    leftovers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn confirm(context: &Context<'_>, options: &Cleanup, found: &[Leftover]) -> Result<()> {
    let ui = context.ui;
    for leftover in found {
        if let Some(warning) = &leftover.warning {
            ui.warning(warning, None);
        }
    }
    if options.yes {
        return Ok(());
    }
    ui.note(&format!("to be removed: {}", list(found)));
    if !ui.can_ask() {
        return Err(Error::usage("cleanup removes nothing without being told to")
            .with_hint("Run it again with --yes."));
    }
    if ui.ask("remove it?") { Ok(()) } else { Err(Error::usage("nothing was removed")) }
}

/// Says what was removed, and what is left on a source that can't be reached.
fn report(context: &Context<'_>, removed: &[Named], left: &[Named]) -> Result<Outcome> {
    let ui = context.ui;
    for Named { leftover, .. } in left {
        ui.warning(&format!("left, if it is still there: {leftover}"), Some(&leftover.statement()));
    }
    if ui.manner().json {
        let objects = |list: &[Named]| -> Vec<_> {
            list.iter()
                .map(|Named { dbname, leftover: l }| {
                    json!({ "dbname": dbname, "side": l.side.to_string(), "kind": l.kind, "name": l.name })
                })
                .collect()
        };
        ui.json(&json!({ "removed": objects(removed), "left": objects(left) }))?;
    } else if removed.is_empty() {
        ui.print("nothing to remove\n")?;
    } else {
        let several = removed.iter().any(|one| one.dbname != removed[0].dbname);
        let line = |one: &Named| {
            let database = if several { format!("database \"{}\": ", one.dbname) } else { String::new() };
            format!("{database}removed {}\n", one.leftover)
        };
        ui.print(&removed.iter().map(line).collect::<String>())?;
    }
    Ok(if left.is_empty() { Outcome::Done } else { Outcome::Differences })
}
