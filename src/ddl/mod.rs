//! Turns the model of a database into SQL, one file per object family; pure.
//!
//! In: `schema`'s plain data. Out: a [`Plan`] of [`Item`]s, each one object as pg_dump counts them, with the statements that
//! make it. Statements carry no semicolon at the end. What may fail: a loop of dependencies that no repair breaks.

mod array_cast;
pub mod collation;
pub mod constraint;
pub mod data_type;
pub mod database;
pub mod foreign;
pub mod function;
pub mod index;
mod inherit;
pub mod language;
pub mod large_object;
pub mod namespace;
pub mod note;
pub mod omit;
pub mod operator;
pub mod order;
pub mod privileges;
pub mod publication;
pub mod relation;
pub mod role;
pub mod script;
pub mod sequence;
pub mod setting;
pub mod table;
pub mod text_search;
pub mod trigger;
pub mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::schema::selection::Selection;
use crate::schema::{Class, Database, ObjectId, newer};

pub use array_cast::keep_array_casts;
pub use omit::{Dangling, Name, dangling};
pub use script::script;

/// Plans how to make everything of `database` on a server of `target_version` (a `server_version_num`).
///
/// Loops of dependencies are found on the finished items; each repair names parts that must be made on their own, and the
/// items are written again with those left out. What the target's major has in another form comes in that form ([`newer`]).
pub fn plan(database: &Database, options: &Options, target_version: u32) -> Result<Plan> {
    let mut separate = BTreeSet::new();
    // Rarely is there anything to adapt, and a definition may be large.
    let mut adapted = None;
    let database = match newer::changes(database, target_version).is_empty() {
        true => database,
        false => {
            let adapted = adapted.insert(database.clone());
            newer::adapt(adapted, target_version);
            adapted
        }
    };
    loop {
        let context = Context { database, options, target_version, separate: &separate };
        let mut plan = Plan::default();
        namespace::items(&context, &mut plan);
        data_type::items(&context, &mut plan);
        function::items(&context, &mut plan);
        operator::items(&context, &mut plan);
        collation::items(&context, &mut plan);
        language::items(&context, &mut plan);
        text_search::items(&context, &mut plan);
        foreign::items(&context, &mut plan);
        relation::items(&context, &mut plan);
        privileges::relations(&context, &mut plan);
        publication::items(&context, &mut plan);
        database::items(&context, &mut plan);
        note::attach(&context, &mut plan);
        for (kind, name, reason) in &database.unread {
            plan.leave(kind, name, reason);
        }
        let repairs = order::sort(&context, &mut plan)?;
        if repairs.is_empty() {
            plan.not_copied.sort_by(|a, b| (&a.kind, &a.name).cmp(&(&b.kind, &b.name)));
            return Ok(plan);
        }
        separate.extend(repairs);
    }
}

/// What is to be copied, in pg_dump's words; everything by default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// The target database's name, to give it the source database's settings, connection limit, comment and privileges; `None`
    /// leaves it as it is, as pg_dump does without `--create`.
    #[serde(skip)]
    pub database: Option<String>,
    /// Owners (`--no-owner`).
    pub owners: bool,
    /// GRANT and REVOKE (`--no-privileges`).
    pub privileges: bool,
    /// Comments (`--no-comments`).
    pub comments: bool,
    /// Security labels (`--no-security-labels`).
    pub security_labels: bool,
    /// Publications (`--no-publications`).
    pub publications: bool,
    /// Subscriptions (`--no-subscriptions`).
    pub subscriptions: bool,
    /// Row-level security policies (`--no-policies`).
    pub policies: bool,
    /// Tablespaces of tables and indexes (`--no-tablespaces`).
    pub tablespaces: bool,
    /// Tablespaces of the source that have another name on the target (`--tablespace-mapping`).
    pub tablespace_mapping: BTreeMap<String, String>,
    /// Table access methods (`--no-table-access-method`).
    pub table_access_methods: bool,
    /// Compression methods of columns (`--no-toast-compression`).
    pub toast_compression: bool,
    /// What the target's role may not create stays behind (`--skip-unprivileged`); otherwise it keeps a migration from beginning.
    pub skip_unprivileged: bool,
    /// Changes of extensions' tables are followed like any others'; otherwise their rows are copied once (`--no-replicate-extension-tables`).
    pub replicate_extension_tables: bool,
    /// The objects that are copied (`--schema`, `--table` and the like); the plan is made of a database that was reduced to them.
    pub selection: Selection,
}

