//! What the stream says of a relation, mapped on the target's table of the same name.
//!
//! In: a Relation message and the target's table. Out: [`Mapped`]: for each column of the stream, the column of the target with the same name; and
//! what identifies a row. Fails when the table is missing or a column doesn't fit: the source's schema has changed, and
//! the stream stops before the first change that the target could not take whole.

use std::collections::HashMap;
use std::sync::Arc;

use pgstream_proto::pgoutput::{Relation, ReplicaIdentity};

use crate::catalog::target_table::{TargetColumn, TargetTable};
use crate::error::{Error, Result};
use crate::sql::{ident, qualified};

use super::pending::Kind;
use super::statement::{Reach, Shape};
use super::target::TriggerRole;

/// A relation of the stream and its table on the target.
#[derive(Debug)]
pub(super) struct Mapped {
    /// The table as SQL writes it.
    pub(super) table: String,
    /// The table for messages.
    pub(super) name: String,
    /// Whether its rows are in partitions.
    pub(super) partitioned: bool,
    /// Of a partition that holds other rows on the source: how many there are in the tree whose root `table` is.
    pub(super) one_of: Option<usize>,
    /// Whether COPY may be used.
    pub(super) copy: bool,
    /// The target's columns, in the order of the stream's; `None` where the target generates the value.
    pub(super) columns: Vec<Option<Column>>,
    /// What identifies a row.
    pub(super) key: Key,
    /// Which of its changes may wait for others of their kind.
    pub(super) gather: Gather,
    /// Prepared statements by what they do.
    pub(super) prepared: HashMap<Shape, Arc<str>>,
    /// The statements for updates that tell all values and are found by an unchanged key, and for deletes that are found by a key.
    pub(super) plain: HashMap<(Kind, Reach), Arc<Plain>>,
}

/// A prepared statement that serves most changes of a relation.
#[derive(Debug)]
pub(super) struct Plain {
    pub(super) name: Arc<str>,
    /// Columns that are set.
    pub(super) set: Vec<usize>,
    /// Columns that find the row.
    pub(super) equal: Vec<usize>,
}

/// A column of the target.
#[derive(Debug)]
pub(super) struct Column {
    /// The name, quoted.
    pub(super) name: String,
    /// The data type's OID, by which parameters are typed.
    pub(super) type_oid: u32,
    /// `GENERATED ALWAYS AS IDENTITY`.
    pub(super) identity_always: bool,
    /// The type that a text is cast to, if a cast reads it as the type's input does.
    pub(super) cast: Option<String>,
    /// The equality operator.
    pub(super) equality: Option<String>,
    /// Whether equal values are the same value, down to their text form.
    pub(super) exact: bool,
}

/// Which changes of a relation may be gathered while those of other relations go on, so that many go by one statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gather {
    /// None: triggers or rules act on them, or its rows may be reached by other names. Everything that is gathered goes before.
    Nothing,
    /// Inserts that follow each other.
    Inserts,
    /// Inserts that follow each other, and deletes that do.
    Runs,
    /// The net effect for each key. Its columns are all that tells rows of the table apart, so that changes of different keys
    /// can't get into each other's way: no other unique index, no exclusion constraint.
    NetEffects,
}

/// What identifies a row of the relation.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// The values of these columns of the stream.
    Columns(Vec<usize>),
    /// The whole row: there may be several alike, of which one is meant.
    Row,
}

/// OIDs of built-in types whose equality finds only identical values: bool, bytea, char, name, int8, int2, int4, text, oid, varchar, date, time,
/// timestamp, timestamptz, bit, varbit, uuid, pg_lsn, macaddr, macaddr8, inet, cidr.
const EXACT: &[u32] = &[
    16, 17, 18, 19, 20, 21, 23, 25, 26, 1043, 1082, 1083, 1114, 1184, 1560, 1562, 2950, 3220, 829, 774, 869,
    650,
];

/// The first OID that isn't a built-in object's.
const FIRST_USER_OID: u32 = 16_384;

