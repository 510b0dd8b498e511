//! Foreign-data wrappers, servers and user mappings.

use serde::Deserialize;

use super::Acl;

/// One option of OPTIONS (…).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct FdwOption {
    /// Name.
    pub name: String,
    /// Value; may be a secret in user mappings.
    pub value: String,
}

/// A foreign-data wrapper.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Wrapper {
    /// pg_foreign_data_wrapper.oid.
    pub oid: u32,
    /// Name.
    pub name: String,
    /// Owning role.
    pub owner: String,
    /// Privileges.
    pub acl: Acl,
    /// HANDLER, quoted and qualified.
    pub handler: Option<String>,
    /// VALIDATOR, quoted and qualified.
    pub validator: Option<String>,
    /// OPTIONS.
    pub options: Vec<FdwOption>,
}

/// A foreign server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Server {
    /// pg_foreign_server.oid.
    pub oid: u32,
    /// Name.
    pub name: String,
    /// Owning role.
    pub owner: String,
    /// Privileges.
    pub acl: Acl,
    /// Its wrapper.
    pub wrapper: String,
    /// TYPE.
    pub kind: Option<String>,
    /// VERSION.
    pub version: Option<String>,
    /// OPTIONS.
    pub options: Vec<FdwOption>,
}

/// A user mapping.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct UserMapping {
    /// pg_user_mapping.oid.
    pub oid: u32,
    /// The role; `None` is PUBLIC.
    pub role: Option<String>,
    /// Its server.
    pub server: String,
    /// pg_foreign_server.oid.
    pub server_oid: u32,
    /// OPTIONS; `None` where the server hides them from the reading role.
    pub options: Option<Vec<FdwOption>>,
}
