//! Procedural languages and transforms.

use serde::Deserialize;

use super::Acl;

/// A procedural language.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Language {
    /// pg_language.oid.
    pub oid: u32,
    /// Name.
    pub name: String,
    /// Owning role.
    pub owner: String,
    /// Privileges.
    pub acl: Acl,
    /// TRUSTED.
    pub trusted: bool,
    /// HANDLER, quoted and qualified.
    pub handler: Option<String>,
    /// INLINE.
    pub inline: Option<String>,
    /// VALIDATOR.
    pub validator: Option<String>,
}

/// A transform.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Transform {
    /// pg_transform.oid.
    pub oid: u32,
    /// The type, rendered.
    pub data_type: String,
    /// The language.
    pub language: String,
    /// FROM SQL WITH FUNCTION, with arguments.
    pub from_sql: Option<String>,
    /// TO SQL WITH FUNCTION, with arguments.
    pub to_sql: Option<String>,
}
