//! Rows of query results, in text format.

use std::str::FromStr;

use pgstream_proto::backend::DataRow;

use crate::error::{Error, Result};

/// One row of a result; every value is in text format.
#[derive(Debug)]
pub struct Row {
    data: DataRow,
}

impl Row {
    pub(super) fn new(data: DataRow) -> Row {
        Row { data }
    }

    /// The number of columns.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// The bytes of column `index`; `None` for NULL and for a column that is not there.
    pub fn bytes(&self, index: usize) -> Option<&[u8]> {
        self.data.get(index)
    }

    /// The text of column `index`; `None` for NULL, for a column that is not there and for bytes that are not UTF-8.
    pub fn text(&self, index: usize) -> Option<&str> {
        self.bytes(index).and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    /// The value of column `index`, read from its text; NULL or another form is an error that names the column's number.
    pub fn value<T: FromStr>(&self, index: usize) -> Result<T> {
        self.optional(index)?.ok_or_else(|| {
            Error::failed(format!("unexpected null in column {} of a query's result", index + 1))
        })
    }

    /// The value of column `index`, read from its text; NULL is `None`.
    pub fn optional<T: FromStr>(&self, index: usize) -> Result<Option<T>> {
        match self.bytes(index) {
            None => Ok(None),
            Some(_) => match self.text(index).and_then(|text| text.parse().ok()) {
                Some(value) => Ok(Some(value)),
                None => Err(Error::failed(format!(
                    "unexpected value in column {} of a query's result",
                    index + 1
                ))),
            },
        }
    }

    /// Whether column `index` is PostgreSQL's boolean true (`t`).
    pub fn is_true(&self, index: usize) -> bool {
        self.bytes(index) == Some(b"t")
    }
}
