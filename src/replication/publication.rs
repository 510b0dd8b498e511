//! The publication on the source: the one DDL that is run there.
//!
//! In: the tables to publish. Out: a publication of just these, which needs no superuser. What may fail: privileges (the owner of every table, and CREATE on
//! the database; or the function of aiven_extras). It must be made before the slot: a slot decodes with the catalogs of each
//! change's time, and a publication that wasn't there yet is an error or, on newer servers, missing changes.
//!
//! Never all tables: one that the application makes later may have nothing that identifies its rows, and would refuse its changes. Partitions are
//! published as themselves (`publish_via_partition_root` stays off), and generated columns are not published.
//!
//! # By the function of aiven_extras
//! Where the session's role may not publish a table, the function of that extension may: it makes the publication as a superuser and gives it to the role,
//! which may then comment on it, take tables out of it and drop it, and add tables that it owns. Tables of others can't be added later: the
//! publication would have to be replaced by another one, and transactions that are running just then would lose changes on servers that don't
//! tell them (minor releases before May 2025).

use std::collections::HashSet;

use crate::catalog::aiven_extras::{CREATE_PUBLICATION, callable};
use crate::error::{Error, Result};
use crate::sql::{ident, literal, qualified};
use crate::wire::Connection;

/// A table to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedTable {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Whether its rows are in partitions.
    pub partitioned: bool,
}

impl PublishedTable {
    fn qualified(&self) -> String {
        qualified(&self.schema, &self.name)
    }
}

/// Those that a server of this version lets a publication name: before 13 no partitioned table, but the partitions are in the list.
fn nameable(tables: &[PublishedTable], version: u32) -> impl Iterator<Item = &PublishedTable> {
    tables.iter().filter(move |table| version >= 130_000 || !table.partitioned)
}

/// The statement that makes the publication, on a server of this version.
fn create_sql(name: &str, tables: &[PublishedTable], version: u32) -> String {
    let name = ident(name);
    let tables: Vec<String> = nameable(tables, version)
        .map(|table| {
            // Inheritance children are in the list too, if they are to be published.
            let only = if table.partitioned { "" } else { "ONLY " };
            format!("{only}{}", table.qualified())
        })
        .collect();
    match tables.is_empty() {
        true => format!("CREATE PUBLICATION {name}"),
        false => format!("CREATE PUBLICATION {name} FOR TABLE {}", tables.join(", ")),
    }
}

/// The call that does the same, but for inheritance children, which it always publishes with their parents.
fn call_sql(name: &str, tables: &[PublishedTable], version: u32) -> String {
    let operations =
        if version >= 110_000 { "insert,update,delete,truncate" } else { "insert,update,delete" };
    let tables: Vec<String> = nameable(tables, version).map(|table| literal(&table.qualified())).collect();
    format!(
        "SELECT aiven_extras.{CREATE_PUBLICATION}({}, '{operations}', VARIADIC ARRAY[{}]::pg_catalog.text[])",
        literal(name),
        tables.join(", ")
    )
}

fn comment_sql(name: &str) -> String {
    format!(
        "COMMENT ON PUBLICATION {} IS {}",
        ident(name),
        literal("made by pgstream for a migration; pgstream cutover or cleanup removes it")
    )
}

/// Whether the publication is there.
pub async fn publication_exists(source: &mut Connection, name: &str) -> Result<bool> {
    let rows =
        source.query("SELECT FROM pg_catalog.pg_publication WHERE pubname = $1", &[Some(name)]).await?;
    Ok(!rows.is_empty())
}

/// Makes the publication, unless it is there.
pub async fn create_publication(
    source: &mut Connection,
    name: &str,
    tables: &[PublishedTable],
) -> Result<()> {
    if publication_exists(source, name).await? {
        return Ok(());
    }
    let statements = [
        "BEGIN".to_owned(),
        create_sql(name, tables, source.version()),
        comment_sql(name),
        "COMMIT".to_owned(),
    ];
    let Err(error) = source.pipeline(&statements).await.map_err(Error::from) else { return Ok(()) };
    roll_back(source).await?;
    let mut denied = error.sqlstate().is_some_and(|s| s.as_str() == "42501");
    let mut result = Err(error);
    if denied && !source.query(&callable(CREATE_PUBLICATION), &[]).await?.is_empty() {
        denied = false;
        result = create_by_function(source, name, tables).await;
        roll_back(source).await?;
    }
    result.map_err(|error| {
        let error = error.context(format!("could not create publication \"{name}\" on the source"));
        if !denied {
            return error;
        }
        error.with_hint(format!(
            "The source's user must own the tables and have CREATE on the database: GRANT CREATE ON DATABASE {} TO {}.",
            ident(&source.config().dbname),
            ident(&source.config().user)
        ))
    })
}