impl Mapped {
    /// Maps `relation` on `table`, in a session where triggers have this role.
    ///
    /// # Errors
    /// A table or a column that is missing on the target, or whose type can't take every value of the source.
    pub(super) fn new(relation: &Relation, table: Option<TargetTable>, role: TriggerRole) -> Result<Mapped> {
        let name = format!("{}.{}", relation.namespace, relation.name);
        let Some(table) = table else {
            return Err(drift(format!("table \"{name}\" of the source is not on the target")).with_hint(
                "Create it on the target as it is on the source, then run the same command again.",
            ));
        };
        let by_name: HashMap<&str, &TargetColumn> =
            table.columns.iter().map(|c| (c.name.as_str(), c)).collect();
        let columns = relation.columns.iter().map(|source| {
            let Some(target) = by_name.get(source.name.as_str()) else {
                return Err(drift(format!(
                    "column \"{}\" of table \"{name}\" of the source is not on the target",
                    source.name
                ))
                .with_hint(format!(
                    "Add it on the target as it is on the source (ALTER TABLE {} ADD COLUMN {} …), then run the same command again.",
                    qualified(&relation.namespace, &relation.name),
                    ident(&source.name),
                )));
            };
            if target.generated {
                return Ok(None);
            }
            if !fits(source.type_oid, source.type_modifier, target) {
                return Err(drift(format!(
                    "column \"{}\" of table \"{name}\" has another type on the source than on the target",
                    source.name
                ))
                .with_detail(format!("On the target it is {}.", target.type_name))
                .with_hint(format!(
                    "Change it on the target (ALTER TABLE {} ALTER COLUMN {} TYPE …), then run the same command again.",
                    qualified(&relation.namespace, &relation.name),
                    ident(&source.name),
                )));
            }
            Ok(Some(Column {
                name: ident(&target.name),
                type_oid: target.type_oid,
                identity_always: target.identity_always,
                cast: target.cast.clone(),
                equality: target.equality.clone(),
                exact: EXACT.contains(&target.base_type) && !target.collated && target.equality.is_some(),
            }))
        });
        let columns: Vec<Option<Column>> = columns.collect::<Result<_>>()?;
        let key = key(relation, &table, &columns);
        let (schema, named) = match &table.root {
            Some(root) => (&root.schema, &root.name),
            None => (&relation.namespace, &relation.name),
        };
        Ok(Mapped {
            table: qualified(schema, named),
            partitioned: table.kind == "p" || table.root.is_some(),
            one_of: table.root.as_ref().map(|root| root.leaves),
            copy: !table.row_security && table.kind != "v",
            gather: gather(&table, &columns, &key, relation, role),
            key,
            columns,
            name,
            prepared: HashMap::new(),
            plain: HashMap::new(),
        })
    }

    /// The columns that identify a row; none where the whole row does.
    pub(super) fn key_columns(&self) -> &[usize] {
        match &self.key {
            Key::Row => &[],
            Key::Columns(columns) => columns,
        }
    }

    /// Whether a column takes values from the system alone.
    pub(super) fn has_identity(&self) -> bool {
        self.columns.iter().flatten().any(|column| column.identity_always)
    }

    /// The names of the columns that identify a row, for messages.
    pub(super) fn key_names(&self) -> Vec<&str> {
        let columns = self.key_columns().iter().filter_map(|&i| self.columns.get(i)?.as_ref());
        columns.map(|column| column.name.as_str()).collect()
    }
}

fn drift(what: String) -> Error {
    Error::failed(what).with_detail(
        "The schema has changed since it was copied. The stream stops before the first change that does not fit; nothing is lost, \
         and the replication slot keeps what follows.",
    )
}

/// With FULL, the old row is known whole, and the target's own key finds it without reading the table.
fn key(relation: &Relation, table: &TargetTable, columns: &[Option<Column>]) -> Key {
    let place = |name: &String| relation.columns.iter().position(|c| c.name == *name);
    let indexes: Vec<usize> = match relation.replica_identity {
        ReplicaIdentity::Full => table.key.iter().map_while(place).collect(),
        _ => (0..relation.columns.len()).filter(|&i| relation.columns[i].key).collect(),
    };
    let complete = relation.replica_identity != ReplicaIdentity::Full || indexes.len() == table.key.len();
    let usable = |&i: &usize| columns[i].as_ref().is_some_and(|c| c.equality.is_some());
    if complete && !indexes.is_empty() && indexes.iter().all(usable) {
        Key::Columns(indexes)
    } else {
        Key::Row
    }
}

