//! Which of a database's objects are copied: what was asked for, and what of a database that is.
//!
//! In: [`Selection`], names and patterns as pg_dump's options take them; [`Matched`], what of the database a server found to match them. Out:
//! the database without the rest. After `selectDumpable…` of src/bin/pg_dump/pg_dump.c: as soon as schemas, tables or extensions are named,
//! objects that are in no schema stay behind; where tables are named, all that is no table of these.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::table::Table;
use super::{Class, Database, ObjectId};

/// Names and patterns of what is copied, by pg_dump's options; everything by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Selection {
    /// `--schema`.
    pub schemas: Vec<String>,
    /// `--exclude-schema`.
    pub exclude_schemas: Vec<String>,
    /// `--table`: tables, views, sequences.
    pub tables: Vec<String>,
    /// `--table-and-children`.
    pub tables_and_children: Vec<String>,
    /// `--exclude-table`.
    pub exclude_tables: Vec<String>,
    /// `--exclude-table-and-children`.
    pub exclude_tables_and_children: Vec<String>,
    /// `--exclude-table-data`.
    pub exclude_table_data: Vec<String>,
    /// `--exclude-table-data-and-children`.
    pub exclude_table_data_and_children: Vec<String>,
    /// `--extension`.
    pub extensions: Vec<String>,
    /// `--exclude-extension`.
    pub exclude_extensions: Vec<String>,
    /// `--schema-only`: no rows, no positions of sequences, no large objects.
    pub schema_only: bool,
    /// `--strict-names`: each pattern of what is copied must match something.
    pub strict_names: bool,
}

impl Selection {
    /// Nothing is left out.
    pub fn is_everything(&self) -> bool {
        self.has_no_patterns() && !self.schema_only
    }

    /// No pattern has to be matched.
    pub fn has_no_patterns(&self) -> bool {
        let Selection { schema_only, strict_names, .. } = *self;
        *self == Selection { schema_only, strict_names, ..Selection::default() }
    }

    /// Large objects are copied.
    pub fn includes_large_objects(&self) -> bool {
        self.includes_everything() && !self.schema_only
    }

    /// Objects that are in no schema are copied: nothing is named.
    pub fn includes_everything(&self) -> bool {
        self.schemas.is_empty() && !self.names_tables() && self.extensions.is_empty()
    }

    fn names_tables(&self) -> bool {
        !self.tables.is_empty() || !self.tables_and_children.is_empty()
    }
}

/// What of a database matches a [`Selection`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matched {
    /// See [`Selection::includes_everything`].
    pub everything: bool,
    /// Names of schemas; `None` where none were named.
    pub schemas: Option<HashSet<String>>,
    /// Names of schemas that are left out.
    pub exclude_schemas: HashSet<String>,
    /// Relations (OIDs); `None` where none were named.
    pub tables: Option<HashSet<u32>>,
    /// Relations (OIDs) that are left out.
    pub exclude_tables: HashSet<u32>,
    /// Relations (OIDs) whose content is left out.
    pub exclude_data: HashSet<u32>,
    /// Names of extensions; `None` where none were named.
    pub extensions: Option<HashSet<String>>,
    /// Names of extensions that are left out.
    pub exclude_extensions: HashSet<String>,
}

impl Matched {
    /// What is in this schema is copied, unless it is a table and tables say otherwise.
    fn contents_of(&self, schema: &str) -> bool {
        self.tables.is_none()
            && self.schemas.as_ref().is_none_or(|named| named.contains(schema))
            && !self.exclude_schemas.contains(schema)
    }

    fn relation(&self, schema: &str, oid: u32) -> bool {
        let wanted = match &self.tables {
            Some(named) => named.contains(&oid),
            None => self.contents_of(schema),
        };
        wanted && !self.exclude_tables.contains(&oid)
    }

    fn extension(&self, name: &str) -> bool {
        let wanted = match &self.extensions {
            Some(named) => named.contains(name),
            None => self.everything,
        };
        wanted && !self.exclude_extensions.contains(name)
    }

    /// Rows that an extension counts as its configuration come with the extension, or where they are named themselves.
    fn configuration(&self, schema: &str, oid: u32, of_kept_extension: bool) -> bool {
        let named = self.tables.as_ref().is_some_and(|tables| tables.contains(&oid))
            || self.schemas.as_ref().is_some_and(|schemas| schemas.contains(schema));
        (of_kept_extension || named)
            && !self.exclude_tables.contains(&oid)
            && !self.exclude_schemas.contains(schema)
    }
}

