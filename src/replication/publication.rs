//! The publication on the source: the one DDL that is run there.
//!
//! In: the tables to publish. Out: a publication of just these, which needs no superuser, or of all tables. What may fail: privileges (the owner of every table,
//! and CREATE on the database; a superuser for all tables). It must be made before the slot: a slot decodes with the catalogs of each
//! change's time, and a publication that wasn't there yet is an error or, on newer servers, missing changes.
//!
//! Partitions are published as themselves (`publish_via_partition_root` stays off), and generated columns are not published.

use crate::error::{Error, Result};
use crate::sql::{ident, literal, qualified};
use crate::wire::Connection;

/// What to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// All tables, those made later too.
    AllTables,
    /// These tables.
    Tables(Vec<PublishedTable>),
}

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

/// The statement that makes the publication, on a server of this version.
fn create_sql(name: &str, published: &Published, version: u32) -> String {
    let name = ident(name);
    match published {
        Published::AllTables => format!("CREATE PUBLICATION {name} FOR ALL TABLES"),
        Published::Tables(tables) => {
            let tables: Vec<String> = tables
                .iter()
                // Before 13 a partitioned table can't be published; its partitions are in the list.
                .filter(|table| version >= 130_000 || !table.partitioned)
                .map(|table| {
                    // Inheritance children are in the list too, if they are to be published.
                    let only = if table.partitioned { "" } else { "ONLY " };
                    format!("{only}{}", qualified(&table.schema, &table.name))
                })
                .collect();
            match tables.is_empty() {
                true => format!("CREATE PUBLICATION {name}"),
                false => format!("CREATE PUBLICATION {name} FOR TABLE {}", tables.join(", ")),
            }
        }
    }
}

/// Whether the publication is there.
pub async fn publication_exists(source: &mut Connection, name: &str) -> Result<bool> {
    let rows =
        source.query("SELECT FROM pg_catalog.pg_publication WHERE pubname = $1", &[Some(name)]).await?;
    Ok(!rows.is_empty())
}

/// Makes the publication, unless it is there.
pub async fn create_publication(source: &mut Connection, name: &str, published: &Published) -> Result<()> {
    if publication_exists(source, name).await? {
        return Ok(());
    }
    let sql = create_sql(name, published, source.version());
    let created = source
        .pipeline(&[
            "BEGIN".to_owned(),
            sql,
            format!(
                "COMMENT ON PUBLICATION {} IS {}",
                ident(name),
                literal("made by pgstream for a migration; pgstream cutover or cleanup removes it")
            ),
            "COMMIT".to_owned(),
        ])
        .await;
    let Err(failure) = created else { return Ok(()) };
    if !source.is_broken() && source.in_transaction() {
        source.execute("ROLLBACK").await?;
    }
    let error =
        Error::from(failure).context(format!("could not create publication \"{name}\" on the source"));
    let denied = error.sqlstate().is_some_and(|s| s.as_str() == "42501");
    Err(if denied {
        error.with_hint(format!(
            "The source's user must own the tables and have CREATE on the database: GRANT CREATE ON DATABASE {} TO {}.",
            ident(&source.config().dbname),
            ident(&source.config().user)
        ))
    } else {
        error
    })
}

/// Adds a table, for changes that are made from now on.
pub async fn add_to_publication(source: &mut Connection, name: &str, table: &PublishedTable) -> Result<()> {
    let only = if table.partitioned { "" } else { "ONLY " };
    let table = qualified(&table.schema, &table.name);
    source
        .execute(&format!("ALTER PUBLICATION {} ADD TABLE {only}{table}", ident(name)))
        .await
        .map_err(|e| e.context(format!("could not add table {table} to publication \"{name}\"")))
}

/// Takes tables out of the publication and adds them again, in one transaction: every walsender forgets what it knew of them, and none ever sees them
/// unpublished.
pub async fn add_again(source: &mut Connection, name: &str, tables: &[PublishedTable]) -> Result<()> {
    let name = ident(name);
    let tables: Vec<String> =
        tables.iter().map(|table| format!("ONLY {}", qualified(&table.schema, &table.name))).collect();
    let tables = tables.join(", ");
    let statements = [
        "BEGIN".to_owned(),
        format!("ALTER PUBLICATION {name} DROP TABLE {tables}"),
        format!("ALTER PUBLICATION {name} ADD TABLE {tables}"),
        "COMMIT".to_owned(),
    ];
    let Err(failure) = source.pipeline(&statements).await else { return Ok(()) };
    if !source.is_broken() && source.in_transaction() {
        source.execute("ROLLBACK").await?;
    }
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
        let published = Published::Tables(vec![table("t", false), table("We\"ird", false), table("p", true)]);
        assert_eq!(
            create_sql("pub", &published, 150_000),
            r#"CREATE PUBLICATION "pub" FOR TABLE ONLY "s"."t", ONLY "s"."We""ird", "s"."p""#
        );
        assert_eq!(
            create_sql("pub", &published, 120_000),
            r#"CREATE PUBLICATION "pub" FOR TABLE ONLY "s"."t", ONLY "s"."We""ird""#
        );
        assert_eq!(create_sql("pub", &Published::Tables(vec![]), 150_000), r#"CREATE PUBLICATION "pub""#);
        assert_eq!(
            create_sql("pub", &Published::AllTables, 150_000),
            r#"CREATE PUBLICATION "pub" FOR ALL TABLES"#
        );
    }
}