fn gather(
    table: &TargetTable,
    columns: &[Option<Column>],
    key: &Key,
    relation: &Relation,
    role: TriggerRole,
) -> Gather {
    let plain = table.kind == "r" && table.root.is_none() && !table.row_security && !table.acts_always;
    if role == TriggerRole::Origin || !plain {
        return Gather::Nothing;
    }
    let Key::Columns(key) = key else { return Gather::Inserts };
    let named = |&i: &usize| table.key.contains(&relation.columns[i].name);
    // Different bytes of a key must be different keys.
    let told_apart = |&i: &usize| columns[i].as_ref().is_some_and(|c| c.exact && c.cast.is_some());
    if key.len() != table.key.len() || !key.iter().all(named) || !key.iter().all(told_apart) {
        return Gather::Inserts;
    }
    let mut set =
        columns.iter().enumerate().filter(|(i, _)| !key.contains(i)).filter_map(|(_, c)| c.as_ref());
    let is_set = set.clone().next().is_some();
    if table.unique_indexes == 1 && is_set && set.all(|c| c.cast.is_some() && !c.identity_always) {
        Gather::NetEffects
    } else {
        Gather::Runs
    }
}

/// Whether every value of the source's type can be a value of the target's column. User-defined types have other OIDs on
/// each side and are compared by the server when it reads a value's text.
fn fits(type_oid: u32, type_modifier: i32, target: &TargetColumn) -> bool {
    const VARCHAR: u32 = 1043;
    const TEXT: u32 = 25;
    if type_oid >= FIRST_USER_OID {
        return true;
    }
    if type_oid == target.base_type {
        let wider = type_oid == VARCHAR && type_modifier <= target.type_modifier && type_modifier >= 0;
        return target.type_modifier == -1 || type_modifier == target.type_modifier || wider;
    }
    // int2 → int4 → int8, varchar → text, json → jsonb is no such case: it changes the text.
    matches!((type_oid, target.base_type), (21, 23 | 20) | (23, 20) | (VARCHAR, TEXT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgstream_proto::pgoutput::Column as Published;

    fn published(name: &str, type_oid: u32, type_modifier: i32, key: bool) -> Published {
        Published { key, name: name.to_owned(), type_oid, type_modifier }
    }

    fn column(name: &str, type_oid: u32, type_modifier: i32) -> TargetColumn {
        TargetColumn {
            name: name.to_owned(),
            type_oid,
            base_type: type_oid,
            type_modifier,
            type_name: "some type".to_owned(),
            cast: Some("some type".to_owned()),
            generated: false,
            identity_always: false,
            collated: false,
            equality: Some("OPERATOR(pg_catalog.=)".to_owned()),
        }
    }

    fn table(columns: Vec<TargetColumn>, key: &[&str]) -> TargetTable {
        let key: Vec<String> = key.iter().map(|&k| k.to_owned()).collect();
        let unique_indexes = u32::from(!key.is_empty());
        TargetTable {
            root: None,
            kind: "r".to_owned(),
            row_security: false,
            acts_always: false,
            columns,
            key,
            unique_indexes,
        }
    }

    fn relation(replica_identity: ReplicaIdentity, columns: Vec<Published>) -> Relation {
        Relation { oid: 1, namespace: "s".to_owned(), name: "t".to_owned(), replica_identity, columns }
    }

    #[test]
    fn columns_are_matched_by_name_whatever_their_order() {
        let source = relation(
            ReplicaIdentity::Default,
            vec![published("a", 23, -1, true), published("b", 25, -1, false)],
        );
        let target = table(vec![column("b", 25, -1), column("gone", 16, -1), column("a", 20, -1)], &["a"]);
        let mapped = Mapped::new(&source, Some(target), TriggerRole::Replica).unwrap();
        let names: Vec<_> = mapped.columns.iter().flatten().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["\"a\"", "\"b\""]);
        assert_eq!(mapped.key, Key::Columns(vec![0]));
    }

    #[test]
    fn a_missing_table_or_column_stops_and_is_named() {
        let source = relation(ReplicaIdentity::Default, vec![published("new", 23, -1, false)]);
        let error = Mapped::new(&source, None, TriggerRole::Replica).unwrap_err();
        assert_eq!(error.to_string(), "table \"s.t\" of the source is not on the target");
        let error = Mapped::new(&source, Some(table(vec![], &[])), TriggerRole::Replica).unwrap_err();
        assert_eq!(error.to_string(), "column \"new\" of table \"s.t\" of the source is not on the target");
    }

    #[test]
    fn a_type_may_be_wider_on_the_target_and_not_narrower() {
        for (source, target, fit) in [
            ((23, -1), (20, -1), true),
            ((20, -1), (23, -1), false),
            ((1043, 14), (1043, 24), true),
            ((1043, 24), (1043, 14), false),
            ((1043, -1), (1043, 14), false),
            ((1043, 14), (25, -1), true),
            ((1700, 655_366), (1700, 655_365), false),
            ((1700, 655_366), (1700, -1), true),
            ((20_000, -1), (30_000, -1), true),
            ((114, -1), (3802, -1), false),
        ] {
            assert_eq!(
                fits(source.0, source.1, &column("c", target.0, target.1)),
                fit,
                "{source:?} {target:?}"
            );
        }
    }

    #[test]
    fn full_identity_uses_the_targets_key_where_it_has_one() {
        let columns = || vec![published("a", 23, -1, true), published("b", 114, -1, true)];
        let target = |key: &[&str]| Some(table(vec![column("a", 23, -1), column("b", 114, -1)], key));
        let full = relation(ReplicaIdentity::Full, columns());
        assert_eq!(
            Mapped::new(&full, target(&["a"]), TriggerRole::Replica).unwrap().key,
            Key::Columns(vec![0])
        );
        assert_eq!(Mapped::new(&full, target(&[]), TriggerRole::Replica).unwrap().key, Key::Row);
        assert_eq!(Mapped::new(&full, target(&["a", "absent"]), TriggerRole::Replica).unwrap().key, Key::Row);
    }

    #[test]
    fn net_effects_are_for_tables_that_only_a_key_orders() {
        let source = relation(
            ReplicaIdentity::Default,
            vec![published("a", 23, -1, true), published("b", 25, -1, false)],
        );
        let columns = || vec![column("a", 23, -1), column("b", 25, -1)];
        let gather = |table: TargetTable, role| Mapped::new(&source, Some(table), role).unwrap().gather;
        let replica = TriggerRole::Replica;
        let with = |change: fn(&mut TargetTable)| {
            let mut table = table(columns(), &["a"]);
            change(&mut table);
            table
        };
        assert_eq!(gather(with(|_| {}), replica), Gather::NetEffects);
        assert_eq!(gather(with(|_| {}), TriggerRole::Origin), Gather::Nothing);
        assert_eq!(gather(with(|t| t.acts_always = true), replica), Gather::Nothing);
        assert_eq!(gather(with(|t| t.kind = "p".to_owned()), replica), Gather::Nothing);
        assert_eq!(gather(with(|t| t.row_security = true), replica), Gather::Nothing);
        assert_eq!(gather(with(|t| t.unique_indexes = 2), replica), Gather::Runs);
        assert_eq!(gather(with(|t| t.columns[1].cast = None), replica), Gather::Runs);
        assert_eq!(gather(with(|t| t.columns[1].identity_always = true), replica), Gather::Runs);
        assert_eq!(gather(with(|t| t.columns[0].identity_always = true), replica), Gather::NetEffects);
        assert_eq!(gather(with(|t| t.key.clear()), replica), Gather::Inserts);
        // Two texts may be one key.
        assert_eq!(gather(with(|t| t.columns[0].collated = true), replica), Gather::Inserts);
    }
}
