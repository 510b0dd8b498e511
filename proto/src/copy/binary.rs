//! The binary format: a signature, rows of length-prefixed values, a trailer.

use bytes::{BufMut, BytesMut};

use crate::frontend::EncodeError;

/// The most columns that a row can count.
const MAX_COLUMNS: usize = i16::MAX as usize;

/// Appends what stands before the first row: signature, no flags, no extension.
pub fn header(out: &mut BytesMut) {
    out.put_slice(b"PGCOPY\n\xff\r\n\0");
    out.put_u32(0);
    out.put_u32(0);
}

/// Appends a row. Fails, leaving `out` as it was, when it has too many columns or a value of 2 GiB or more.
pub fn row<'a>(
    columns: impl IntoIterator<Item = Option<&'a [u8]>>,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.put_i16(0);
    let mut count = 0;
    for column in columns {
        let len = match column {
            None => Ok(-1),
            Some(value) => {
                i32::try_from(value.len()).map_err(|_| EncodeError::TooLong { message: "COPY row" })
            }
        };
        let len = if count == MAX_COLUMNS {
            Err(EncodeError::TooMany { message: "COPY row", items: "columns", limit: MAX_COLUMNS })
        } else {
            len
        };
        match len {
            Ok(len) => out.put_i32(len),
            Err(error) => {
                out.truncate(start);
                return Err(error);
            }
        }
        out.put_slice(column.unwrap_or_default());
        count += 1;
    }
    out[start..start + 2].copy_from_slice(&(count as i16).to_be_bytes());
    Ok(())
}

/// Appends what stands after the last row.
pub fn trailer(out: &mut BytesMut) {
    out.put_i16(-1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_signature_rows_and_trailer() {
        let mut out = BytesMut::new();
        header(&mut out);
        row([None, Some(&b""[..]), Some(b"ab")], &mut out).unwrap();
        row([], &mut out).unwrap();
        trailer(&mut out);
        let expected = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\
            \0\x03\xff\xff\xff\xff\0\0\0\0\0\0\0\x02ab\
            \0\0\
            \xff\xff";
        assert_eq!(&out[..], expected);
    }

    #[test]
    fn a_refused_row_leaves_the_buffer_as_it_was() {
        let mut out = BytesMut::from(&b"before"[..]);
        row(std::iter::repeat_n(None, MAX_COLUMNS), &mut out.clone()).unwrap();
        let error = row(std::iter::repeat_n(None, MAX_COLUMNS + 1), &mut out).unwrap_err();
        assert_eq!(error.to_string(), "cannot send COPY row: more than 32767 columns");
        assert_eq!(&out[..], b"before");
    }
}
