//! One UPDATE or DELETE of many rows, whose values come as one array for each column.
//!
//! In: rows of a mapped relation, each with another key. Out: the SQL and its parameters. Arrays are of the column's own type, in binary form, where all values
//! have one that is known ([`binary`]), or else of texts. Pure; nothing fails.

use bytes::{BufMut, BytesMut};
use pgstream_proto::binary;
use pgstream_proto::pgoutput::Tuple;

use super::batch::{RANGE_KEYS, RANGE_ROWS};
use super::change::text_of;
use super::relation::{Column, Mapped};
use super::statement::Reach;

/// OIDs of `text` and `text[]`.
const TEXT: u32 = 25;
const TEXT_ARRAY: u32 = 1009;

/// The values of a column, in the binary form of an array.
struct Array {
    /// The array's type.
    type_oid: u32,
    bytes: BytesMut,
}

impl Array {
    /// Whether the elements are texts, and not values of the column's type.
    fn is_texts(&self) -> bool {
        self.type_oid == TEXT_ARRAY
    }
}

/// A statement for many rows.
pub(super) struct Many {
    pub(super) sql: String,
    arrays: Vec<Array>,
    /// How many rows it is to reach, and who looks.
    pub(super) rows: u64,
    pub(super) reach: Reach,
    /// Whether the rows are to be found by reading a range of keys.
    pub(super) by_range: bool,
}

impl Many {
    /// Updates all columns but the key's.
    pub(super) fn update(relation: &Mapped, rows: &[Tuple], reach: Reach) -> Many {
        Many::new(relation, rows, &key_first(relation), reach, |parts, relation| parts.update(relation))
    }

    /// Deletes the rows with these keys.
    pub(super) fn delete(relation: &Mapped, rows: &[Tuple], reach: Reach) -> Many {
        Many::new(relation, rows, relation.key_columns(), reach, |parts, relation| parts.delete(relation))
    }

    fn new(
        relation: &Mapped,
        rows: &[Tuple],
        columns: &[usize],
        reach: Reach,
        sql: impl FnOnce(&Parts<'_>, &Mapped) -> String,
    ) -> Many {
        let (arrays, keys) = (arrays(relation, rows, columns), range_of(relation, rows));
        let sql = sql(&Parts { columns, arrays: &arrays, count: rows.len(), keys, reach }, relation);
        Many { sql, arrays, rows: rows.len() as u64, reach, by_range: keys.is_some() }
    }

    /// The parameters' types, by OID.
    pub(super) fn types(&self) -> Vec<u32> {
        self.arrays.iter().map(|array| array.type_oid).collect()
    }

    /// The parameters, in binary form.
    pub(super) fn parameters(&self) -> impl Iterator<Item = Option<&[u8]>> {
        self.arrays.iter().map(|array| Some(&array.bytes[..]))
    }
}

/// What the SQL is made of.
struct Parts<'a> {
    /// The columns whose values come with it, beginning with the key's, and the values, by which the parameters are typed.
    columns: &'a [usize],
    arrays: &'a [Array],
    /// How many rows there are.
    count: usize,
    /// The first and the last of their keys, where the rows are to be found by them.
    keys: Option<(i64, i64)>,
    reach: Reach,
}