impl Options {
    /// Nothing is left out.
    pub fn copies_everything(&self) -> bool {
        *self == Options { database: self.database.clone(), ..Options::default() }
    }

    /// What a tablespace of the source is on the target; `None` where tablespaces are left out.
    pub fn tablespace<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.tablespaces.then(|| self.tablespace_mapping.get(name).map_or(name, String::as_str))
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            database: None,
            owners: true,
            privileges: true,
            comments: true,
            security_labels: true,
            publications: true,
            subscriptions: true,
            policies: true,
            tablespaces: true,
            tablespace_mapping: BTreeMap::new(),
            table_access_methods: true,
            toast_compression: true,
            skip_unprivileged: false,
            replicate_extension_tables: true,
            selection: Selection::default(),
        }
    }
}

/// What every family's `items` function gets to see.
#[derive(Debug)]
pub struct Context<'a> {
    /// The source's definition.
    pub database: &'a Database,
    /// What to copy.
    pub options: &'a Options,
    /// `server_version_num` of the target.
    pub target_version: u32,
    /// Parts that must be made on their own to break a loop of dependencies: column defaults, check constraints and
    /// `_RETURN` rules by their ids, functions and materialized views (by their rule) that have to wait for post-data, range
    /// types that need a shell. The family leaves the part out of its usual item and writes a second item for it.
    pub separate: &'a BTreeSet<ObjectId>,
}

impl Context<'_> {
    /// The schema of that name, unless it is the system's or an extension's.
    pub fn schema_id(&self, name: &str) -> Option<ObjectId> {
        let schema = self.database.schemas.iter().find(|s| s.name == name)?;
        Some(ObjectId::new(Class::Namespace, schema.oid))
    }
}

/// Something that stays behind, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotCopied {
    /// pg_dump's name of the kind.
    pub kind: String,
    /// The object's name, qualified.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// Everything that has to be made.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// In an order that a single session can follow.
    pub items: Vec<Item>,
    /// For each item the indices of the items that must exist before it.
    pub needs: Vec<Vec<usize>>,
    /// What is left out, in the order of kinds and names.
    pub not_copied: Vec<NotCopied>,
}

impl Plan {
    /// The items at these places, in this order, and for each the positions among them of those that it needs.
    pub fn part(&self, places: &[usize]) -> (Vec<Item>, Vec<Vec<usize>>) {
        let positions: HashMap<usize, usize> =
            places.iter().enumerate().map(|(position, &place)| (place, position)).collect();
        let needs = |place: &usize| {
            self.needs[*place].iter().filter_map(|need| positions.get(need).copied()).collect()
        };
        (places.iter().map(|&place| self.items[place].clone()).collect(), places.iter().map(needs).collect())
    }

    /// Notes that an object stays behind.
    pub fn leave(&mut self, kind: &str, name: impl Into<String>, reason: impl Into<String>) {
        self.not_copied.push(NotCopied { kind: kind.to_owned(), name: name.into(), reason: reason.into() });
    }
}

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
    /// The statements hold a secret (a password, a connection string): they must not be shown.
    pub secret: bool,
}

impl Item {
    /// An item without statements, owner and dependencies.
    pub fn new(
        id: ObjectId,
        kind: &'static str,
        section: Section,
        schema: Option<&str>,
        name: impl Into<String>,
    ) -> Item {
        Item {
            id,
            kind,
            schema: schema.map(str::to_owned),
            name: name.into(),
            owner: None,
            section,
            provides: Vec::new(),
            requires: Vec::new(),
            tables: Vec::new(),
            create: Vec::new(),
            decorate: Vec::new(),
            secret: false,
        }
    }

    /// Gives the object to `owner`, where owners are copied; `subject` is what ALTER takes: `TABLE "public"."film"`.
    #[must_use]
    pub fn owned(mut self, context: &Context<'_>, subject: &str, owner: &str) -> Item {
        self.owner = Some(owner.to_owned());
        if context.options.owners {
            self.decorate.push(format!("ALTER {subject} OWNER TO {}", crate::sql::ident(owner)));
        }
        self
    }

    /// Whether it may act on the changes of a stream that are applied; then it is made at the cutover, if it wasn't before.
    pub fn acts_on_changes(&self) -> bool {
        matches!(self.kind, "FK CONSTRAINT" | "TRIGGER" | "RULE")
    }

    /// What the state table and messages call the item: `TABLE "public"."film"`-like, stable between runs.
    pub fn key(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{} {}.{}", self.kind, schema, self.name),
            None => format!("{} {}", self.kind, self.name),
        }
    }
}
