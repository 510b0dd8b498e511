//! Relation and Type: what the rows that follow look like.

use crate::cursor::{Cursor, ParseError};

/// A table as it is from here on in the stream: it replaces what was known of the same OID. In a streamed
/// transaction it holds only there until that transaction commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// The table's OID on the source.
    pub oid: u32,
    /// The schema. The protocol's empty string, which means `pg_catalog`, is written out.
    pub namespace: String,
    /// The table's name.
    pub name: String,
    /// What an UPDATE or DELETE tells of the old row.
    pub replica_identity: ReplicaIdentity,
    /// The published columns, in the order of the tuples.
    pub columns: Vec<Column>,
}

/// A table's replica identity (`pg_class.relreplident`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReplicaIdentity {
    /// The primary key, if there is one.
    Default,
    /// Nothing.
    Nothing,
    /// The whole row.
    Full,
    /// The columns of a chosen unique index.
    Index,
}

/// A column of a [`Relation`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Whether it is part of the replica identity (with FULL, every column is).
    pub key: bool,
    /// The name.
    pub name: String,
    /// The data type's OID on the source.
    pub type_oid: u32,
    /// The type modifier, -1 for none.
    pub type_modifier: i32,
}

/// A data type that is not built in, sent before the first Relation that uses it. For a domain
/// the name is the base type's, while the OID is the domain's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Type {
    /// The type's OID on the source.
    pub oid: u32,
    /// The schema, written out like [`Relation::namespace`].
    pub namespace: String,
    /// The type's name.
    pub name: String,
}

fn namespace(cursor: &mut Cursor) -> Result<String, ParseError> {
    let name = cursor.name("namespace")?;
    Ok(if name.is_empty() { "pg_catalog".to_owned() } else { name })
}

impl Relation {
    pub(super) fn parse(cursor: &mut Cursor) -> Result<Relation, ParseError> {
        let oid = cursor.u32("relation OID")?;
        let namespace = namespace(cursor)?;
        let name = cursor.name("name")?;
        let replica_identity = match cursor.u8("replica identity")? {
            b'd' => ReplicaIdentity::Default,
            b'n' => ReplicaIdentity::Nothing,
            b'f' => ReplicaIdentity::Full,
            b'i' => ReplicaIdentity::Index,
            value => return Err(cursor.invalid("replica identity", value)),
        };
        let count = cursor.u16("number of columns")?;
        let columns = (0..count).map(|_| Column::parse(cursor)).collect::<Result<_, _>>()?;
        Ok(Relation { oid, namespace, name, replica_identity, columns })
    }
}

impl Column {
    fn parse(cursor: &mut Cursor) -> Result<Column, ParseError> {
        let key = match cursor.u8("column flags")? {
            0 => false,
            1 => true,
            flags => return Err(cursor.invalid("column flags", flags)),
        };
        Ok(Column {
            key,
            name: cursor.name("column name")?,
            type_oid: cursor.u32("type OID")?,
            type_modifier: cursor.i32("type modifier")?,
        })
    }
}

impl Type {
    pub(super) fn parse(cursor: &mut Cursor) -> Result<Type, ParseError> {
        Ok(Type { oid: cursor.u32("type OID")?, namespace: namespace(cursor)?, name: cursor.name("name")? })
    }
}
