//! Extended statistics.

use serde::Deserialize;

use super::table::RelationName;
use super::{Class, ObjectId};

/// An extended statistics object.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Statistics {
    /// pg_statistic_ext.oid.
    pub oid: u32,
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// Owning role.
    pub owner: String,
    /// The table or materialized view.
    pub table: RelationName,
    /// CREATE STATISTICS, as pg_get_statisticsobjdef renders it.
    pub definition: String,
    /// SET STATISTICS.
    pub target: Option<i32>,
}

impl Statistics {
    /// The object's row in pg_statistic_ext.
    pub fn id(&self) -> ObjectId {
        ObjectId::new(Class::Statistics, self.oid)
    }
}