/// Makes the publication by the function of aiven_extras; a transaction that fails is left open.
async fn create_by_function(source: &mut Connection, name: &str, tables: &[PublishedTable]) -> Result<()> {
    source.execute("BEGIN").await?;
    source.execute(&call_sql(name, tables, source.version())).await?;
    let wanted: HashSet<(&str, &str)> =
        tables.iter().map(|table| (table.schema.as_str(), table.name.as_str())).collect();
    let rows = source
        .query(
            "SELECT n.nspname, c.relname FROM pg_catalog.pg_publication_rel r \
               JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid JOIN pg_catalog.pg_class c ON c.oid = r.prrelid \
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE p.pubname = $1",
            &[Some(name)],
        )
        .await?;
    let mut surplus = Vec::new();
    for row in &rows {
        let (schema, table): (String, String) = (row.value(0)?, row.value(1)?);
        if !wanted.contains(&(schema.as_str(), table.as_str())) {
            surplus.push(format!("ONLY {}", qualified(&schema, &table)));
        }
    }
    if !surplus.is_empty() {
        source
            .execute(&format!("ALTER PUBLICATION {} DROP TABLE {}", ident(name), surplus.join(", ")))
            .await?;
    }
    source.execute(&comment_sql(name)).await?;
    source.execute("COMMIT").await
}

/// Ends a transaction that failed, if the session can.
async fn roll_back(source: &mut Connection) -> Result<()> {
    match !source.is_broken() && source.in_transaction() {
        true => source.execute("ROLLBACK").await,
        false => Ok(()),
    }
}

/// Adds a table, for changes that are made from now on.
pub async fn add_to_publication(source: &mut Connection, name: &str, table: &PublishedTable) -> Result<()> {
    let only = if table.partitioned { "" } else { "ONLY " };
    let table = table.qualified();
    source
        .execute(&format!("ALTER PUBLICATION {} ADD TABLE {only}{table}", ident(name)))
        .await
        .map_err(|e| e.context(format!("could not add table {table} to publication \"{name}\"")))
}

/// Takes tables out of the publication and adds them again, in one transaction: every walsender forgets what it knew of them, and none ever sees them
/// unpublished.
pub async fn add_again(source: &mut Connection, name: &str, tables: &[PublishedTable]) -> Result<()> {
    let name = ident(name);
    let tables: Vec<String> = tables.iter().map(|table| format!("ONLY {}", table.qualified())).collect();
    let tables = tables.join(", ");
    let statements = [
        "BEGIN".to_owned(),
        format!("ALTER PUBLICATION {name} DROP TABLE {tables}"),
        format!("ALTER PUBLICATION {name} ADD TABLE {tables}"),
        "COMMIT".to_owned(),
    ];
    let Err(failure) = source.pipeline(&statements).await else { return Ok(()) };
    roll_back(source).await?;
    Err(Error::from(failure).context(format!("could not change publication {name} on the source")))
}

/// Drops the publication if it is there.
pub async fn drop_publication(source: &mut Connection, name: &str) -> Result<()> {
    source.execute(&format!("DROP PUBLICATION IF EXISTS {}", ident(name))).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, partitioned: bool) -> PublishedTable {
        PublishedTable { schema: "s".to_owned(), name: name.to_owned(), partitioned }
    }

    #[test]
    fn a_list_names_each_table_alone() {
        let tables = [table("t", false), table("We\"ird", false), table("p", true)];
        assert_eq!(
            create_sql("pub", &tables, 150_000),
            r#"CREATE PUBLICATION "pub" FOR TABLE ONLY "s"."t", ONLY "s"."We""ird", "s"."p""#
        );
        assert_eq!(
            create_sql("pub", &tables, 120_000),
            r#"CREATE PUBLICATION "pub" FOR TABLE ONLY "s"."t", ONLY "s"."We""ird""#
        );
        assert_eq!(create_sql("pub", &[], 150_000), r#"CREATE PUBLICATION "pub""#);
    }

    #[test]
    fn the_function_of_aiven_extras_is_told_what_the_server_can_publish() {
        let tables = [table("it's", false), table("p", true)];
        assert_eq!(
            call_sql("pub", &tables, 100_000),
            r#"SELECT aiven_extras.pg_create_publication('pub', 'insert,update,delete', VARIADIC ARRAY['"s"."it''s"']::pg_catalog.text[])"#
        );
        let of_13 = call_sql("pub", &tables, 130_000);
        assert!(of_13.contains("delete,truncate'") && of_13.contains(r#"'"s"."p"'"#), "{of_13}");
    }
}
