//! What belongs to the database as a whole.

use serde::Deserialize;

use super::Acl;
use super::note::Label;

/// Properties of the database itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct Properties {
    /// pg_database.oid.
    pub oid: u32,
    /// Owning role.
    pub owner: String,
    /// Encoding's name.
    pub encoding: String,
    /// `c` libc, `i` ICU, `b` builtin.
    pub locale_provider: String,
    /// LC_COLLATE.
    pub collate: Option<String>,
    /// LC_CTYPE.
    pub ctype: Option<String>,
    /// ICU or builtin locale.
    pub locale: Option<String>,
    /// ICU collation rules.
    pub icu_rules: Option<String>,
    /// Default tablespace.
    pub tablespace: String,
    /// CONNECTION LIMIT, -1 for none.
    pub connection_limit: i32,
    /// IS_TEMPLATE.
    pub template: bool,
    /// Privileges.
    pub acl: Acl,
    /// Comment.
    pub comment: Option<String>,
    /// Security labels.
    pub labels: Vec<Label>,
    /// ALTER DATABASE … SET.
    pub settings: Vec<String>,
    /// ALTER ROLE … IN DATABASE … SET: role and settings.
    pub role_settings: Vec<RoleSettings>,
}

/// Settings that a role has in this database.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RoleSettings {
    /// The role.
    pub role: String,
    /// `name=value` as in pg_db_role_setting.
    pub settings: Vec<String>,
}

/// ALTER DEFAULT PRIVILEGES of one role, kind and schema.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct DefaultPrivileges {
    /// pg_default_acl.oid.
    pub oid: u32,
    /// FOR ROLE.
    pub role: String,
    /// IN SCHEMA.
    pub schema: Option<String>,
    /// `r` tables, `S` sequences, `f` functions, `T` types, `n` schemas, `L` large objects.
    pub kind: char,
    /// What objects made later get; `default` is what they would get without.
    pub acl: Acl,
}