impl Parts<'_> {
    /// Updates all columns but the key's of the rows with these keys.
    fn update(&self, relation: &Mapped) -> String {
        let set = self.columns.iter().enumerate().skip(relation.key_columns().len());
        let assignments = set.filter_map(|(n, &column)| {
            let column = relation.columns.get(column)?.as_ref()?;
            Some(format!("{} = {}", column.name, self.value(column, n)))
        });
        let assignments = assignments.collect::<Vec<_>>().join(", ");
        let (rows, joined) = (self.rows(), self.joined(relation));
        self.reaching(format!(
            "UPDATE ONLY {} AS t SET {assignments} FROM {rows} WHERE {joined}",
            relation.table
        ))
    }

    /// Deletes the rows with these keys.
    fn delete(&self, relation: &Mapped) -> String {
        let (rows, joined) = (self.rows(), self.joined(relation));
        self.reaching(format!("DELETE FROM ONLY {} AS t USING {rows} WHERE {joined}", relation.table))
    }

    fn reaching(&self, sql: String) -> String {
        match self.reach {
            Reach::Told => sql,
            // Any other number is a division by zero.
            Reach::Itself => format!(
                "WITH reached AS ({sql} RETURNING 1) SELECT 1 / (pg_catalog.count(*) OPERATOR(pg_catalog.=) {})::integer FROM reached",
                self.count
            ),
        }
    }

    /// The parameters as rows `u` of columns `c0`, `c1` … In a list of values, unlike as a table, they are not stored before they are read.
    fn rows(&self) -> String {
        let arrays = (0..self.columns.len()).map(|n| format!("pg_catalog.unnest(${}) AS c{n}", n + 1));
        format!("(SELECT {}) AS u", arrays.collect::<Vec<_>>().join(", "))
    }

    /// The condition by which the rows `u`, whose first columns are the key, find theirs.
    fn joined(&self, relation: &Mapped) -> String {
        let columns = relation.key_columns().iter().filter_map(|&i| relation.columns.get(i)?.as_ref());
        let conditions = columns.enumerate().map(|(n, column)| {
            let equality = column.equality.as_deref().unwrap_or("OPERATOR(pg_catalog.=)");
            format!("t.{} {equality} {}", column.name, self.value(column, n))
        });
        let range = self.keys.zip(relation.key_columns().first()).and_then(|((first, last), &key)| {
            let name = &relation.columns.get(key)?.as_ref()?.name;
            Some(format!("t.{name} BETWEEN {first} AND {last}"))
        });
        conditions.chain(range).collect::<Vec<_>>().join(" AND ")
    }

    /// Column `n` of the rows `u` as a value of `column`; its modifier and its domain take effect when it is assigned.
    fn value(&self, column: &Column, n: usize) -> String {
        match &column.cast {
            Some(cast) if self.arrays.get(n).is_none_or(Array::is_texts) => format!("u.c{n}::{cast}"),
            _ => format!("u.c{n}"),
        }
    }
}

/// The columns of an UPDATE of many rows, all that are written, beginning with the key's.
fn key_first(relation: &Mapped) -> Vec<usize> {
    let key = relation.key_columns();
    let set = (0..relation.columns.len()).filter(|i| relation.columns[*i].is_some() && !key.contains(i));
    key.iter().copied().chain(set).collect()
}

/// The first and the last of the rows' keys, where they are integers and rows with most of those between: to read the range once is cheaper than to look for
/// each, then, and there can't be more of it, as a key is one row's.
fn range_of(mapped: &Mapped, rows: &[Tuple]) -> Option<(i64, i64)> {
    const INTEGERS: [u32; 3] = [20, 21, 23];
    let &[key] = mapped.key_columns() else { return None };
    let column = mapped.columns.get(key)?.as_ref()?;
    if rows.len() < RANGE_ROWS || !INTEGERS.contains(&column.type_oid) {
        return None;
    }
    let (mut first, mut last) = (i64::MAX, i64::MIN);
    for row in rows {
        let key = std::str::from_utf8(text_of(row.get(key))?).ok()?.parse().ok()?;
        (first, last) = (first.min(key), last.max(key));
    }
    let keys = i128::from(last) - i128::from(first);
    (keys < RANGE_KEYS * rows.len() as i128).then_some((first, last))
}

/// The parameters of a statement for many rows: an array for each of the columns.
fn arrays(mapped: &Mapped, rows: &[Tuple], columns: &[usize]) -> Vec<Array> {
    let array_of = |&column: &usize| {
        let type_oid = mapped.columns.get(column).and_then(Option::as_ref).map_or(TEXT, |c| c.type_oid);
        values(rows, column, type_oid).unwrap_or_else(|| texts(rows, column))
    };
    columns.iter().map(array_of).collect()
}

