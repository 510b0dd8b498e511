//! Rows as COPY FROM STDIN reads them.
//!
//! In: a row's columns, `None` for NULL, already in the type's text or binary form. Out: the row appended to a buffer that becomes the body of
//! CopyData messages, which may be cut anywhere. Formats: the manual's "COPY", section "File Formats".

pub mod binary;
pub mod text;
