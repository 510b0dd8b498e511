//! Makes the roles that the target lacks, before anything that they own.
//!
//! In: [`Roles`], shared by all databases of a run, so that each role is made once. Out: a [`Made`] for each role and membership, and the
//! placeholder passwords, in the file that was asked for before the roles are there; those that a run which was cut short has written there are given. What may fail: that file and the connections; a
//! role that the target refuses doesn't stop the others.
//!
//! Roles belong to the whole server, so they are made in one transaction: a run that is cut short leaves all of them or none, and the next one finds
//! them existing, with their memberships, and leaves them as they are.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use postgres_protocol::password::scram_sha_256;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::OnceCell;

use crate::catalog::{self, role::Scope};
use crate::copy;
use crate::ddl::{self, Item, role::is_provided};
use crate::error::{Error, Result, io_reason};
use crate::fault;
use crate::schema::role::{Role, Verifier};
use crate::state::ItemOutcome;
use crate::wire::Connection;

/// Random bytes of a placeholder password.
const PASSWORD_BYTES: usize = 16;

/// What becomes of passwords.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passwords {
    /// They are carried over as they are stored; where the source doesn't show them, a login role gets a placeholder.
    Keep,
    /// Each login role gets a random password.
    Placeholder,
    /// Roles have none.
    None,
}

/// What is done about roles.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether missing roles are made at all.
    pub make: bool,
    /// Regular expressions of names that are left out.
    pub exclude: Vec<String>,
    /// Which roles of the source.
    pub scope: Scope,
    /// What becomes of passwords.
    pub passwords: Passwords,
    /// Where placeholders are written, as lines of a password file.
    pub password_file: Option<PathBuf>,
    /// Whether [`Made`] tells the placeholders.
    pub show_passwords: bool,
}

impl Options {
    /// No role is made.
    pub fn none() -> Options {
        Options {
            make: false,
            exclude: Vec::new(),
            scope: Scope::Database,
            passwords: Passwords::None,
            password_file: None,
            show_passwords: false,
        }
    }
}

/// What came of a role or a membership.
#[derive(Debug, Clone)]
pub struct Made {
    /// The item.
    pub item: Item,
    /// Whether it is there.
    pub outcome: ItemOutcome,
    /// Why it isn't, or isn't whole.
    pub reason: Option<String>,
    /// Its placeholder password, where it is to be shown.
    pub password: Option<String>,
}

/// The roles of one run.
#[derive(Debug)]
pub struct Roles {
    options: Options,
    made: OnceCell<Vec<Made>>,
}

impl Roles {
    /// Nothing is made yet.
    pub fn new(options: Options) -> Roles {
        Roles { options, made: OnceCell::new() }
    }

    /// Which roles these are.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// What has been made by this run.
    pub fn made(&self) -> &[Made] {
        self.made.get().map_or(&[], Vec::as_slice)
    }

    /// Makes the missing roles, with comments and security labels where `content` has them; later calls give what the first one made.
    ///
    /// # Errors
    /// See the module.
    pub async fn make(
        &self,
        source: &mut Connection,
        target: &mut Connection,
        content: &ddl::Options,
    ) -> Result<&[Made]> {
        let made = self.made.get_or_try_init(|| make(&self.options, source, target, content)).await?;
        Ok(made)
    }
}

