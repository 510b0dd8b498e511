//! Reads a database's definition from the system catalogs, one file per object family.
//!
//! In: a connection to a server of major 10 or newer, in a repeatable read transaction with an empty `search_path`. Out: the
//! model of `schema`. What may fail: the connection, and a catalog without read permission; both name the query. What a role
//! without superuser isn't shown (subscriptions, options of user mappings) is listed in `Database::unread`.

pub mod access;
pub mod acl;
pub mod activity;
pub mod aiven_extras;
pub mod builtin;
pub mod cluster;
pub mod collation;
pub mod constraint;
pub mod data_type;
pub mod database;
pub mod dependency;
pub mod facts;
pub mod foreign;
pub mod function;
pub mod index;
pub mod key;
pub mod language;
pub mod large_object;
pub mod large_value;
pub mod namespace;
pub mod note;
pub mod operator;
pub mod publication;
pub mod query;
mod relation;
pub mod replication;
pub mod role;
pub mod selection;
pub mod sequence;
pub mod server;
pub mod surroundings;
pub mod table;
pub mod target_table;
pub mod text_search;
pub mod trigger;
pub mod view;

use serde::Deserialize;
use serde::de::DeserializeOwned;

pub use query::{Answers, Batch, Query, Ticket};

use crate::error::Result;
use crate::schema::Database;
use crate::wire::Connection;

/// Reads everything of the connected database, in two round trips. Sets `quote_all_identifiers` on the session while it does, so that
/// whatever the server renders is quoted: a newer target may have more keywords.
pub async fn read(connection: &mut Connection) -> Result<Database> {
    let version = connection.version();
    let readable = connection
        .simple(&format!("SET quote_all_identifiers = on; SET search_path = ''; {}", publication::READABLE))
        .await?;
    let (batch, database) = definition(version, readable.first().is_some_and(|row| row.is_true(0)));
    // On a target the setting would get into what the server stores as text: lists in settings, options of dictionaries.
    let answers = batch.run(connection).await;
    // An error takes the setting back with its transaction, where there is one.
    if answers.is_ok() || !(connection.is_broken() || connection.in_transaction()) {
        connection.execute("SET quote_all_identifiers = off").await?;
    }
    database(answers?)
}

