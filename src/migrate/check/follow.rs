//! Judges whether the source can be followed after the copy, and what of it does not come through the stream.

use super::{Facts, Finding, Severity};
use crate::migrate::Method;
use crate::replication::Obstacle;

/// Whether something keeps the source from being followed.
pub(super) fn is_possible(facts: &Facts) -> bool {
    !facts.obstacles.iter().any(|obstacle| obstacle.blocks)
}

/// Blockers where nothing but following is asked for. Where the method is left to pgstream, they are the reasons for another one, and what the
/// stream would leave out doesn't matter then.
pub(super) fn obstacles(facts: &Facts) -> Vec<Finding> {
    let finding = |obstacle: &Obstacle, severity, what: String| Finding {
        hint: obstacle.hint.clone(),
        ..Finding::new(severity, &obstacle.object, what)
    };
    if facts.method == Method::Replication || is_possible(facts) {
        let severity = |o: &Obstacle| if o.blocks { Severity::Blocker } else { Severity::Warning };
        return facts.obstacles.iter().map(|o| finding(o, severity(o), o.what.clone())).collect();
    }
    let reasons = facts.obstacles.iter().filter(|o| o.blocks);
    let mut findings: Vec<Finding> = reasons
        .map(|o| finding(o, Severity::Warning, format!("{}, so the source can't be followed", o.what)))
        .collect();
    findings.push(Finding::new(
        Severity::Warning,
        "method",
        "the source can't be followed, so the database is copied once (method copy), and nothing may write to it meanwhile",
    ));
    findings
}

/// The reasons for another method than following, one sentence each; none where the source can be followed.
pub(super) fn reasons(facts: &Facts) -> Vec<String> {
    facts
        .obstacles
        .iter()
        .filter(|obstacle| obstacle.blocks)
        .map(|obstacle| {
            let hint = obstacle.hint.as_ref().map(|hint| format!(" {hint}")).unwrap_or_default();
            format!("The {}: {}.{hint}", obstacle.object, obstacle.what)
        })
        .collect()
}
