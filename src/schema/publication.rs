//! Publications and subscriptions.

use serde::Deserialize;

/// A publication.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Publication {
    /// pg_publication.oid.
    pub oid: u32,
    /// Name.
    pub name: String,
    /// Owning role.
    pub owner: String,
    /// FOR ALL TABLES.
    pub all_tables: bool,
    /// Published operations: `insert`, `update`, `delete`, `truncate`.
    pub operations: Vec<String>,
    /// publish_via_partition_root.
    pub via_root: bool,
    /// publish_generated_columns: `none` or `stored` (18).
    pub generated: Option<String>,
    /// Schemas that are published whole.
    pub schemas: Vec<PublishedSchema>,
    /// Published tables.
    pub tables: Vec<PublishedTable>,
}

/// A schema of a publication.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PublishedSchema {
    /// pg_publication_namespace.oid.
    pub oid: u32,
    /// pg_namespace.oid.
    pub schema_oid: u32,
    /// Name.
    pub schema: String,
}

/// A table of a publication.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PublishedTable {
    /// pg_publication_rel.oid.
    pub oid: u32,
    /// pg_class.oid.
    pub table_oid: u32,
    /// Schema.
    pub schema: String,
    /// Table.
    pub table: String,
    /// Column list, when there is one.
    pub columns: Option<Vec<String>>,
    /// WHERE, rendered with its parentheses.
    pub filter: Option<String>,
}

/// A subscription.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Subscription {
    /// pg_subscription.oid.
    pub oid: u32,
    /// Name.
    pub name: String,
    /// Owning role.
    pub owner: String,
    /// Connection string; may hold a password.
    pub connection: String,
    /// Publications on the publisher.
    pub publications: Vec<String>,
    /// Slot; `None` is NONE.
    pub slot: Option<String>,
    /// synchronous_commit.
    pub synchronous_commit: String,
    /// binary.
    pub binary: bool,
    /// streaming: `f`, `t`, `p`.
    pub streaming: String,
    /// two_phase is on.
    pub two_phase: bool,
    /// disable_on_error.
    pub disable_on_error: bool,
    /// password_required.
    pub password_required: bool,
    /// run_as_owner.
    pub run_as_owner: bool,
    /// origin: `any` or `none`.
    pub origin: Option<String>,
    /// failover.
    pub failover: bool,
}
