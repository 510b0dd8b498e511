//! Turns the model of a database into SQL, one file per object family; pure.
//!
//! In: `schema`'s plain data. Out: [`Item`]s, each one object as pg_dump counts them, with the statements that make it.

use crate::schema::ObjectId;

/// pg_dump's sections, and the two passes that pg_restore makes after them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Section {
    /// Before the data: types, functions, tables, views.
    PreData,
    /// After the data: indexes, constraints, triggers, rules.
    PostData,
    /// Privileges, once everything exists.
    Privileges,
    /// What must not see the rest being made: event triggers, materialized views' contents, publications for all tables.
    Last,
}

/// One object of the plan, made by one group of statements that commits together with its state row.
#[derive(Debug, Clone)]
pub struct Item {
    /// The object itself.
    pub id: ObjectId,
    /// pg_dump's name of the kind: `TABLE`, `FK CONSTRAINT`, `COMMENT`.
    pub kind: &'static str,
    /// Schema, for objects that live in one.
    pub schema: Option<String>,
    /// pg_dump's tag within kind and schema: `film`, `film film_pkey`, `lower(text)`; unique together with them.
    pub name: String,
    /// The role that owns it, where it has one.
    pub owner: Option<String>,
    /// Where in the run it is made.
    pub section: Section,
    /// Further objects that exist once this item is made: a table's row type, its inline constraints.
    pub provides: Vec<ObjectId>,
    /// What must exist before, besides what pg_depend says of `id` and `provides`.
    pub requires: Vec<ObjectId>,
    /// The table (source OID) whose data must be complete before, for post-data.
    pub tables: Vec<u32>,
    /// The statements that make the object; when one fails, the object is not there.
    pub create: Vec<String>,
    /// Owner, comment, security label: each may fail on its own without undoing the object.
    pub decorate: Vec<String>,
}

impl Item {
    /// What the state table and messages call the item: `TABLE "public"."film"`-like, stable between runs.
    pub fn key(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{} {}.{}", self.kind, schema, self.name),
            None => format!("{} {}", self.kind, self.name),
        }
    }
}