impl Database {
    /// The database with nothing but what matches.
    #[must_use]
    pub fn select(mut self, matched: &Matched) -> Database {
        let before = self.ids();
        let everything = matched.everything;
        self.extensions.retain(|e| e.builtin || matched.extension(&e.name));
        let kept_configuration: HashSet<u32> =
            self.extensions.iter().flat_map(|e| &e.configuration).map(|c| c.table).collect();
        let members: HashSet<ObjectId> = self.extensions.iter().flat_map(|e| e.members.clone()).collect();

        self.schemas.retain(|s| matched.contents_of(&s.name));
        self.tables.retain(|t| match &t.configuration {
            Some(_) => matched.configuration(&t.schema, t.oid, kept_configuration.contains(&t.oid)),
            None => matched.relation(&t.schema, t.oid),
        });
        self.views.retain(|v| matched.relation(&v.schema, v.oid));
        let tables: HashSet<u32> = self.tables.iter().map(|t| t.oid).collect();
        let relations: HashSet<u32> =
            tables.iter().copied().chain(self.views.iter().map(|v| v.oid)).collect();
        self.sequences.retain_mut(|s| {
            if s.configuration {
                return matched.configuration(&s.schema, s.oid, kept_configuration.contains(&s.oid));
            }
            let owner_kept = s.owned_by.as_ref().is_some_and(|owner| tables.contains(&owner.table.oid));
            let kept = match s.identity() {
                Some(_) => owner_kept,
                None => owner_kept || matched.relation(&s.schema, s.oid),
            };
            s.owned_by = s.owned_by.take().filter(|_| owner_kept);
            kept
        });
        self.indexes.retain(|i| relations.contains(&i.table.oid));
        self.constraints.retain(|c| relations.contains(&c.table.oid));
        self.triggers.retain(|t| relations.contains(&t.table.oid));
        self.rules.retain(|r| relations.contains(&r.table.oid));
        self.policies.retain(|p| relations.contains(&p.table.oid));
        self.statistics.retain(|s| matched.contents_of(&s.schema) && relations.contains(&s.table.oid));

        self.types.retain(|o| matched.contents_of(&o.schema));
        self.functions.retain(|o| matched.contents_of(&o.schema));
        self.aggregates.retain(|o| matched.contents_of(&o.schema));
        self.operators.retain(|o| matched.contents_of(&o.schema));
        self.operator_families.retain(|o| matched.contents_of(&o.schema));
        self.operator_classes.retain(|o| matched.contents_of(&o.schema));
        self.collations.retain(|o| matched.contents_of(&o.schema));
        self.conversions.retain(|o| matched.contents_of(&o.schema));
        self.text_search_parsers.retain(|o| matched.contents_of(&o.schema));
        self.text_search_templates.retain(|o| matched.contents_of(&o.schema));
        self.text_search_dictionaries.retain(|o| matched.contents_of(&o.schema));
        self.text_search_configurations.retain(|o| matched.contents_of(&o.schema));
        self.default_privileges
            .retain(|d| d.schema.as_ref().map_or(everything, |schema| matched.contents_of(schema)));
        if !everything {
            self.access_methods.clear();
            self.casts.clear();
            self.transforms.clear();
            self.languages.clear();
            self.foreign_data_wrappers.clear();
            self.foreign_servers.clear();
            self.user_mappings.clear();
            self.event_triggers.clear();
            self.publications.clear();
            self.subscriptions.clear();
            self.unread.clear();
        }
        for publication in &mut self.publications {
            // Its tables stay in the list, as in pg_dump's: one that isn't copied is missed, and said to be.
            publication.schemas.retain(|s| matched.contents_of(&s.schema));
        }
        self.changed_privileges.retain(|c| {
            let of_the_system = matched.tables.is_none() && matched.schemas.is_none();
            members.contains(&c.id) || of_the_system && !before.members.contains(&c.id)
        });
        self.leave_out_contents(|oid| matched.exclude_data.contains(&oid));
        self.forget_notes(&before.objects);
        self
    }

    /// The database without these objects and what belongs to them.
    #[must_use]
    pub fn without(mut self, objects: &HashSet<ObjectId>) -> Database {
        let before = self.ids();
        let stays = |oid: u32| !objects.contains(&ObjectId::new(Class::Relation, oid));
        self.tables.retain(|t| stays(t.oid));
        self.sequences.retain(|s| stays(s.oid));
        self.views.retain(|v| stays(v.oid));
        self.forget_notes(&before.objects);
        self
    }

    /// Leaves out the contents of all relations that are `excluded` (OIDs).
    pub fn leave_out_contents(&mut self, excluded: impl Fn(u32) -> bool) {
        for table in &mut self.tables {
            table.contents_left_out |= excluded(table.oid);
        }
        for sequence in &mut self.sequences {
            sequence.contents_left_out |= excluded(sequence.oid);
        }
        for view in self.views.iter_mut().filter(|view| excluded(view.oid)) {
            view.populated = false;
        }
    }

