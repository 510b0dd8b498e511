//! The model of a database: plain data, as `catalog` reads it and `ddl` writes it.
//!
//! In: rows of the system catalogs (deserialized by `catalog`). Out: one [`Database`]. Nothing here talks to a
//! server or knows SQL text, apart from definitions that the server itself renders (`pg_get_viewdef` and its kin).

pub mod collation;
pub mod constraint;
pub mod data_type;
pub mod database;
pub mod extension;
pub mod filter;
pub mod foreign;
pub mod function;
pub mod index;
pub mod inherit;
pub mod language;
pub mod large_object;
pub mod namespace;
pub mod newer;
pub mod note;
pub mod operator;
pub mod partition;
pub mod pattern;
pub mod publication;
pub mod role;
pub mod selection;
pub mod sequence;
pub mod statistics;
pub mod table;
pub mod text_search;
pub mod trigger;
pub mod view;

use serde::{Deserialize, Serialize};

/// Everything of one database that can be copied, each kind in the order of its names.
#[derive(Debug, Clone, Default)]
pub struct Database {
    /// `server_version_num` of the server it was read from: 150018.
    pub version: u32,
    /// Its name there.
    pub name: String,
    /// Owner, privileges, settings.
    pub properties: database::Properties,
    /// Schemas.
    pub schemas: Vec<namespace::Schema>,
    /// Extensions.
    pub extensions: Vec<extension::Extension>,
    /// Objects of extensions and of the system whose privileges were changed after their creation.
    pub changed_privileges: Vec<extension::ChangedPrivileges>,
    /// Types of every kind but tables' row types.
    pub types: Vec<data_type::Type>,
    /// Functions, procedures and window functions.
    pub functions: Vec<function::Function>,
    /// Aggregates.
    pub aggregates: Vec<function::Aggregate>,
    /// Operators.
    pub operators: Vec<operator::Operator>,
    /// Operator families with their loose members.
    pub operator_families: Vec<operator::OperatorFamily>,
    /// Operator classes.
    pub operator_classes: Vec<operator::OperatorClass>,
    /// Access methods.
    pub access_methods: Vec<operator::AccessMethod>,
    /// Casts.
    pub casts: Vec<data_type::Cast>,
    /// Transforms.
    pub transforms: Vec<language::Transform>,
    /// Procedural languages.
    pub languages: Vec<language::Language>,
    /// Collations.
    pub collations: Vec<collation::Collation>,
    /// Encoding conversions.
    pub conversions: Vec<collation::Conversion>,
    /// Text search parsers.
    pub text_search_parsers: Vec<text_search::Parser>,
    /// Text search templates.
    pub text_search_templates: Vec<text_search::Template>,
    /// Text search dictionaries.
    pub text_search_dictionaries: Vec<text_search::Dictionary>,
    /// Text search configurations.
    pub text_search_configurations: Vec<text_search::Configuration>,
    /// Foreign-data wrappers.
    pub foreign_data_wrappers: Vec<foreign::Wrapper>,
    /// Foreign servers.
    pub foreign_servers: Vec<foreign::Server>,
    /// User mappings.
    pub user_mappings: Vec<foreign::UserMapping>,
    /// Tables: ordinary, partitioned and foreign.
    pub tables: Vec<table::Table>,
    /// Views and materialized views.
    pub views: Vec<view::View>,
    /// Sequences.
    pub sequences: Vec<sequence::Sequence>,
    /// Indexes.
    pub indexes: Vec<index::Index>,
    /// Constraints of tables, of every kind.
    pub constraints: Vec<constraint::Constraint>,
    /// Triggers.
    pub triggers: Vec<trigger::Trigger>,
    /// Rewrite rules other than views' own.
    pub rules: Vec<trigger::Rule>,
    /// Row-level security policies.
    pub policies: Vec<trigger::Policy>,
    /// Extended statistics.
    pub statistics: Vec<statistics::Statistics>,
    /// Publications.
    pub publications: Vec<publication::Publication>,
    /// Subscriptions.
    pub subscriptions: Vec<publication::Subscription>,
    /// Event triggers.
    pub event_triggers: Vec<function::EventTrigger>,
    /// ALTER DEFAULT PRIVILEGES.
    pub default_privileges: Vec<database::DefaultPrivileges>,
    /// Comments on all of the above and on the relations' kinds.
    pub comments: Vec<note::Comment>,
    /// Security labels likewise.
    pub security_labels: Vec<note::SecurityLabel>,
    /// ALTER … DEPENDS ON EXTENSION.
    pub extension_dependencies: Vec<note::ExtensionDependency>,
    /// pg_depend, between objects that are not the system's own.
    pub dependencies: Vec<Dependency>,
    /// What exists in the source but could not be read, as (kind, name, reason).
    pub unread: Vec<(String, String, String)>,
}

