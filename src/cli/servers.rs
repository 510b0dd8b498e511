//! The two servers that a command line names.

use super::args::Common;
use super::ui::Ui;
use crate::config::{self, Config, Environment, Secret, Side};
use crate::error::{Error, Result};

/// Who resolves `--source` and `--target`.
pub(super) struct Servers<'a> {
    common: &'a Common,
    environment: &'a Environment,
    ui: &'a Ui,
}

impl<'a> Servers<'a> {
    pub(super) fn new(common: &'a Common, environment: &'a Environment, ui: &'a Ui) -> Servers<'a> {
        Servers { common, environment, ui }
    }

    fn given(&self, side: Side) -> Option<&'a str> {
        match side {
            Side::Source => self.common.source.as_deref(),
            Side::Target => self.common.target.as_deref(),
        }
    }

    /// The connection parameters of a side, or `None` where it isn't named at all.
    ///
    /// # Errors
    /// Usage errors of the connection string and of what it refers to.
    pub(super) fn named(&self, side: Side) -> Result<Option<Config>> {
        let Some(text) = self.given(side).or_else(|| self.environment.connection_string(side)) else {
            return Ok(None);
        };
        let file = match side {
            Side::Source => &self.common.source_password_file,
            Side::Target => &self.common.target_password_file,
        };
        let secret = file.as_deref().map(Secret::read).transpose().map_err(|e| e.context(side))?;
        let resolve = |text: &str| {
            let mut config = config::resolve(text, side, self.environment)?;
            if let Some(secret) = &secret {
                config = config.with_password(secret.clone());
            }
            for warning in &config.warnings {
                self.ui.warning(&format!("{side}: {warning}"), None);
            }
            Ok::<_, Error>(config)
        };
        let config = resolve(text)?;
        let primary = self.common.source_primary.as_deref().or_else(|| self.environment.primary());
        Ok(Some(match primary.filter(|_| side == Side::Source) {
            Some(primary) => {
                config.with_primary(&resolve(primary).map_err(|e| e.context("--source-primary"))?)
            }
            None => config,
        }))
    }

    /// The connection parameters of a side.
    ///
    /// # Errors
    /// As [`named`](Self::named), and a usage error where the side isn't named.
    pub(super) fn needed(&self, side: Side) -> Result<Config> {
        self.named(side)?.ok_or_else(|| {
            let variable = side.to_string().to_uppercase();
            Error::usage(format!("no {side} is given")).with_hint(format!(
                "Name it by --{side} postgresql://user@host/database or in the environment variable PGSTREAM_{variable}."
            ))
        })
    }

    /// Warns once of passwords that other users of this machine can read in the list of processes.
    pub(super) fn warn_of_passwords_in_sight(&self) {
        let holds = |text: Option<&str>| {
            text.and_then(|text| config::parse(text).ok()).is_some_and(|p| p.hold_a_secret())
        };
        let in_sight = |side: &Side| {
            holds(self.given(*side)) || *side == Side::Source && holds(self.common.source_primary.as_deref())
        };
        if let Some(side) = [Side::Source, Side::Target].iter().find(|side| in_sight(side)) {
            self.ui.warning(
                "a password on the command line can be read by other users of this machine",
                Some(&format!(
                    "Put it into a password file (~/.pgpass, PGPASSFILE), PGPASSWORD or --{side}-password-file."
                )),
            );
        }
    }
}
