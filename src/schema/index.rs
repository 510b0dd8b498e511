//! Indexes, of tables and materialized views.

use serde::Deserialize;

use super::table::RelationName;
use super::{Class, ObjectId};

/// An index.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Index {
    /// pg_class.oid.
    pub oid: u32,
    /// Schema, its table's.
    pub schema: String,
    /// Name.
    pub name: String,
    /// Owning role, its table's.
    pub owner: String,
    /// The table or materialized view.
    pub table: RelationName,
    /// The relation is a materialized view.
    pub on_view: bool,
    /// CREATE INDEX, as pg_get_indexdef renders it; empty where a constraint makes the index.
    pub definition: String,
    /// pg_index.indisvalid; an invalid index is only copied when it is a partitioned one.
    pub valid: bool,
    /// Is an index of a partitioned table, which has no storage.
    pub partitioned: bool,
    /// UNIQUE.
    pub unique: bool,
    /// CLUSTER ON.
    pub clustered: bool,
    /// REPLICA IDENTITY USING INDEX.
    pub replica_identity: bool,
    /// The constraint that it implements, which makes the index.
    pub constraint: Option<u32>,
    /// The partitioned table's index that it is a part of.
    pub parent: Option<RelationName>,
    /// Tablespace, unless it is the database's own.
    pub tablespace: Option<String>,
    /// `name=value` storage parameters.
    pub options: Vec<String>,
    /// SET STATISTICS of expression columns.
    pub statistics: Vec<ColumnStatistics>,
    /// pg_class.relpages, a measure for what building it costs.
    pub pages: i32,
}

/// A statistics target of an index column.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ColumnStatistics {
    /// The column's number in the index, from 1.
    pub number: i16,
    /// The target.
    pub target: i32,
}

impl Index {
    /// The index's row in pg_class.
    pub fn id(&self) -> ObjectId {
        ObjectId::new(Class::Relation, self.oid)
    }
}
