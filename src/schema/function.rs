//! Functions, procedures, window functions, aggregates, event triggers.

use serde::Deserialize;

use super::Acl;

/// A function, procedure or window function.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Function {
    /// pg_proc.oid.
    pub oid: u32,
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// pg_get_function_identity_arguments.
    pub identity_arguments: String,
    /// `f` function, `p` procedure, `w` window function.
    pub kind: char,
    /// Owning role.
    pub owner: String,
    /// Privileges.
    pub acl: Acl,
    /// pg_get_functiondef.
    pub definition: String,
    /// Language.
    pub language: String,
    /// Its body as the server parsed it, as it ends the definition: it names only what exists when it is made. `None` where the body is text.
    pub body: Option<String>,
    /// Its language is trusted.
    pub trusted: bool,
    /// LEAKPROOF.
    pub leakproof: bool,
    /// It has a planner support function.
    pub support: bool,
}

/// An aggregate.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Aggregate {
    /// pg_proc.oid.
    pub oid: u32,
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// Its arguments as CREATE AGGREGATE takes them: `*`, `integer`, `double precision ORDER BY anyelement`.
    pub arguments: String,
    /// Its arguments' types, as GRANT and ALTER take them, or `*`.
    pub argument_types: String,
    /// Owning role.
    pub owner: String,
    /// Privileges.
    pub acl: Acl,
    /// `n` plain, `o` ordered-set, `h` hypothetical-set.
    pub kind: char,
    /// SFUNC.
    pub transition: String,
    /// STYPE, rendered.
    pub state_type: String,
    /// SSPACE, 0 for the default.
    pub state_space: i32,
    /// INITCOND.
    pub initial: Option<String>,
    /// FINALFUNC.
    pub final_function: Option<String>,
    /// FINALFUNC_EXTRA.
    pub final_extra: bool,
    /// FINALFUNC_MODIFY: `r`, `s`, `w`; `None` before server 11.
    pub final_modify: Option<char>,
    /// COMBINEFUNC.
    pub combine: Option<String>,
    /// SERIALFUNC.
    pub serialize: Option<String>,
    /// DESERIALFUNC.
    pub deserialize: Option<String>,
    /// MSFUNC.
    pub moving_transition: Option<String>,
    /// MINVFUNC.
    pub moving_inverse: Option<String>,
    /// MSTYPE, rendered.
    pub moving_state_type: Option<String>,
    /// MSSPACE.
    pub moving_state_space: i32,
    /// MINITCOND.
    pub moving_initial: Option<String>,
    /// MFINALFUNC.
    pub moving_final: Option<String>,
    /// MFINALFUNC_EXTRA.
    pub moving_final_extra: bool,
    /// MFINALFUNC_MODIFY.
    pub moving_final_modify: Option<char>,
    /// SORTOP, as `OPERATOR(schema.name)` takes it.
    pub sort_operator: Option<String>,
    /// PARALLEL: `u`, `r`, `s`.
    pub parallel: char,
}

/// An event trigger.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct EventTrigger {
    /// pg_event_trigger.oid.
    pub oid: u32,
    /// Name.
    pub name: String,
    /// Owning role.
    pub owner: String,
    /// `ddl_command_end`, …
    pub event: String,
    /// WHEN TAG IN.
    pub tags: Vec<String>,
    /// The function, quoted and qualified.
    pub function: String,
    /// `O` origin, `D` disabled, `R` replica, `A` always.
    pub enabled: char,
}