async fn make(
    options: &Options,
    source: &mut Connection,
    target: &mut Connection,
    content: &ddl::Options,
) -> Result<Vec<Made>> {
    if !options.make {
        return Ok(Vec::new());
    }
    let readable = catalog::role::verifiers_readable(source).await?;
    let mut roles = catalog::role::read(source, options.scope, &options.exclude).await?;
    for role in &mut roles {
        role.comment.take_if(|_| !content.comments);
        role.labels.retain(|_| content.security_labels);
    }
    let into = ddl::role::Target {
        existing: catalog::server::role_names(target).await?.into_iter().collect(),
        version: target.version(),
        superuser: target.parameter("is_superuser") == Some("on"),
    };
    let missing = |role: &Role| !is_provided(role) && !into.existing.contains(&role.name);
    let written = match options.password_file.as_deref() {
        // What else is wrong with it is told when it is written.
        Some(path) => std::fs::read_to_string(path).unwrap_or_default(),
        None => String::new(),
    };
    let placeholders = match options.passwords {
        Passwords::Keep if readable => Vec::new(),
        Passwords::Keep | Passwords::Placeholder => {
            give_placeholders(roles.iter_mut().filter(|role| role.login && missing(role)), &written)?
        }
        Passwords::None => {
            roles.iter_mut().for_each(|role| role.verifier = None);
            Vec::new()
        }
    };
    let new: Vec<_> =
        placeholders.iter().filter(|(role, _)| written_password(&written, role).is_none()).collect();
    if let Some(path) = options.password_file.as_deref().filter(|_| !new.is_empty()) {
        let write = async {
            write_passwords(path, &new)
                .map_err(|e| Error::failed(format!("could not write \"{}\": {e}", path.display())))
        };
        fault::step("placeholder passwords", write).await?;
    }
    let items = ddl::role::items(&roles, &into);
    let mut made = Vec::with_capacity(items.len());
    target.execute("BEGIN").await?;
    for item in items {
        let (outcome, reason) = make_one(target, &item).await?;
        let password = (options.show_passwords && item.kind == "ROLE")
            .then(|| placeholders.iter().find(|(name, _)| *name == item.name))
            .flatten()
            .map(|(_, password)| password.clone());
        made.push(Made { item, outcome, reason, password });
    }
    fault::step("roles", target.execute("COMMIT")).await?;
    Ok(made)
}

async fn make_one(target: &mut Connection, item: &Item) -> Result<(ItemOutcome, Option<String>)> {
    if let Some(error) = copy::guarded(target, &item.create).await? {
        // Another run may have made it in between.
        let exists = error.sqlstate().is_some_and(|s| matches!(s.as_str(), "42710" | "23505"));
        return Ok(if exists {
            (ItemOutcome::Done, None)
        } else {
            (ItemOutcome::Failed, Some(reason(&error)))
        });
    }
    let mut reasons = Vec::new();
    for statement in &item.decorate {
        if let Some(error) = copy::guarded(target, std::slice::from_ref(statement)).await? {
            reasons.push(reason(&error));
        }
    }
    reasons.dedup();
    let outcome = if reasons.is_empty() { ItemOutcome::Done } else { ItemOutcome::Partial };
    Ok((outcome, (!reasons.is_empty()).then(|| reasons.join("; "))))
}

/// The server's words; from 16 on it is the detail that names the attribute.
fn reason(error: &Error) -> String {
    match error.detail() {
        Some(detail) => format!("{error} ({})", detail.trim_end_matches('.')),
        None => error.to_string(),
    }
}

/// Gives each role a random password, or the one that an earlier run has `written`, as a verifier: the password itself reaches no server and no log.
fn give_placeholders<'a>(
    roles: impl Iterator<Item = &'a mut Role>,
    written: &str,
) -> Result<Vec<(String, String)>> {
    roles
        .map(|role| {
            let password = match written_password(written, &role.name) {
                Some(password) => password.to_owned(),
                None => random_password()?,
            };
            role.verifier = Some(Verifier(scram_sha_256(password.as_bytes())));
            Ok((role.name.clone(), password))
        })
        .collect()
}

fn random_password() -> Result<String> {
    let mut bytes = [0_u8; PASSWORD_BYTES];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Error::failed("the system gives no random numbers for placeholder passwords"))?;
    Ok(bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // a String takes all that is written
        text
    }))
}

/// What comes before a role's password in a line of a password file.
fn line_start(role: &str) -> String {
    format!("*:*:*:{}:", role.replace('\\', "\\\\").replace(':', "\\:"))
}

/// The placeholder that lines of a password file hold for a role: of several, the first counts for every client.
fn written_password<'a>(lines: &'a str, role: &str) -> Option<&'a str> {
    let start = line_start(role);
    let password = lines.lines().find_map(|line| line.strip_prefix(start.as_str()))?;
    let ours = password.len() == 2 * PASSWORD_BYTES && password.bytes().all(|b| b.is_ascii_hexdigit());
    ours.then_some(password)
}

/// Adds lines to a password file, which nobody else may read.
fn write_passwords(path: &Path, placeholders: &[&(String, String)]) -> Result<(), String> {
    let reason = |error: std::io::Error| io_reason(&error);
    let mut file =
        std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(reason)?;
    if file.metadata().map_err(reason)?.mode() & 0o077 != 0 {
        return Err("it is there, and others may read it".to_owned());
    }
    let lines: String =
        placeholders.iter().map(|(role, password)| format!("{}{password}\n", line_start(role))).collect();
    file.write_all(lines.as_bytes()).and_then(|()| file.sync_all()).map_err(reason)
}
