//! Collations and encoding conversions.

use serde::Deserialize;

/// A collation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Collation {
    /// pg_collation.oid.
    pub oid: u32,
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// Owning role.
    pub owner: String,
    /// `c` libc, `i` ICU, `b` builtin, `d` the database's.
    pub provider: char,
    /// False lets different byte strings be equal (12 and newer).
    pub deterministic: bool,
    /// LC_COLLATE.
    pub collate: Option<String>,
    /// LC_CTYPE.
    pub ctype: Option<String>,
    /// LOCALE of the ICU and builtin providers.
    pub locale: Option<String>,
    /// RULES.
    pub rules: Option<String>,
}

/// An encoding conversion.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Conversion {
    /// pg_conversion.oid.
    pub oid: u32,
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// Owning role.
    pub owner: String,
    /// Encoding it reads.
    pub from: String,
    /// Encoding it writes.
    pub to: String,
    /// The function, quoted and qualified.
    pub function: String,
    /// DEFAULT.
    pub default: bool,
}
