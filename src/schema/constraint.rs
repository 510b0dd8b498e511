//! Constraints of tables; those of domains are with their types.

use serde::Deserialize;

use super::table::RelationName;
use super::{Class, ObjectId};

/// pg_constraint.contype.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum ConstraintKind {
    /// CHECK.
    #[serde(rename = "c")]
    Check,
    /// NOT NULL, as an object of its own on servers from 18.
    #[serde(rename = "n")]
    NotNull,
    /// PRIMARY KEY.
    #[serde(rename = "p")]
    PrimaryKey,
    /// UNIQUE.
    #[serde(rename = "u")]
    Unique,
    /// EXCLUDE.
    #[serde(rename = "x")]
    Exclusion,
    /// FOREIGN KEY.
    #[serde(rename = "f")]
    ForeignKey,
}

/// A constraint of a table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Constraint {
    /// pg_constraint.oid.
    pub oid: u32,
    /// Name.
    pub name: String,
    /// Kind.
    pub kind: ConstraintKind,
    /// The table.
    pub table: RelationName,
    /// Owning role of the table.
    pub owner: String,
    /// The table is partitioned.
    pub partitioned: bool,
    /// The table is a partition.
    pub partition: bool,
    /// The table is a foreign table.
    pub foreign: bool,
    /// What follows CONSTRAINT name, as pg_get_constraintdef renders it.
    pub definition: String,
    /// DEFERRABLE.
    pub deferrable: bool,
    /// INITIALLY DEFERRED.
    pub deferred: bool,
    /// False for NOT VALID and NOT ENFORCED.
    pub validated: bool,
    /// Defined here, not only by a parent.
    pub is_local: bool,
    /// The constraint of the partitioned table that it is a part of.
    pub parent: Option<u32>,
    /// The index behind a primary key, unique or exclusion constraint, or behind the referenced key.
    pub index: Option<u32>,
    /// The table that a foreign key refers to.
    pub referenced: Option<RelationName>,
    /// The referenced table is partitioned.
    pub references_partitioned: bool,
}

impl Constraint {
    /// The constraint's row in pg_constraint.
    pub fn id(&self) -> ObjectId {
        ObjectId::new(Class::Constraint, self.oid)
    }

    /// Whether it is a check that no row breaks.
    pub fn is_valid_check(&self) -> bool {
        self.kind == ConstraintKind::Check && self.validated
    }

    /// Whether CREATE TABLE holds it when no loop forbids: valid checks, of partitions the inherited ones too.
    pub fn is_inline(&self) -> bool {
        self.is_valid_check() && (self.is_local || self.partition)
    }
}