/// Values of a column, in the binary form of its type; `None` where one of them has none that is known.
fn values(rows: &[Tuple], column: usize, type_oid: u32) -> Option<Array> {
    let array = Array { type_oid: binary::array_of(type_oid)?, bytes: header(rows.len(), type_oid) };
    let fill = |mut array: Array, row: &Tuple| {
        let start = array.bytes.len();
        array.bytes.put_i32(-1);
        if let Some(text) = text_of(row.get(column)) {
            binary::append(type_oid, text, &mut array.bytes)?;
            let (len, end) = (array.bytes.len() - start - 4, start + 4);
            array.bytes.get_mut(start..end)?.copy_from_slice(&(len as i32).to_be_bytes());
        }
        Some(array)
    };
    rows.iter().try_fold(array, fill)
}

/// Values of a column as they came.
fn texts(rows: &[Tuple], column: usize) -> Array {
    let mut bytes = header(rows.len(), TEXT);
    for row in rows {
        match text_of(row.get(column)) {
            Some(text) => {
                bytes.put_i32(text.len() as i32);
                bytes.put_slice(text);
            }
            None => bytes.put_i32(-1),
        }
    }
    Array { type_oid: TEXT_ARRAY, bytes }
}

/// The beginning of an array's binary form.
fn header(len: usize, element: u32) -> BytesMut {
    let mut header = BytesMut::with_capacity(20 + len * 16);
    // Dimensions, whether there may be nulls, type; length, lower bound (array_recv in arrayfuncs.c).
    for field in [1, 1, element as i32, len as i32, 1] {
        header.put_i32(field);
    }
    header
}

#[cfg(test)]
mod tests {
    use super::super::pending::tests::tuple;
    use super::super::relation::Key;
    use super::super::statement::tests::relation;
    use super::*;

    #[test]
    fn many_rows_are_joined_with_their_keys() {
        let mut table = relation(&[("a", 23, true), ("b", 25, true), ("c", 23, true)], false);
        table.key = Key::Columns(vec![2, 0]);
        let columns = key_first(&table);
        assert_eq!(columns, [2, 0, 1]);
        let rows = [tuple(&["1", "one", "3"])];
        let values = arrays(&table, &rows, &columns);
        let many = Parts { columns: &columns, arrays: &values, count: 3, keys: None, reach: Reach::Itself };
        assert_eq!(
            many.update(&table),
            "WITH reached AS (UPDATE ONLY \"s\".\"t\" AS t SET \"b\" = u.c2::text FROM \
             (SELECT pg_catalog.unnest($1) AS c0, pg_catalog.unnest($2) AS c1, pg_catalog.unnest($3) AS c2) AS u WHERE \
             t.\"c\" OPERATOR(pg_catalog.=) u.c0 AND t.\"a\" OPERATOR(pg_catalog.=) u.c1 RETURNING 1) \
             SELECT 1 / (pg_catalog.count(*) OPERATOR(pg_catalog.=) 3)::integer FROM reached"
        );
        // A value without a binary form: all come as texts.
        table.key = Key::Columns(vec![0]);
        let rows = [tuple(&["1", "", ""]), tuple(&["one", "", ""])];
        let values = arrays(&table, &rows, &[0]);
        let keys = Some((-5, 7));
        let many = Parts { columns: &[0], arrays: &values, count: 2, keys, reach: Reach::Told };
        assert_eq!(
            many.delete(&table),
            "DELETE FROM ONLY \"s\".\"t\" AS t USING (SELECT pg_catalog.unnest($1) AS c0) AS u WHERE \
             t.\"a\" OPERATOR(pg_catalog.=) u.c0::integer AND t.\"a\" BETWEEN -5 AND 7"
        );
    }
}