/// The queries for everything of a database, and how their answers become one.
fn definition(
    version: u32,
    subscriptions_readable: bool,
) -> (Batch, impl FnOnce(Answers) -> Result<Database>) {
    let mut batch = Batch::default();
    let names = batch.add(Query::<Name>::new("SELECT pg_catalog.current_database()::text AS name"));
    let properties = batch.add(database::properties(version));
    let schemas = batch.add(namespace::schemas());
    let extensions = batch.add(namespace::extensions());
    let changed_privileges = batch.add(namespace::changed_privileges(version));
    let types = batch.add(data_type::types(version));
    let functions = batch.add(function::functions(version));
    let aggregates = batch.add(function::aggregates(version));
    let operators = batch.add(operator::operators());
    let operator_families = batch.add(operator::operator_families());
    let operator_classes = batch.add(operator::operator_classes());
    let access_methods = batch.add(operator::access_methods());
    let casts = batch.add(data_type::casts());
    let transforms = batch.add(language::transforms());
    let languages = batch.add(language::languages());
    let collations = batch.add(collation::collations(version));
    let conversions = batch.add(collation::conversions());
    let text_search_parsers = batch.add(text_search::parsers());
    let text_search_templates = batch.add(text_search::templates());
    let text_search_dictionaries = batch.add(text_search::dictionaries());
    let text_search_configurations = batch.add(text_search::configurations());
    let foreign_data_wrappers = batch.add(foreign::wrappers());
    let foreign_servers = batch.add(foreign::servers());
    let user_mappings = batch.add(foreign::user_mappings());
    let tables = batch.add(table::tables(version));
    let views = batch.add(view::views(version));
    let sequences = batch.add(sequence::sequences());
    let indexes = batch.add(index::indexes());
    let constraints = batch.add(constraint::constraints(version));
    let triggers = batch.add(trigger::triggers(version));
    let rules = batch.add(trigger::rules());
    let policies = batch.add(trigger::policies());
    let statistics = batch.add(index::statistics(version));
    let publications = batch.add(publication::publications(version));
    let subscriptions = subscriptions_readable.then(|| batch.add(publication::subscriptions(version)));
    let hidden = batch.add(publication::subscription_names());
    let event_triggers = batch.add(function::event_triggers());
    let default_privileges = batch.add(database::default_privileges());
    let comments = batch.add(note::comments());
    let security_labels = batch.add(note::security_labels());
    let extension_dependencies = batch.add(note::extension_dependencies());
    let dependencies = batch.add(dependency::dependencies());
    let database = move |mut answers: Answers| {
        let mut database = Database {
            version,
            name: answers.take(names)?.into_iter().map(|n| n.name).next().unwrap_or_default(),
            properties: answers.take(properties)?.pop().unwrap_or_default(),
            schemas: answers.take(schemas)?,
            extensions: answers.take(extensions)?,
            changed_privileges: answers.take(changed_privileges)?,
            types: answers.take(types)?,
            functions: answers.take(functions)?,
            aggregates: answers.take(aggregates)?,
            operators: answers.take(operators)?,
            operator_families: answers.take(operator_families)?,
            operator_classes: answers.take(operator_classes)?,
            access_methods: answers.take(access_methods)?,
            casts: answers.take(casts)?,
            transforms: answers.take(transforms)?,
            languages: answers.take(languages)?,
            collations: answers.take(collations)?,
            conversions: answers.take(conversions)?,
            text_search_parsers: answers.take(text_search_parsers)?,
            text_search_templates: answers.take(text_search_templates)?,
            text_search_dictionaries: answers.take(text_search_dictionaries)?,
            text_search_configurations: answers.take(text_search_configurations)?,
            foreign_data_wrappers: answers.take(foreign_data_wrappers)?,
            foreign_servers: answers.take(foreign_servers)?,
            user_mappings: answers.take(user_mappings)?,
            tables: answers.take(tables)?,
            views: answers.take(views)?,
            sequences: answers.take(sequences)?,
            indexes: answers.take(indexes)?,
            constraints: answers.take(constraints)?,
            triggers: answers.take(triggers)?,
            rules: answers.take(rules)?,
            policies: answers.take(policies)?,
            statistics: answers.take(statistics)?,
            publications: answers.take(publications)?,
            subscriptions: subscriptions.map(|ticket| answers.take(ticket)).transpose()?.unwrap_or_default(),
            event_triggers: answers.take(event_triggers)?,
            default_privileges: answers.take(default_privileges)?,
            comments: answers.take(comments)?,
            security_labels: answers.take(security_labels)?,
            extension_dependencies: answers.take(extension_dependencies)?,
            dependencies: answers
                .take(dependencies)?
                .into_iter()
                .filter_map(dependency::Row::into_dependency)
                .collect(),
            unread: Vec::new(),
        };
        let hidden = answers.take(hidden)?.into_iter().filter(|_| !subscriptions_readable);
        database.unread = unread(&database, hidden);
        crate::schema::inherit::settle(&mut database.tables, version);
        Ok(database)
    };
    (batch, database)
}

/// A database out of rows that a fuzzer makes up, each for the query of that number.
///
/// # Errors
/// As [`read`].
#[cfg(fuzzing)]
pub fn of_rows(version: u32, rows: impl Iterator<Item = (usize, String)>) -> Result<Database> {
    let (batch, database) = definition(version, true);
    database(batch.answered(rows, crate::config::Side::Source))
}

/// A name alone.
#[derive(Debug, Deserialize)]
pub struct Name {
    /// The name.
    pub name: String,
}

/// What the reading role isn't shown, as (kind, name, reason).
fn unread(database: &Database, hidden: impl Iterator<Item = Name>) -> Vec<(String, String, String)> {
    let subscriptions = hidden.map(|subscription| {
        let reason = "only a superuser may read its connection string";
        ("SUBSCRIPTION".to_owned(), subscription.name, reason.to_owned())
    });
    let user_mappings = database.user_mappings.iter().filter(|m| m.options.is_none()).map(|m| {
        let role = m.role.as_deref().unwrap_or("public");
        let reason = "its options are shown only to its role, the owner of the server and superusers";
        ("USER MAPPING".to_owned(), format!("{role} SERVER {}", m.server), reason.to_owned())
    });
    subscriptions.chain(user_mappings).collect()
}

/// Runs `sql` and turns each row into a `T`; see [`Query`].
pub async fn fetch<T: DeserializeOwned>(connection: &mut Connection, sql: &str) -> Result<Vec<T>> {
    Query::new(sql).run(connection).await
}

/// SQL condition: the schema with alias `namespace` holds objects of users.
fn user_schema(namespace: &str) -> String {
    format!("{namespace}.nspname !~ '^pg_' AND {namespace}.nspname <> 'information_schema'")
}

/// SQL condition: no extension has the object `oid` of the catalog `class` as its member.
fn not_member(class: &str, oid: &str) -> String {
    format!(
        "NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = 'pg_catalog.{class}'::regclass \
         AND e.objid = {oid} AND e.deptype = 'e')"
    )
}
