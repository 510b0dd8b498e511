//! Large objects, apart from their contents.

use serde::Deserialize;

use super::Acl;
use super::note::Label;

/// A large object.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LargeObject {
    /// Its OID, which is its name: rows refer to it, so it is the same on the target.
    pub oid: u32,
    /// Owning role.
    pub owner: String,
    /// Privileges.
    pub acl: Acl,
    /// Comment.
    pub comment: Option<String>,
    /// Security labels.
    pub labels: Vec<Label>,
}
