//! Fills the queue of parts: new tables are cut, tables that were cut short start again, finished parts stay.

use std::collections::{HashMap, HashSet};

use crate::catalog;
use crate::copy::{self, PlannedRelation, SplitRule};
use crate::ddl::NotCopied;
use crate::error::{Error, Result};
use crate::fault;
use crate::progress::Progress;
use crate::schema::table::{RelationName, Table};
use crate::sql::{ident, qualified};
use crate::state::{self, LARGE_OBJECTS, Split};
use crate::wire::Connection;

/// Relations recorded in one transaction of the target.
const BATCH: usize = 250;

/// The kind of omission that stands for rows that are left out.
const LEFT_OUT: &str = "TABLE DATA";

/// What the queue is made of.
pub(super) struct Wanted<'a> {
    /// The source's tables.
    pub(super) tables: &'a [Table],
    /// Large objects too.
    pub(super) large_objects: bool,
    /// Leaves that are loaded through another table.
    pub(super) through_root: &'a HashMap<u32, RelationName>,
    /// Tables whose rows are left out, and why.
    pub(super) left_out: &'a HashMap<u32, String>,
}

/// Brings the queue in line with what is wanted of the source under the run's snapshot (`source` holds it).
pub(super) async fn plan(
    source: &mut Connection,
    target: &mut Connection,
    wanted: &Wanted<'_>,
    rule: &SplitRule,
    progress: &Progress,
) -> Result<()> {
    let tables = wanted.tables;
    let known: HashMap<u32, _> = state::relations(target)
        .await?
        .into_iter()
        .map(|(relation, done, all)| (relation.oid, (relation, done, all)))
        .collect();
    let mut added = Vec::new();
    let pages = large_tables_pages(source, tables, rule).await?;
    // Rows that are loaded through their root are in no table of their own to empty again, so they come in one part.
    let whole = SplitRule { larger_than: 0, ..*rule };
    for table in tables.iter().filter(|table| table.has_rows()) {
        let rule = if wanted.through_root.contains_key(&table.oid) { &whole } else { rule };
        match known.get(&table.oid) {
            None => {
                let name = format!("{}.{}", table.schema, table.name);
                if let Some(reason) = wanted.left_out.get(&table.oid) {
                    progress.warn(format!("the rows of table \"{name}\" are left out: {reason}"), None);
                    let reason = format!("neither its rows nor their changes are on the target: {reason}");
                    let omission = NotCopied { kind: LEFT_OUT.to_owned(), name, reason };
                    state::omit(target, &omission).await?;
                    continue;
                }
                let planned = cut(source, table, rule, &pages).await?;
                let mut statements = vec![state::forget_omission(LEFT_OUT, &name)];
                statements.extend(state::add_relation(&planned.relation, &planned.parts));
                added.push(statements);
            }
            // Pages hold other rows under another snapshot, so parts that are done say nothing of those that are not.
            Some((relation, done, all)) if relation.split == Split::Ctid && done < all => {
                let planned = cut(source, table, rule, &pages).await?;
                if *done > 0 {
                    let name = format!("{}.{}", table.schema, table.name);
                    progress.note(format!("table \"{name}\" was cut short by pages and is copied again"));
                }
                let mut reset = vec!["BEGIN".to_owned()];
                reset.push(format!("TRUNCATE ONLY {}", qualified(&table.schema, &table.name)));
                reset.extend(state::reset_relation(&planned.relation, &planned.parts));
                reset.push("COMMIT".to_owned());
                fault::step("parts cut anew", async { target.pipeline(&reset).await.map_err(Error::from) })
                    .await?;
            }
            Some(_) => {}
        }
    }
    let present: HashSet<u32> = tables.iter().map(|table| table.oid).collect();
    for (oid, (relation, done, all)) in &known {
        if *oid == LARGE_OBJECTS || present.contains(oid) {
            continue;
        }
        let name = format!("{}.{}", relation.schema, relation.name);
        if done == all {
            let what = "is no longer on the source, and stays on the target as it was copied";
            progress.warn(format!("table \"{name}\" {what}"), None);
            continue;
        }
        // Its rows can't be had any more; what is left of it is named in the report.
        let reason = "dropped on the source before all its rows were copied".to_owned();
        let omission = NotCopied { kind: LEFT_OUT.to_owned(), name, reason };
        let mut forget = state::forget_relation(*oid);
        forget.push(state::record_omission(&omission));
        fault::step("relation forgotten", async { target.pipeline(&forget).await.map_err(Error::from) })
            .await?;
    }
    if wanted.large_objects
        && !known.contains_key(&LARGE_OBJECTS)
        && let Some((relation, parts)) = copy::plan_large_objects(source).await?
    {
        added.push(state::add_relation(&relation, &parts));
    }
    for batch in added.chunks(BATCH) {
        // A pipeline outside a transaction block is one transaction, so no relation is recorded without its parts.
        fault::step("recorded parts", async { target.pipeline(&batch.concat()).await.map_err(Error::from) })
            .await?;
    }
    Ok(())
}

/// Pages of the tables that may be cut by pages.
async fn large_tables_pages(
    source: &mut Connection,
    tables: &[Table],
    rule: &SplitRule,
) -> Result<HashMap<u32, i64>> {
    let large: Vec<u32> =
        tables.iter().filter(|t| t.has_rows() && t.bytes > rule.larger_than).map(|t| t.oid).collect();
    let pages = catalog::server::heap_pages(source, &large).await?;
    Ok(large.into_iter().zip(pages).collect())
}

async fn cut(
    source: &mut Connection,
    table: &Table,
    rule: &SplitRule,
    pages: &HashMap<u32, i64>,
) -> Result<PlannedRelation> {
    let range = match rule.key_column(table) {
        None => None,
        Some(column) => {
            let column = ident(column);
            let name = qualified(&table.schema, &table.name);
            let row = source
                .query_one(&format!("SELECT min({column})::int8, max({column})::int8 FROM ONLY {name}"), &[])
                .await?;
            row.optional(0)?.zip(row.optional(1)?)
        }
    };
    Ok(copy::plan_relation(table, rule, pages.get(&table.oid).copied().unwrap_or(0), range))
}