/// The system catalog that an object's row is in; with the OID it names any object of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
pub enum Class {
    /// Access method.
    #[serde(rename = "pg_am")]
    AccessMethod,
    /// Column default or generation expression.
    #[serde(rename = "pg_attrdef")]
    ColumnDefault,
    /// Cast.
    #[serde(rename = "pg_cast")]
    Cast,
    /// Table, index, sequence, view, materialized view, composite type, foreign table, partitioned table or index.
    #[serde(rename = "pg_class")]
    Relation,
    /// Collation.
    #[serde(rename = "pg_collation")]
    Collation,
    /// Constraint of a table or domain.
    #[serde(rename = "pg_constraint")]
    Constraint,
    /// Encoding conversion.
    #[serde(rename = "pg_conversion")]
    Conversion,
    /// Default privileges.
    #[serde(rename = "pg_default_acl")]
    DefaultAcl,
    /// Event trigger.
    #[serde(rename = "pg_event_trigger")]
    EventTrigger,
    /// Extension.
    #[serde(rename = "pg_extension")]
    Extension,
    /// Foreign-data wrapper.
    #[serde(rename = "pg_foreign_data_wrapper")]
    ForeignDataWrapper,
    /// The database itself.
    #[serde(rename = "pg_database")]
    Database,
    /// Foreign server.
    #[serde(rename = "pg_foreign_server")]
    ForeignServer,
    /// Procedural language.
    #[serde(rename = "pg_language")]
    Language,
    /// Schema.
    #[serde(rename = "pg_namespace")]
    Namespace,
    /// Operator class.
    #[serde(rename = "pg_opclass")]
    OperatorClass,
    /// Operator.
    #[serde(rename = "pg_operator")]
    Operator,
    /// Operator family.
    #[serde(rename = "pg_opfamily")]
    OperatorFamily,
    /// Role.
    #[serde(rename = "pg_authid")]
    Role,
    /// Row-level security policy.
    #[serde(rename = "pg_policy")]
    Policy,
    /// Function, procedure, aggregate or window function.
    #[serde(rename = "pg_proc")]
    Function,
    /// Publication.
    #[serde(rename = "pg_publication")]
    Publication,
    /// Schema of a publication.
    #[serde(rename = "pg_publication_namespace")]
    PublicationSchema,
    /// Table of a publication.
    #[serde(rename = "pg_publication_rel")]
    PublicationTable,
    /// Rewrite rule, a view's own `_RETURN` too.
    #[serde(rename = "pg_rewrite")]
    Rule,
    /// Extended statistics object.
    #[serde(rename = "pg_statistic_ext")]
    Statistics,
    /// Subscription.
    #[serde(rename = "pg_subscription")]
    Subscription,
    /// Transform.
    #[serde(rename = "pg_transform")]
    Transform,
    /// Trigger.
    #[serde(rename = "pg_trigger")]
    Trigger,
    /// Text search configuration.
    #[serde(rename = "pg_ts_config")]
    TextSearchConfiguration,
    /// Text search dictionary.
    #[serde(rename = "pg_ts_dict")]
    TextSearchDictionary,
    /// Text search parser.
    #[serde(rename = "pg_ts_parser")]
    TextSearchParser,
    /// Text search template.
    #[serde(rename = "pg_ts_template")]
    TextSearchTemplate,
    /// The shell of a type, made before the functions that the type needs; no catalog's row.
    #[serde(skip)]
    ShellType,
    /// Not an object but a part of the function with the OID: its parsed body, where a loop goes through it.
    #[serde(skip)]
    FunctionBody,
    /// Type, domain or range type.
    #[serde(rename = "pg_type")]
    Type,
    /// User mapping.
    #[serde(rename = "pg_user_mapping")]
    UserMapping,
    /// Not an object but a state of the relation with the OID: a partition or its index attached to the parent's, a sequence owned by
    /// its column.
    #[serde(skip)]
    Attachment,
    /// Not an object but a state of the table with the OID: row security enabled.
    #[serde(skip)]
    RowSecurity,
    /// Not an object but a state of the materialized view with the OID: refreshed.
    #[serde(skip)]
    Contents,
    /// A catalog that no object of ours depends on, or that a newer server has.
    #[serde(other)]
    Other,
}

/// Names one object of the source database. OIDs are the source's; they mean nothing on the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
pub struct ObjectId {
    /// The catalog.
    pub class: Class,
    /// The row in it.
    pub oid: u32,
}

impl ObjectId {
    /// Names the object `oid` of the catalog `class`.
    pub fn new(class: Class, oid: u32) -> ObjectId {
        ObjectId { class, oid }
    }
}

/// One row of pg_depend: `object` needs `referenced`.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Dependency {
    /// The object that depends.
    pub object: ObjectId,
    /// What it depends on.
    pub referenced: ObjectId,
    /// `n` normal, `a` auto, `i` internal, `P`/`S` partition, `e` extension, `x` automatic extension.
    pub kind: char,
}

/// One privilege of an access control list, as `aclexplode` gives it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Grant {
    /// Role that granted it.
    pub grantor: String,
    /// Role that has it; `None` is PUBLIC.
    pub grantee: Option<String>,
    /// `SELECT`, `USAGE`, …
    pub privilege: String,
    /// WITH GRANT OPTION.
    pub grantable: bool,
}

/// Privileges of an object beside those that it was born with: the difference is what has to be granted and revoked.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Default)]
pub struct Acl {
    /// What the object has; `None` where the catalog column is null (the default holds).
    pub current: Option<Vec<Grant>>,
    /// What `acldefault` gives an object of this kind and owner.
    pub default: Vec<Grant>,
}
