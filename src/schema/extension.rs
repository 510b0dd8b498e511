//! Extensions, and privileges changed on objects that are not dumped themselves.

use serde::Deserialize;

use super::{Acl, ObjectId};

/// An extension.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Extension {
    /// pg_extension.oid.
    pub oid: u32,
    /// Name.
    pub name: String,
    /// The schema that holds its objects.
    pub schema: String,
    /// Installed version.
    pub version: String,
    /// Can be moved to another schema.
    pub relocatable: bool,
    /// Made by initdb (`plpgsql`): there already in every new database.
    pub builtin: bool,
    /// Its objects, which CREATE EXTENSION makes.
    pub members: Vec<ObjectId>,
    /// Tables whose data belongs to the user (pg_extension_config_dump).
    pub configuration: Vec<ConfigurationTable>,
}

/// A table of an extension whose rows are copied.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ConfigurationTable {
    /// pg_class.oid.
    pub table: u32,
    /// `WHERE …` that tells the user's rows, if not all of them.
    pub condition: Option<String>,
}

/// An object that an extension or initdb made and whose privileges differ from those it was made with
/// (pg_init_privs).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ChangedPrivileges {
    /// The object.
    pub id: ObjectId,
    /// GRANT's word for the kind: `TABLE`, `SEQUENCE`, `FUNCTION`, `PROCEDURE`, `TYPE`, `SCHEMA`, `LANGUAGE`, …
    pub kind: String,
    /// Schema, if the kind has one.
    pub schema: Option<String>,
    /// Its name, with arguments for functions.
    pub name: String,
    /// The quoted and qualified name, with arguments for functions.
    pub identity: String,
    /// The column, quoted, when the privileges are a column's.
    pub column: Option<String>,
    /// Owning role.
    pub owner: String,
    /// What it has now; `default` is what it was made with.
    pub acl: Acl,
}
