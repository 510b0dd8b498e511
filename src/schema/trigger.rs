//! What fires or filters on a relation: triggers, rules and row-level security policies.

use serde::Deserialize;

use super::table::RelationName;
use super::{Class, ObjectId};

/// When a trigger or rule fires; tgenabled, ev_enabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Enabled {
    /// In the origin and local roles: the default.
    #[serde(rename = "O")]
    Origin,
    /// ENABLE ALWAYS.
    #[serde(rename = "A")]
    Always,
    /// ENABLE REPLICA.
    #[serde(rename = "R")]
    Replica,
    /// DISABLE.
    #[serde(rename = "D")]
    Disabled,
}

/// A trigger.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Trigger {
    /// pg_trigger.oid.
    pub oid: u32,
    /// Name.
    pub name: String,
    /// Table or view.
    pub table: RelationName,
    /// Owning role of the table.
    pub owner: String,
    /// The table is a foreign table.
    pub foreign: bool,
    /// CREATE TRIGGER, as pg_get_triggerdef renders it.
    pub definition: String,
    /// When it fires.
    pub enabled: Enabled,
    /// A partition's copy of its parent's trigger: only listed where it fires at other times than that one.
    pub cloned: bool,
}

/// A rewrite rule other than a view's own.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Rule {
    /// pg_rewrite.oid.
    pub oid: u32,
    /// Name.
    pub name: String,
    /// Table or view.
    pub table: RelationName,
    /// Owning role of the table.
    pub owner: String,
    /// CREATE RULE, as pg_get_ruledef renders it.
    pub definition: String,
    /// When it fires.
    pub enabled: Enabled,
}

/// A row-level security policy.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Policy {
    /// pg_policy.oid.
    pub oid: u32,
    /// Name.
    pub name: String,
    /// The table.
    pub table: RelationName,
    /// Owning role of the table.
    pub owner: String,
    /// PERMISSIVE, otherwise RESTRICTIVE.
    pub permissive: bool,
    /// `*` ALL, `r` SELECT, `a` INSERT, `w` UPDATE, `d` DELETE.
    pub command: char,
    /// TO; empty is PUBLIC.
    pub roles: Vec<String>,
    /// USING.
    pub using: Option<String>,
    /// WITH CHECK.
    pub check: Option<String>,
}

impl Trigger {
    /// The trigger's row in pg_trigger.
    pub fn id(&self) -> ObjectId {
        ObjectId::new(Class::Trigger, self.oid)
    }
}

impl Rule {
    /// The rule's row in pg_rewrite.
    pub fn id(&self) -> ObjectId {
        ObjectId::new(Class::Rule, self.oid)
    }
}

impl Policy {
    /// The policy's row in pg_policy.
    pub fn id(&self) -> ObjectId {
        ObjectId::new(Class::Policy, self.oid)
    }
}
