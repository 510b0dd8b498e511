//! Sequences: plain, owned by a column, or behind an identity column.

use serde::Deserialize;

use super::table::{Persistence, RelationName};
use super::{Acl, Class, ObjectId};

/// A sequence.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Sequence {
    /// pg_class.oid.
    pub oid: u32,
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// Owning role.
    pub owner: String,
    /// Privileges.
    pub acl: Acl,
    /// Logged or not.
    pub persistence: Persistence,
    /// `smallint`, `integer` or `bigint`.
    pub type_name: String,
    /// START WITH.
    pub start: i64,
    /// INCREMENT BY.
    pub increment: i64,
    /// MINVALUE.
    pub minimum: i64,
    /// MAXVALUE.
    pub maximum: i64,
    /// CACHE.
    pub cache: i64,
    /// CYCLE.
    pub cycle: bool,
    /// The column it is dropped with.
    pub owned_by: Option<OwningColumn>,
    /// Belongs to an extension, which makes it; here because the extension registered its value as configuration.
    pub configuration: bool,
    /// Its position stays behind: the operator wants its definition alone.
    #[serde(skip)]
    pub contents_left_out: bool,
}

/// The column that a sequence belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct OwningColumn {
    /// The table.
    pub table: RelationName,
    /// The column's name.
    pub column: String,
    /// The table's persistence.
    pub persistence: Persistence,
    /// `a` GENERATED ALWAYS AS IDENTITY, `d` BY DEFAULT; `None` for OWNED BY.
    pub identity: Option<char>,
    /// The table is a foreign table.
    pub foreign: bool,
}

impl Sequence {
    /// The sequence's row in pg_class.
    pub fn id(&self) -> ObjectId {
        ObjectId::new(Class::Relation, self.oid)
    }

    /// The identity column that the sequence is part of.
    pub fn identity(&self) -> Option<(&OwningColumn, char)> {
        let owner = self.owned_by.as_ref()?;
        owner.identity.map(|kind| (owner, kind))
    }
}
