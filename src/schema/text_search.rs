//! Text search parsers, templates, dictionaries and configurations.

use serde::Deserialize;

/// A text search parser.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Parser {
    /// pg_ts_parser.oid.
    pub oid: u32,
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// START.
    pub start: String,
    /// GETTOKEN.
    pub token: String,
    /// END.
    pub end: String,
    /// HEADLINE.
    pub headline: Option<String>,
    /// LEXTYPES.
    pub lextypes: String,
}

/// A text search template.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Template {
    /// pg_ts_template.oid.
    pub oid: u32,
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// INIT.
    pub init: Option<String>,
    /// LEXIZE.
    pub lexize: String,
}

/// A text search dictionary.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Dictionary {
    /// pg_ts_dict.oid.
    pub oid: u32,
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// Owning role.
    pub owner: String,
    /// Template, quoted and qualified.
    pub template: String,
    /// Its options as the catalog keeps them: `name = 'value', …`.
    pub options: Option<String>,
}

/// A text search configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Configuration {
    /// pg_ts_config.oid.
    pub oid: u32,
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// Owning role.
    pub owner: String,
    /// Parser, quoted and qualified.
    pub parser: String,
    /// Token types and their dictionaries, in the parser's order.
    pub mappings: Vec<Mapping>,
}

/// The dictionaries of a token type.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Mapping {
    /// Token type.
    pub token: String,
    /// Dictionaries, quoted and qualified, in order.
    pub dictionaries: Vec<String>,
}
