//! What is done about roles.
//!
//! What may fail: a pattern that is none of a role's name.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::value::expressions;
use crate::catalog::role::Scope;
use crate::error::Result;
use crate::migrate::roles::{Options, Passwords};

/// What is done about roles.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Roles")]
pub(in crate::cli) struct Roles {
    /// Don't create roles that the target lacks
    #[arg(long)]
    pub(in crate::cli) no_roles: bool,
    /// Leave out roles whose names match a pattern of psql's; a list with commas, and more than once
    #[arg(long, value_name = "PATTERN")]
    pub(in crate::cli) exclude_role: Vec<String>,
    /// What becomes of the passwords of created roles
    #[arg(long, value_enum, default_value = "keep")]
    pub(in crate::cli) role_passwords: RolePasswords,
    /// Write placeholder passwords into this password file, which nobody else may read
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) role_password_file: Option<PathBuf>,
    /// Show placeholder passwords in the report
    #[arg(long)]
    pub(in crate::cli) show_passwords: bool,
}

/// Passwords of created roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum RolePasswords {
    /// As stored on the source; placeholders where the source doesn't show them
    Keep,
    /// A random one for each role that may log in
    Placeholder,
    /// None
    None,
}

impl Roles {
    /// The options of the roles of `scope`.
    pub(in crate::cli) fn options(&self, scope: Scope) -> Result<Options> {
        Ok(Options {
            make: !self.no_roles,
            exclude: expressions("--exclude-role", &self.exclude_role)?,
            scope,
            passwords: match self.role_passwords {
                RolePasswords::Keep => Passwords::Keep,
                RolePasswords::Placeholder => Passwords::Placeholder,
                RolePasswords::None => Passwords::None,
            },
            password_file: self.role_password_file.clone(),
            show_passwords: self.show_passwords,
        })
    }
}
