//! What a child table says itself and what it only inherits, where the catalogs don't tell; pg_dump's flagInhAttrs.

use std::collections::HashMap;

use super::table::{ColumnDefault, Table};

/// Settles the columns of tables that inherit. `tables` must hold the parents too.
///
/// - A not-null constraint that a parent has too counts as inherited on servers before 18, which don't record it.
/// - A child without a default under a parent with one gets `DEFAULT NULL`, or it would inherit the parent's.
/// - A generation expression equal to all parents' is left to be inherited, partitions aside.
/// - A default of a column that CREATE TABLE doesn't list needs a statement of its own.
pub fn settle(tables: &mut [Table], version: u32) {
    let places: HashMap<u32, usize> =
        tables.iter().enumerate().map(|(place, table)| (table.oid, place)).collect();
    let mut findings = Vec::new();
    for (place, table) in tables.iter().enumerate().filter(|(_, table)| !table.parents.is_empty()) {
        for (number, column) in table.columns.iter().enumerate() {
            let inherited = table
                .parents
                .iter()
                .filter_map(|parent| places.get(&parent.oid))
                .filter_map(|&parent| tables[parent].columns.iter().find(|c| c.name == column.name));
            let mut finding = Finding { table: place, column: number, ..Finding::default() };
            for parent in inherited {
                finding.not_null |= parent.constraint.as_ref().is_some_and(|c| !c.no_inherit);
                match &parent.default {
                    Some(default) if default.generated.is_some() => {
                        let same =
                            column.default.as_ref().is_some_and(|d| d.expression == default.expression);
                        finding.same_generation |= same;
                        finding.other_generation |= !same;
                    }
                    Some(default) => finding.default |= default.expression != "NULL",
                    None => {}
                }
            }
            findings.push(finding);
        }
    }
    for finding in findings {
        let table = &mut tables[finding.table];
        let partition = table.is_partition();
        let column = &mut table.columns[finding.column];
        if version < 180000
            && finding.not_null
            && let Some(constraint) = &mut column.constraint
        {
            constraint.is_local = false;
        }
        if finding.default && column.default.is_none() {
            let expression = "NULL".to_owned();
            column.default = Some(ColumnDefault {
                oid: 0,
                expression,
                generated: None,
                separate: false,
                inherited: false,
            });
        }
        if let Some(default) = &mut column.default {
            default.inherited = finding.same_generation && !finding.other_generation && !partition;
        }
    }
    for table in tables.iter_mut() {
        let partition = table.is_partition();
        for column in &mut table.columns {
            let listed = column.is_local || partition;
            if let Some(default) = &mut column.default {
                default.separate = default.generated.is_none() && !listed;
            }
        }
    }
}

/// What the parents say of one column.
#[derive(Default)]
struct Finding {
    table: usize,
    column: usize,
    not_null: bool,
    default: bool,
    same_generation: bool,
    other_generation: bool,
}
