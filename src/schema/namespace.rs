//! Schemas.

use serde::Deserialize;

use super::Acl;

/// A schema.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Schema {
    /// pg_namespace.oid.
    pub oid: u32,
    /// Name.
    pub name: String,
    /// Owning role.
    pub owner: String,
    /// Privileges.
    pub acl: Acl,
    /// It exists in every new database (`public`): never created, only its owner, comment and privileges are compared
    /// with those of a new database.
    pub builtin: bool,
}
