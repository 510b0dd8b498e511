//! Types that are not a table's row type, and casts.

use serde::Deserialize;

use super::Acl;

/// A type.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Type {
    /// pg_type.oid.
    pub oid: u32,
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// Owning role.
    pub owner: String,
    /// Privileges.
    pub acl: Acl,
    /// OID of its array type, if there is one.
    pub array: Option<u32>,
    /// What it is.
    pub definition: Definition,
}

/// What a type is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Definition {
    /// Labels in their order.
    Enum(Vec<String>),
    /// A free-standing composite type.
    Composite(Composite),
    /// A domain.
    Domain(Box<Domain>),
    /// A range type and its multirange type.
    Range(Box<Range>),
    /// A type made of input and output functions.
    Base(Box<Base>),
    /// A shell type that was never defined.
    Shell,
}

/// A free-standing composite type.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Composite {
    /// pg_class.oid of its relation, which columns' comments name.
    pub relation: u32,
    /// Its columns.
    pub attributes: Vec<Attribute>,
}

/// A column of a composite type.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Attribute {
    /// Name.
    pub name: String,
    /// Its type, rendered.
    pub data_type: String,
    /// Collation, rendered, when it isn't the type's own.
    pub collation: Option<String>,
}

/// A domain.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Domain {
    /// The type below, rendered.
    pub base: String,
    /// Collation, rendered, when it isn't the base type's own.
    pub collation: Option<String>,
    /// Default expression, rendered.
    pub default: Option<String>,
    /// NOT NULL without a constraint of its own in pg_constraint (servers before 17).
    pub not_null: bool,
    /// CHECK constraints, and NOT NULL ones where the server names them.
    pub constraints: Vec<DomainConstraint>,
}

/// A constraint of a domain.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct DomainConstraint {
    /// pg_constraint.oid.
    pub oid: u32,
    /// Name.
    pub name: String,
    /// pg_get_constraintdef.
    pub definition: String,
    /// False while NOT VALID.
    pub validated: bool,
    /// It is a NOT NULL constraint.
    pub not_null: bool,
}

/// A range type.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Range {
    /// Element type, rendered.
    pub subtype: String,
    /// Operator class, rendered, when it isn't the element type's default one.
    pub operator_class: Option<String>,
    /// Collation, rendered, when it isn't the element type's own.
    pub collation: Option<String>,
    /// Canonical function, qualified.
    pub canonical: Option<String>,
    /// Difference function, qualified.
    pub difference: Option<String>,
    /// Multirange type: OID, qualified name, and the OID of its array type (14 and newer).
    pub multirange: Option<Multirange>,
}

/// The multirange type that comes with a range type.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Multirange {
    /// pg_type.oid.
    pub oid: u32,
    /// Its array type.
    pub array: Option<u32>,
    /// Schema and name, quoted.
    pub name: String,
}

/// A base type.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Base {
    /// INTERNALLENGTH; -1 is variable, -2 a C string.
    pub length: i32,
    /// INPUT.
    pub input: String,
    /// OUTPUT.
    pub output: String,
    /// RECEIVE.
    pub receive: Option<String>,
    /// SEND.
    pub send: Option<String>,
    /// TYPMOD_IN.
    pub typmod_in: Option<String>,
    /// TYPMOD_OUT.
    pub typmod_out: Option<String>,
    /// ANALYZE.
    pub analyze: Option<String>,
    /// SUBSCRIPT.
    pub subscript: Option<String>,
    /// COLLATABLE.
    pub collatable: bool,
    /// DEFAULT, a value in text.
    pub default: Option<String>,
    /// ELEMENT, rendered.
    pub element: Option<String>,
    /// CATEGORY.
    pub category: String,
    /// PREFERRED.
    pub preferred: bool,
    /// DELIMITER.
    pub delimiter: String,
    /// ALIGNMENT: `c`, `s`, `i`, `d`.
    pub alignment: String,
    /// STORAGE: `p`, `e`, `x`, `m`.
    pub storage: String,
    /// PASSEDBYVALUE.
    pub by_value: bool,
}

impl Type {
    /// Constraints (OIDs) of a domain; none of other types.
    pub fn constraints(&self) -> Vec<u32> {
        match &self.definition {
            Definition::Domain(domain) => domain.constraints.iter().map(|c| c.oid).collect(),
            _ => Vec::new(),
        }
    }

    /// The relation (OID) behind a composite type.
    pub fn relation(&self) -> Option<u32> {
        match &self.definition {
            Definition::Composite(composite) => Some(composite.relation),
            _ => None,
        }
    }
}

/// A cast.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Cast {
    /// pg_cast.oid.
    pub oid: u32,
    /// Source type, rendered.
    pub source: String,
    /// Target type, rendered.
    pub target: String,
    /// Function with its argument types, quoted and qualified; `None` where the cast is binary or goes by I/O.
    pub function: Option<String>,
    /// `e` explicit, `a` assignment, `i` implicit.
    pub context: char,
    /// `f` function, `b` binary, `i` by input and output functions.
    pub method: char,
}
