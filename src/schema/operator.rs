//! Operators, operator classes and families, access methods.

use serde::Deserialize;

/// An operator.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Operator {
    /// pg_operator.oid.
    pub oid: u32,
    /// Schema.
    pub schema: String,
    /// Its characters.
    pub name: String,
    /// Owning role.
    pub owner: String,
    /// LEFTARG, rendered; `None` for prefix operators.
    pub left: Option<String>,
    /// RIGHTARG, rendered; `None` for postfix operators (servers before 14).
    pub right: Option<String>,
    /// FUNCTION; `None` while the operator is only a forward reference of another.
    pub function: Option<String>,
    /// COMMUTATOR, as `schema.name`.
    pub commutator: Option<String>,
    /// NEGATOR.
    pub negator: Option<String>,
    /// RESTRICT.
    pub restrict: Option<String>,
    /// JOIN.
    pub join: Option<String>,
    /// MERGES.
    pub merges: bool,
    /// HASHES.
    pub hashes: bool,
}

/// An access method.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AccessMethod {
    /// pg_am.oid.
    pub oid: u32,
    /// Name.
    pub name: String,
    /// `i` index, `t` table.
    pub kind: char,
    /// HANDLER, quoted and qualified.
    pub handler: String,
}

/// An operator family.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct OperatorFamily {
    /// pg_opfamily.oid.
    pub oid: u32,
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// Owning role.
    pub owner: String,
    /// Access method.
    pub method: String,
    /// Members that belong to no class.
    pub members: Vec<Member>,
}

/// An operator class.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct OperatorClass {
    /// pg_opclass.oid.
    pub oid: u32,
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// Owning role.
    pub owner: String,
    /// Access method.
    pub method: String,
    /// DEFAULT.
    pub default: bool,
    /// FOR TYPE, rendered.
    pub data_type: String,
    /// Its family: pg_opfamily.oid.
    pub family: u32,
    /// The family, quoted and qualified.
    pub family_name: String,
    /// STORAGE, rendered.
    pub storage: Option<String>,
    /// Operators and functions.
    pub members: Vec<Member>,
}

/// An operator or support function in a class or family.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Member {
    /// A function; else an operator.
    pub function: bool,
    /// Strategy or support number.
    pub number: i16,
    /// `schema.+(integer,integer)` or `schema.f(integer)`.
    pub identity: String,
    /// Left input type, rendered.
    pub left: String,
    /// Right input type, rendered.
    pub right: String,
    /// FOR ORDER BY, the sort family.
    pub sort_family: Option<String>,
}
