//! Tables: ordinary, partitioned and foreign, with their columns and what a bulk copy has to know of them.

use serde::Deserialize;

use super::foreign::FdwOption;
use super::partition::PlacedBy;
use super::{Acl, Class, ObjectId};

/// What kind of table it is; pg_class.relkind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum TableKind {
    /// A table with storage of its own; a partition too.
    #[serde(rename = "r")]
    Ordinary,
    /// A partitioned table, which holds no rows itself.
    #[serde(rename = "p")]
    Partitioned,
    /// A foreign table.
    #[serde(rename = "f")]
    Foreign,
}

/// Whether a relation survives a crash; pg_class.relpersistence. Temporary relations are never read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Persistence {
    /// Logged.
    #[serde(rename = "p")]
    Permanent,
    /// UNLOGGED.
    #[serde(rename = "u")]
    Unlogged,
}

/// Which columns identify a row in logical replication; pg_class.relreplident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum ReplicaIdentity {
    /// The primary key.
    #[serde(rename = "d")]
    Default,
    /// None.
    #[serde(rename = "n")]
    Nothing,
    /// The whole row.
    #[serde(rename = "f")]
    Full,
    /// An index, the one that has `replica_identity`.
    #[serde(rename = "i")]
    Index,
}

/// A relation that another one names.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RelationName {
    /// pg_class.oid.
    pub oid: u32,
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Table {
    /// pg_class.oid.
    pub oid: u32,
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// Ordinary, partitioned or foreign.
    pub kind: TableKind,
    /// Owning role.
    pub owner: String,
    /// Privileges of the table; a column's are with the column.
    pub acl: Acl,
    /// Logged or not.
    pub persistence: Persistence,
    /// Its row type and that one's array type, where it has one.
    pub types: Vec<u32>,
    /// OF: the composite type it was made from, as `format_type` renders it.
    pub of_type: Option<String>,
    /// Table access method, where the relation has one.
    pub access_method: Option<String>,
    /// Tablespace, unless it is the database's own.
    pub tablespace: Option<String>,
    /// `name=value` storage parameters.
    pub options: Vec<String>,
    /// Those of its TOAST table, without the prefix `toast.`.
    pub toast_options: Vec<String>,
    /// ENABLE ROW LEVEL SECURITY.
    pub row_security: bool,
    /// FORCE ROW LEVEL SECURITY.
    pub force_row_security: bool,
    /// Replica identity.
    pub replica_identity: ReplicaIdentity,
    /// WITH OIDS, which no server after 11 knows.
    pub has_oids: bool,
    /// What follows PARTITION BY.
    pub partition_key: Option<String>,
    /// What decides which of its partitions takes a row, where the values alone don't.
    #[serde(default)]
    pub placed_by: Option<PlacedBy>,
    /// `FOR VALUES …` or `DEFAULT`, of a partition.
    pub partition_bound: Option<String>,
    /// The tables it inherits from, in order; a partition's one parent.
    pub parents: Vec<RelationName>,
    /// Its columns stand in another order than INHERITS would give them: it was made on its own and joined to its parents later, or a
    /// parent got another column; settled by [`inherit`](super::inherit).
    #[serde(default)]
    pub joined_parents: bool,
    /// Columns in order, without dropped ones.
    pub columns: Vec<Column>,
    /// Server of a foreign table.
    pub server: Option<String>,
    /// OPTIONS of a foreign table.
    pub foreign_options: Vec<FdwOption>,
    /// Columns of the primary key, in the key's order.
    pub primary_key: Vec<KeyColumn>,
    /// pg_class.relpages.
    pub pages: i32,
    /// pg_class.reltuples; -1 where it is not known.
    pub tuples: f64,
    /// pg_table_size: heap, TOAST and maps, without indexes; 0 for partitioned and foreign tables.
    pub bytes: u64,
    /// Set for a table that belongs to an extension and is here only because the extension registered its rows as
    /// configuration to be copied: the condition of the rows, possibly empty. The extension makes the table.
    pub configuration: Option<String>,
    /// Its rows stay behind, and its changes: the operator wants its definition alone.
    #[serde(skip)]
    pub contents_left_out: bool,
}