    /// Drops the comments and labels of objects that were here `before` and no longer are.
    fn forget_notes(&mut self, before: &HashSet<ObjectId>) {
        let now = self.ids().objects;
        let stays = |id: &ObjectId| now.contains(id) || !before.contains(id);
        self.comments.retain(|c| stays(&c.id));
        self.security_labels.retain(|l| stays(&l.id));
        self.extension_dependencies.retain(|d| stays(&d.id));
    }

    /// Every object that the database consists of.
    pub fn objects(&self) -> HashSet<ObjectId> {
        self.ids().objects
    }

    fn ids(&self) -> Ids {
        let mut objects = HashSet::new();
        let mut add = |class: Class, oids: &mut dyn Iterator<Item = u32>| {
            objects.extend(oids.map(|oid| ObjectId::new(class, oid)));
        };
        add(Class::Namespace, &mut self.schemas.iter().map(|o| o.oid));
        add(Class::Extension, &mut self.extensions.iter().map(|o| o.oid));
        add(Class::Type, &mut self.types.iter().map(|o| o.oid));
        add(Class::Constraint, &mut self.types.iter().flat_map(super::data_type::Type::constraints));
        add(Class::Relation, &mut self.types.iter().filter_map(super::data_type::Type::relation));
        add(Class::Function, &mut self.functions.iter().map(|o| o.oid));
        add(Class::Function, &mut self.aggregates.iter().map(|o| o.oid));
        add(Class::Operator, &mut self.operators.iter().map(|o| o.oid));
        add(Class::OperatorFamily, &mut self.operator_families.iter().map(|o| o.oid));
        add(Class::OperatorClass, &mut self.operator_classes.iter().map(|o| o.oid));
        add(Class::AccessMethod, &mut self.access_methods.iter().map(|o| o.oid));
        add(Class::Cast, &mut self.casts.iter().map(|o| o.oid));
        add(Class::Transform, &mut self.transforms.iter().map(|o| o.oid));
        add(Class::Language, &mut self.languages.iter().map(|o| o.oid));
        add(Class::Collation, &mut self.collations.iter().map(|o| o.oid));
        add(Class::Conversion, &mut self.conversions.iter().map(|o| o.oid));
        add(Class::TextSearchParser, &mut self.text_search_parsers.iter().map(|o| o.oid));
        add(Class::TextSearchTemplate, &mut self.text_search_templates.iter().map(|o| o.oid));
        add(Class::TextSearchDictionary, &mut self.text_search_dictionaries.iter().map(|o| o.oid));
        add(Class::TextSearchConfiguration, &mut self.text_search_configurations.iter().map(|o| o.oid));
        add(Class::ForeignDataWrapper, &mut self.foreign_data_wrappers.iter().map(|o| o.oid));
        add(Class::ForeignServer, &mut self.foreign_servers.iter().map(|o| o.oid));
        add(Class::UserMapping, &mut self.user_mappings.iter().map(|o| o.oid));
        add(Class::Relation, &mut self.tables.iter().map(|o| o.oid));
        add(Class::Type, &mut self.tables.iter().flat_map(|o: &Table| o.types.iter().copied()));
        let not_null =
            |o: &Table| -> Vec<u32> { o.columns.iter().filter_map(|c| c.constraint.as_ref()?.oid).collect() };
        add(Class::Constraint, &mut self.tables.iter().flat_map(not_null));
        add(Class::Relation, &mut self.views.iter().map(|o| o.oid));
        add(Class::Rule, &mut self.views.iter().map(|o| o.rule));
        add(Class::Relation, &mut self.sequences.iter().map(|o| o.oid));
        add(Class::Relation, &mut self.indexes.iter().map(|o| o.oid));
        add(Class::Constraint, &mut self.constraints.iter().map(|o| o.oid));
        add(Class::Trigger, &mut self.triggers.iter().map(|o| o.oid));
        add(Class::Rule, &mut self.rules.iter().map(|o| o.oid));
        add(Class::Policy, &mut self.policies.iter().map(|o| o.oid));
        add(Class::Statistics, &mut self.statistics.iter().map(|o| o.oid));
        add(Class::Publication, &mut self.publications.iter().map(|o| o.oid));
        add(Class::Subscription, &mut self.subscriptions.iter().map(|o| o.oid));
        add(Class::EventTrigger, &mut self.event_triggers.iter().map(|o| o.oid));
        let members = self.extensions.iter().flat_map(|e| e.members.iter().copied()).collect();
        Ids { objects, members }
    }
}

/// What a database consists of.
struct Ids {
    objects: HashSet<ObjectId>,
    /// Members of its extensions.
    members: HashSet<ObjectId>,
}
