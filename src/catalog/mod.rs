//! Reads a database's definition from the system catalogs, one file per object family.
//!
//! In: a connection to a server of major 10 or newer, in a repeatable read transaction with an empty `search_path`. Out: the
//! model of `schema`. What may fail: the connection, and a catalog without read permission; both name the query. What a role
//! without superuser isn't shown (subscriptions, options of user mappings) is listed in `Database::unread`.

pub mod access;
pub mod acl;
pub mod activity;
pub mod collation;
pub mod constraint;
pub mod data_type;
pub mod database;
pub mod dependency;
pub mod facts;
pub mod foreign;
pub mod function;
pub mod index;
pub mod language;
pub mod large_object;
pub mod namespace;
pub mod note;
pub mod operator;
pub mod publication;
mod relation;
pub mod replication;
pub mod role;
pub mod sequence;
pub mod server;
pub mod table;
pub mod target_table;
pub mod text_search;
pub mod trigger;
pub mod view;

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::schema::Database;
use crate::wire::Connection;

/// Reads everything of the connected database. Sets `quote_all_identifiers` on the session, so that whatever the server renders
/// is quoted: a newer target may have more keywords.
pub async fn read(connection: &mut Connection) -> Result<Database> {
    connection.execute("SET quote_all_identifiers = on; SET search_path = ''").await?;
    let name = connection.query("SELECT pg_catalog.current_database()::text", &[]).await?;
    let (subscriptions, hidden) = publication::read_subscriptions(connection).await?;
    let mut unread: Vec<_> = hidden
        .into_iter()
        .map(|name| {
            ("SUBSCRIPTION".to_owned(), name, "only a superuser may read its connection string".to_owned())
        })
        .collect();
    let user_mappings = foreign::read_user_mappings(connection).await?;
    unread.extend(user_mappings.iter().filter(|m| m.options.is_none()).map(|m| {
        let role = m.role.as_deref().unwrap_or("public");
        let reason = "its options are shown only to its role, the owner of the server and superusers";
        ("USER MAPPING".to_owned(), format!("{role} SERVER {}", m.server), reason.to_owned())
    }));
    let database = Database {
        version: connection.version(),
        name: name.first().and_then(|row| row.text(0)).unwrap_or_default().to_owned(),
        properties: database::read_properties(connection).await?,
        schemas: namespace::read_schemas(connection).await?,
        extensions: namespace::read_extensions(connection).await?,
        changed_privileges: namespace::read_changed_privileges(connection).await?,
        types: data_type::read_types(connection).await?,
        functions: function::read_functions(connection).await?,
        aggregates: function::read_aggregates(connection).await?,
        operators: operator::read_operators(connection).await?,
        operator_families: operator::read_operator_families(connection).await?,
        operator_classes: operator::read_operator_classes(connection).await?,
        access_methods: operator::read_access_methods(connection).await?,
        casts: data_type::read_casts(connection).await?,
        transforms: language::read_transforms(connection).await?,
        languages: language::read_languages(connection).await?,
        collations: collation::read_collations(connection).await?,
        conversions: collation::read_conversions(connection).await?,
        text_search_parsers: text_search::read_parsers(connection).await?,
        text_search_templates: text_search::read_templates(connection).await?,
        text_search_dictionaries: text_search::read_dictionaries(connection).await?,
        text_search_configurations: text_search::read_configurations(connection).await?,
        foreign_data_wrappers: foreign::read_wrappers(connection).await?,
        foreign_servers: foreign::read_servers(connection).await?,
        user_mappings,
        tables: table::read_tables(connection).await?,
        views: view::read_views(connection).await?,
        sequences: sequence::read_sequences(connection).await?,
        indexes: index::read_indexes(connection).await?,
        constraints: constraint::read_constraints(connection).await?,
        triggers: trigger::read_triggers(connection).await?,
        rules: trigger::read_rules(connection).await?,
        policies: trigger::read_policies(connection).await?,
        statistics: index::read_statistics(connection).await?,
        publications: publication::read_publications(connection).await?,
        subscriptions,
        event_triggers: function::read_event_triggers(connection).await?,
        default_privileges: database::read_default_privileges(connection).await?,
        comments: note::read_comments(connection).await?,
        security_labels: note::read_security_labels(connection).await?,
        extension_dependencies: note::read_extension_dependencies(connection).await?,
        dependencies: dependency::read_dependencies(connection).await?,
        unread,
    };
    // On a target it would get into what the server stores as text: lists in settings, options of dictionaries.
    connection.execute("SET quote_all_identifiers = off").await?;
    Ok(database)
}

/// Runs `sql` and turns each row into a `T` by the names of its columns, through the server's `row_to_json`: arrays and nested
/// `json_agg` become vectors, NULL becomes `None`. OIDs need a cast to `int8` and `"char"` one to `text`.
pub async fn fetch<T: DeserializeOwned>(connection: &mut Connection, sql: &str) -> Result<Vec<T>> {
    let query = format!("SELECT pg_catalog.row_to_json(x) FROM ({sql}) x");
    let could_not = |e: Error, side| e.context(format!("could not read the system catalogs of the {side}"));
    let side = connection.side();
    let rows = connection.query(&query, &[]).await.map_err(|e| could_not(e, side).with_statement(sql))?;
    rows.iter()
        .map(|row| {
            serde_json::from_str(row.text(0).unwrap_or("null"))
                .map_err(|e| could_not(Error::failed(e.to_string()), side).with_statement(sql))
        })
        .collect()
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