/// A column of a table or view. The catalog query leaves out what most columns do not have.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Column {
    /// pg_attribute.attnum.
    pub number: i16,
    /// Name.
    pub name: String,
    /// Type as `format_type` renders it, with its modifier.
    pub type_name: String,
    /// pg_type.oid; below 10000 for types that every server has under the same OID.
    pub type_oid: u32,
    /// Collation, quoted and qualified, unless it is the type's own.
    pub collation: Option<String>,
    /// NOT NULL in whatever way.
    pub not_null: bool,
    /// The not-null constraint as it has to be written, where one has to be; settled by [`inherit`](super::inherit).
    pub constraint: Option<NotNull>,
    /// Default or generation expression.
    pub default: Option<ColumnDefault>,
    /// `a` GENERATED ALWAYS AS IDENTITY, `d` BY DEFAULT.
    pub identity: Option<char>,
    /// Defined here, not only by a parent.
    #[serde(default = "yes")]
    pub is_local: bool,
    /// STORAGE, where it is not the type's own, or not the one that would be inherited.
    pub storage: Option<String>,
    /// The storage whatever the type's is, of an inherited column; see [`inherit`](super::inherit).
    #[serde(default)]
    pub own_storage: Option<String>,
    /// COMPRESSION; `default` where a parent has one that isn't inherited.
    pub compression: Option<String>,
    /// SET STATISTICS.
    pub statistics: Option<i32>,
    /// `name=value` attribute options such as `n_distinct=-0.5`.
    #[serde(default)]
    pub options: Vec<String>,
    /// OPTIONS of a foreign table's column.
    #[serde(default)]
    pub foreign_options: Vec<FdwOption>,
    /// Privileges of the column.
    #[serde(default)]
    pub acl: Acl,
}

/// A column's valid not-null constraint.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NotNull {
    /// pg_constraint.oid, on servers from 18.
    pub oid: Option<u32>,
    /// Name, on servers from 18.
    pub name: Option<String>,
    /// The name must be said: it isn't the one that the server would choose, has a comment, or is another table's too.
    pub says_name: bool,
    /// NO INHERIT.
    pub no_inherit: bool,
    /// Defined here, not only by a parent.
    pub is_local: bool,
    /// Comes from a parent where it is NOT VALID, and was validated here; settled by [`inherit`](super::inherit).
    #[serde(default)]
    pub validated_here: bool,
}

/// A column's DEFAULT or GENERATED ALWAYS AS.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ColumnDefault {
    /// pg_attrdef.oid; 0 for a default that only takes an inherited one away.
    pub oid: u32,
    /// The expression.
    pub expression: String,
    /// `s` stored, `v` virtual; a default otherwise.
    pub generated: Option<char>,
    /// Cannot stand in CREATE TABLE, because the column doesn't either: needs ALTER TABLE … SET DEFAULT.
    #[serde(default)]
    pub separate: bool,
    /// A generation expression that every parent has too, and that INHERITS brings.
    #[serde(default)]
    pub inherited: bool,
}

/// A column of a primary key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct KeyColumn {
    /// Name.
    pub name: String,
    /// pg_type.oid.
    pub type_oid: u32,
    /// Type as `format_type` renders it.
    pub type_name: String,
}

impl Table {
    /// The table's row in pg_class.
    pub fn id(&self) -> ObjectId {
        ObjectId::new(Class::Relation, self.oid)
    }

    /// Is a partition of another table.
    pub fn is_partition(&self) -> bool {
        self.partition_bound.is_some()
    }

    /// Holds rows that a copy has to move: neither partitioned nor foreign, and wanted.
    pub fn has_rows(&self) -> bool {
        self.kind == TableKind::Ordinary && !self.contents_left_out
    }

    /// Is made as a plain table before it becomes a child.
    pub fn is_made_whole(&self) -> bool {
        self.is_partition() || self.joined_parents
    }

    /// Whether the table's own definition lists the column: other columns are inherited.
    pub fn lists(&self, column: &Column) -> bool {
        column.is_local || self.is_partition()
    }
}

impl Column {
    /// Is computed, so never written.
    pub fn is_generated(&self) -> bool {
        self.default.as_ref().is_some_and(|d| d.generated.is_some())
    }
}

impl NotNull {
    /// The name, where it must be said.
    pub fn said_name(&self) -> Option<&str> {
        self.name.as_deref().filter(|_| self.says_name)
    }
}

impl ColumnDefault {
    /// The default's row in pg_attrdef, if it has one.
    pub fn id(&self) -> Option<ObjectId> {
        (self.oid != 0).then(|| ObjectId::new(Class::ColumnDefault, self.oid))
    }
}

/// What a column is that doesn't say otherwise.
fn yes() -> bool {
    true
}
