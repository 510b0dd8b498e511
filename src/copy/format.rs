//! Binary or text: which form the rows of a table travel in.

use crate::schema::table::{Column, Table};

/// OIDs of built-in base types whose binary form has been the same since PostgreSQL 10, and does not hold an OID or a
/// locale-dependent text. Not among them: reg* (numbers that mean another object elsewhere), xml (carries its encoding),
/// aclitem, money's kin, tsquery (operators grew), jsonpath.
const SAME_EVERYWHERE: &[u32] = &[
    16, 17, 18, 19, 20, 21, 23, 25,  // bool bytea "char" name int8 int2 int4 text
    114, // json
    600, 601, 602, 603, 604, 628, 718, // geometric types
    700, 701, // float4 float8
    774, 829, 650, 869, // macaddr8 macaddr cidr inet
    1042, 1043, // bpchar varchar
    1082, 1083, 1114, 1184, 1186, 1266, // date time timestamp timestamptz interval timetz
    1560, 1562, 1700, // bit varbit numeric
    2950, 3220, 3802, // uuid pg_lsn jsonb
];

/// Arrays of the above: their binary form names the element type by OID, which is the same on every server for built-in types.
const ARRAYS_OF_THEM: &[u32] = &[
    1000, 1001, 1002, 1003, 1016, 1005, 1007, 1009, // bool bytea "char" name int8 int2 int4 text
    199,  // json
    1017, 1018, 1019, 1020, 1027, 629, 719, // geometric types
    1021, 1022, // float4 float8
    775, 1040, 651, 1041, // macaddr8 macaddr cidr inet
    1014, 1015, // bpchar varchar
    1182, 1183, 1115, 1185, 1187, 1270, // date time timestamp timestamptz interval timetz
    1561, 1563, 1231, // bit varbit numeric
    2951, 3221, 3807, // uuid pg_lsn jsonb
];

/// The form that a table's rows are copied in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CopyFormat {
    /// PGCOPY binary.
    Binary,
    /// Text, in the encoding of the two sessions (UTF-8).
    Text,
    /// Text whose bytes nobody converts, for two databases in SQL_ASCII.
    TextAsIs,
}

impl CopyFormat {
    /// Binary where every column that is copied has the same binary form on both sides, text otherwise.
    pub(super) fn of(table: &Table, as_is: bool) -> CopyFormat {
        if as_is {
            return CopyFormat::TextAsIs;
        }
        let same = |c: &Column| SAME_EVERYWHERE.contains(&c.type_oid) || ARRAYS_OF_THEM.contains(&c.type_oid);
        if table.columns.iter().filter(|c| !c.is_generated()).all(same) {
            CopyFormat::Binary
        } else {
            CopyFormat::Text
        }
    }

    /// The options for `COPY … WITH (…)`.
    pub(super) fn options(&self) -> &'static str {
        match self {
            CopyFormat::Binary => "FORMAT binary",
            CopyFormat::Text => "FORMAT text",
            CopyFormat::TextAsIs => "FORMAT text, ENCODING 'SQL_ASCII'",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_type_is_listed_twice() {
        let mut all: Vec<u32> = SAME_EVERYWHERE.iter().chain(ARRAYS_OF_THEM).copied().collect();
        all.sort_unstable();
        let count = all.len();
        all.dedup();
        assert_eq!(all.len(), count);
        assert_eq!(SAME_EVERYWHERE.len(), ARRAYS_OF_THEM.len());
    }
}
