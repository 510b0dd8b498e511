//! pg_dump's sections: which steps of the phase machine a run takes, one after the other in several runs.
//!
//! ```text
//! pre-data    roles, types, functions, tables, views                       what comes before the rows
//! data        rows, large objects, positions of sequences                  needs pre-data
//! post-data   indexes, constraints, triggers, privileges, statistics       needs data, unless its rows come by other means
//! ```
//! In: what was asked for, how far the migration is. Out: whether it may be taken. What may fail: a section whose predecessor isn't done. Each section is
//! resumed as a whole migration is: by the same command.

use std::collections::HashMap;
use std::fmt;

use super::Run;
use super::phases::remaining_places;
use crate::copy::Failures;
use crate::ddl::{Plan, Section};
use crate::error::{Error, Result};
use crate::state::{self, ItemOutcome, ItemState, Migration, Phase};
use crate::wire::Connection;

/// The sections that a run takes, or those that are left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sections {
    /// What is made before the rows are copied.
    pub pre_data: bool,
    /// Rows, large objects, positions of sequences.
    pub data: bool,
    /// What is made after that.
    pub post_data: bool,
}

impl Sections {
    /// The whole migration.
    pub const ALL: Sections = Sections { pre_data: true, data: true, post_data: true };

    /// What is left once these are done, which came after all before them.
    pub(super) fn left(self) -> Option<Sections> {
        let data = !self.data && !self.post_data;
        let post_data = !self.post_data;
        post_data.then_some(Sections { pre_data: false, data, post_data })
    }

    /// Refuses what needs a section that no run has begun with.
    pub(super) fn refuse_unbegun(self) -> Result<()> {
        if self.pre_data {
            return Ok(());
        }
        Err(Error::usage(format!("cannot begin with section {self}"))
            .with_detail("The target holds no migration whose section pre-data has been made.")
            .with_hint("Run pgstream migrate --section pre-data first."))
    }
}

impl fmt::Display for Sections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [(self.pre_data, "pre-data"), (self.data, "data"), (self.post_data, "post-data")];
        let names: Vec<&str> = names.iter().filter(|(asked, _)| *asked).map(|(_, name)| *name).collect();
        f.write_str(&names.join(", "))
    }
}

impl Run<'_> {
    /// Makes sure that the sections before those of this run are done. What of pre-data could not be made counts as missing.
    pub(super) async fn follow_sections(
        &self,
        target: &mut Connection,
        migration: &Migration,
        (plan, made): (&Plan, &HashMap<String, ItemState>),
        failures: &Failures,
    ) -> Result<()> {
        let sections = self.options.sections;
        if !sections.pre_data {
            for place in remaining_places(plan, Section::PreData, made) {
                let item = &plan.items[place];
                if made.get(&item.key()).is_none_or(|state| state.outcome != ItemOutcome::Failed) {
                    return Err(Error::usage(format!(
                        "section {sections} needs section pre-data, which is not done"
                    ))
                    .with_detail(format!("{} is not on the target.", item.key()))
                    .with_hint("Run pgstream migrate --section pre-data first."));
                }
                failures.add(item);
            }
        }
        let rows_are_done = migration.phase >= Phase::PostData || self.options.ddl.selection.schema_only;
        if sections.data || !sections.post_data || rows_are_done {
            return Ok(());
        }
        if migration.phase == Phase::Copy {
            return Err(Error::usage("section post-data needs section data, which is not done")
                .with_hint("Run pgstream migrate --section data first."));
        }
        // Whoever asks for this brings the rows by other means, and a run that resumes must not copy them again.
        let mut content = self.options.ddl.clone();
        content.selection.schema_only = true;
        state::set_content(target, &content).await
    }
}
