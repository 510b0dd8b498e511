//! The options that say what of a database is copied, with pg_dump's names.
//!
//! In: what was typed. Out: [`ddl::Options`]. What may fail: a filter file that can't be read.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::migrate::Method;
use crate::ddl;
use crate::error::{Error, Result, io_reason};
use crate::migrate;
use crate::schema::filter;
use crate::schema::selection::Selection;

/// What is copied; pg_dump's options.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct Content {
    #[command(flatten)]
    selected: Selected,
    #[command(flatten)]
    left_out: LeftOut,
}

/// Patterns of what is copied.
#[derive(Debug, Clone, Args)]
#[command(
    next_help_heading = "What is copied (patterns as pg_dump's; each option may be given several times)"
)]
struct Selected {
    /// Only the schemas that match
    #[arg(short = 'n', long, value_name = "PATTERN")]
    schema: Vec<String>,
    /// All schemas but those that match
    #[arg(short = 'N', long, value_name = "PATTERN")]
    exclude_schema: Vec<String>,
    /// Only the tables, views and sequences that match
    #[arg(short = 't', long, value_name = "PATTERN")]
    table: Vec<String>,
    /// As --table, with their partitions and children
    #[arg(long, value_name = "PATTERN")]
    table_and_children: Vec<String>,
    /// All tables, views and sequences but those that match
    #[arg(short = 'T', long, value_name = "PATTERN")]
    exclude_table: Vec<String>,
    /// As --exclude-table, with their partitions and children
    #[arg(long, value_name = "PATTERN")]
    exclude_table_and_children: Vec<String>,
    /// The definition of the tables that match, without their rows
    #[arg(long, value_name = "PATTERN")]
    exclude_table_data: Vec<String>,
    /// As --exclude-table-data, with their partitions and children
    #[arg(long, value_name = "PATTERN")]
    exclude_table_data_and_children: Vec<String>,
    /// Only the extensions that match
    #[arg(short = 'e', long, value_name = "PATTERN")]
    extension: Vec<String>,
    /// All extensions but those that match
    #[arg(long, value_name = "PATTERN")]
    exclude_extension: Vec<String>,
    /// More patterns from a file in pg_dump's format; - for standard input
    #[arg(long, value_name = "FILE")]
    filter: Vec<PathBuf>,
    /// Definitions alone: no rows, no positions of sequences, no large objects
    #[arg(short, long)]
    schema_only: bool,
    /// Fail where a pattern of what is copied matches nothing
    #[arg(long)]
    strict_names: bool,
}

/// Kinds that are left out.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "What is left out")]
struct LeftOut {
    /// Leave out the owners of objects
    #[arg(short = 'O', long)]
    no_owner: bool,
    /// Leave out privileges (GRANT and REVOKE)
    #[arg(short = 'x', long, visible_alias = "no-acl")]
    no_privileges: bool,
    /// Leave out comments
    #[arg(long)]
    no_comments: bool,
    /// Leave out security labels
    #[arg(long)]
    no_security_labels: bool,
    /// Leave out publications
    #[arg(long)]
    no_publications: bool,
    /// Leave out subscriptions
    #[arg(long)]
    no_subscriptions: bool,
    /// Leave out row-level security policies
    #[arg(long)]
    no_policies: bool,
    /// Leave out the choice of tablespaces
    #[arg(long)]
    no_tablespaces: bool,
    /// Put into the target's tablespace NEW what is in OLD on the source; more than once for several
    #[arg(long, value_name = "OLD=NEW", value_parser = mapping, conflicts_with = "no_tablespaces")]
    tablespace_mapping: Vec<(String, String)>,
    /// Leave out the choice of table access methods
    #[arg(long)]
    no_table_access_method: bool,
    /// Leave out the choice of TOAST compression methods
    #[arg(long)]
    no_toast_compression: bool,
    /// Leave out what the target's role may not create, and all that needs it
    #[arg(long)]
    skip_unprivileged: bool,
    /// Copy the rows of extensions' tables, and leave out what changes in them later
    #[arg(long)]
    no_replicate_extension_tables: bool,
}

impl Content {
    /// Definitions alone are asked for.
    pub(in crate::cli) fn schema_only(&self) -> bool {
        self.selected.schema_only
    }

    /// How the database is moved: without rows there is nothing to follow.
    pub(in crate::cli) fn method(&self, asked: Method) -> Result<migrate::Method> {
        match asked {
            Method::Replication if self.schema_only() => {
                Err(Error::usage("--schema-only does not go with --method replication")
                    .with_hint("Definitions are copied once: leave --method out."))
            }
            _ if self.schema_only() => Ok(migrate::Method::Copy),
            asked => Ok(asked.into()),
        }
    }

    /// The options of the plan; reads the filter files.
    pub(in crate::cli) fn options(&self) -> Result<ddl::Options> {
        let left_out = &self.left_out;
        Ok(ddl::Options {
            database: None,
            owners: !left_out.no_owner,
            privileges: !left_out.no_privileges,
            comments: !left_out.no_comments,
            security_labels: !left_out.no_security_labels,
            publications: !left_out.no_publications,
            subscriptions: !left_out.no_subscriptions,
            policies: !left_out.no_policies,
            tablespaces: !left_out.no_tablespaces,
            tablespace_mapping: left_out.tablespace_mapping.iter().cloned().collect(),
            table_access_methods: !left_out.no_table_access_method,
            toast_compression: !left_out.no_toast_compression,
            skip_unprivileged: left_out.skip_unprivileged,
            replicate_extension_tables: !left_out.no_replicate_extension_tables,
            selection: self.selected.selection()?,
        })
    }
}

/// `OLD=NEW`.
fn mapping(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((old, new)) if !old.is_empty() && !new.is_empty() => Ok((old.to_owned(), new.to_owned())),
        _ => Err("must be OLD=NEW, two names of tablespaces".to_owned()),
    }
}

impl Selected {
    fn selection(&self) -> Result<Selection> {
        let mut selection = Selection {
            schemas: self.schema.clone(),
            exclude_schemas: self.exclude_schema.clone(),
            tables: self.table.clone(),
            tables_and_children: self.table_and_children.clone(),
            exclude_tables: self.exclude_table.clone(),
            exclude_tables_and_children: self.exclude_table_and_children.clone(),
            exclude_table_data: self.exclude_table_data.clone(),
            exclude_table_data_and_children: self.exclude_table_data_and_children.clone(),
            extensions: self.extension.clone(),
            exclude_extensions: self.exclude_extension.clone(),
            schema_only: self.schema_only,
            strict_names: self.strict_names,
        };
        for file in &self.filter {
            filter::add(&mut selection, &file.display().to_string(), &read(file)?)?;
        }
        Ok(selection)
    }
}

fn read(file: &Path) -> Result<String> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map(drop)
    } else {
        std::fs::read_to_string(file).map(|read| text = read)
    };
    match read {
        Ok(()) => Ok(text),
        Err(error) => Err(Error::usage(format!(
            "could not read filter file \"{}\": {}",
            file.display(),
            io_reason(&error)
        ))),
    }
}
