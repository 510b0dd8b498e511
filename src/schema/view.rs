//! Views and materialized views.

use serde::Deserialize;

use super::table::Column;
use super::{Acl, Class, ObjectId};

/// A view or materialized view.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct View {
    /// pg_class.oid.
    pub oid: u32,
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// Is a materialized view.
    pub materialized: bool,
    /// Owning role.
    pub owner: String,
    /// Privileges.
    pub acl: Acl,
    /// pg_rewrite.oid of its rule `_RETURN`.
    pub rule: u32,
    /// Its row type and that one's array type.
    pub types: Vec<u32>,
    /// The query, as pg_get_viewdef renders it.
    pub definition: String,
    /// `name=value` options without check_option.
    pub options: Vec<String>,
    /// Those of a materialized view's TOAST table, without the prefix `toast.`.
    pub toast_options: Vec<String>,
    /// `LOCAL` or `CASCADED`.
    pub check_option: Option<String>,
    /// Columns in order.
    pub columns: Vec<Column>,
    /// Table access method of a materialized view.
    pub access_method: Option<String>,
    /// Tablespace of a materialized view, unless it is the database's own.
    pub tablespace: Option<String>,
    /// A materialized view that was refreshed.
    pub populated: bool,
    /// Its query leans on a primary key (GROUP BY the key), so it can't be made before the constraint.
    pub needs_key: bool,
    /// pg_table_size of a materialized view.
    pub bytes: u64,
}

impl View {
    /// The view's row in pg_class.
    pub fn id(&self) -> ObjectId {
        ObjectId::new(Class::Relation, self.oid)
    }

    /// The rule that holds its query.
    pub fn rule_id(&self) -> ObjectId {
        ObjectId::new(Class::Rule, self.rule)
    }
}
