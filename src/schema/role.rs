//! Roles that a database refers to.

use serde::Deserialize;

use super::note::Label;

/// A role.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Role {
    /// pg_authid.oid.
    pub oid: u32,
    /// Name.
    pub name: String,
    /// SUPERUSER.
    pub superuser: bool,
    /// INHERIT.
    pub inherit: bool,
    /// CREATEROLE.
    pub create_role: bool,
    /// CREATEDB.
    pub create_database: bool,
    /// LOGIN.
    pub login: bool,
    /// REPLICATION.
    pub replication: bool,
    /// BYPASSRLS.
    pub bypass_rls: bool,
    /// CONNECTION LIMIT, -1 for none.
    pub connection_limit: i32,
    /// VALID UNTIL.
    pub valid_until: Option<String>,
    /// Password verifier, where pg_authid may be read.
    #[serde(default)]
    pub verifier: Option<Verifier>,
    /// ALTER ROLE … SET, as `name=value`.
    pub settings: Vec<String>,
    /// Comment.
    pub comment: Option<String>,
    /// Security labels.
    pub labels: Vec<Label>,
    /// The role that initdb made.
    pub bootstrap: bool,
    /// Roles that it is a member of.
    pub memberships: Vec<Membership>,
}

/// A password verifier (`md5…`, `SCRAM-SHA-256$…`); its `Debug` doesn't show it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Verifier(pub String);

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier(…)")
    }
}

/// A membership in another role.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Membership {
    /// The role that it is a member of.
    pub role: String,
    /// WITH ADMIN.
    pub admin: bool,
    /// WITH INHERIT (16 and newer).
    pub inherit: Option<bool>,
    /// WITH SET (16 and newer).
    pub set: Option<bool>,
    /// GRANTED BY (16 and newer), where it isn't the role that initdb made.
    pub grantor: Option<String>,
}
