//! The text format: tabs between columns, a newline after each row, `\N` for NULL.

use bytes::{BufMut, BytesMut};

/// Appends a row. The values are in an encoding whose ASCII bytes are always ASCII characters, such as UTF-8.
pub fn row<'a>(columns: impl IntoIterator<Item = Option<&'a [u8]>>, out: &mut BytesMut) {
    for (index, column) in columns.into_iter().enumerate() {
        if index > 0 {
            out.put_u8(b'\t');
        }
        match column {
            None => out.put_slice(b"\\N"),
            Some(value) => escape(value, out),
        }
    }
    out.put_u8(b'\n');
}

/// Appends `value` with a backslash form for each byte that would end the column or the row, or begin an escape.
/// That also covers `\.` and a value that reads `\N`.
pub fn escape(value: &[u8], out: &mut BytesMut) {
    out.reserve(value.len());
    let mut rest = value;
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\\' | b'\n' | b'\r' | b'\t')) {
        let (plain, special) = rest.split_at(at);
        out.put_slice(plain);
        let Some((byte, after)) = special.split_first() else { break };
        out.put_slice(match byte {
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            _ => b"\\\\",
        });
        rest = after;
    }
    out.put_slice(rest);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(columns: &[Option<&[u8]>]) -> Vec<u8> {
        let mut out = BytesMut::new();
        row(columns.iter().copied(), &mut out);
        out.to_vec()
    }

    /// What COPY FROM makes of a line (CopyReadAttributesText in copyfromparse.c), for the escapes used here.
    fn read(line: &[u8]) -> Vec<Option<Vec<u8>>> {
        let line = line.strip_suffix(b"\n").unwrap();
        assert!(!line.contains(&b'\n') && !line.contains(&b'\r'));
        let column = |column: &[u8]| {
            if column == b"\\N" {
                return None;
            }
            let (mut value, mut bytes) = (Vec::new(), column.iter());
            while let Some(&byte) = bytes.next() {
                value.push(match (byte, byte == b'\\') {
                    (_, true) => match bytes.next().unwrap() {
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        &other => other,
                    },
                    _ => byte,
                });
            }
            Some(value)
        };
        line.split(|&byte| byte == b'\t').map(column).collect()
    }

    #[test]
    fn null_and_what_looks_like_it_differ() {
        assert_eq!(encoded(&[None, Some(b""), Some(b"\\N")]), b"\\N\t\t\\\\N\n");
    }

    #[test]
    fn an_end_of_data_mark_in_a_value_is_escaped() {
        assert_eq!(encoded(&[Some(b"\\.")]), b"\\\\.\n");
    }

    #[test]
    fn a_row_without_columns_is_an_empty_line() {
        assert_eq!(encoded(&[]), b"\n");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(row in prop::collection::vec(prop::option::of("[\\\\\n\r\tN.a\u{e9}]{0,8}"), 1..5)) {
            let columns: Vec<Option<&[u8]>> = row.iter().map(|value| value.as_deref().map(str::as_bytes)).collect();
            let expected: Vec<Option<Vec<u8>>> = columns.iter().map(|value| value.map(<[u8]>::to_vec)).collect();
            prop_assert_eq!(read(&encoded(&columns)), expected);
        }
    }
}
