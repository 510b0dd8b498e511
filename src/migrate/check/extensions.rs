//! Judges extensions: whether the target has them, and in which version. Whether its role may create them is judged with all that asks for a superuser.

use std::cmp::Ordering;

use super::{Facts, Finding, Severity};
use crate::catalog::facts::AvailableExtension;
use crate::schema::extension::Extension;
use crate::sql::ident;

use Severity::{Blocker, Info, Warning};

/// The findings on all extensions that would be made; those left out are not among them.
pub(super) fn extensions(facts: &Facts) -> Vec<Finding> {
    let planned = |extension: &&Extension| {
        facts.plan.items.iter().any(|item| item.kind == "EXTENSION" && item.name == extension.name)
    };
    let extensions = facts.database.extensions.iter().filter(|e| !e.builtin).filter(planned);
    extensions.flat_map(|extension| judge(facts, extension)).collect()
}

fn judge(facts: &Facts, extension: &Extension) -> Vec<Finding> {
    let object = format!("extension \"{}\"", extension.name);
    let name = ident(&extension.name);
    let Some(available) = facts.target.extensions.iter().find(|a| a.name == extension.name) else {
        return vec![Finding::new(Blocker, object, "is not available on the target").with_hint(
            "Install its package on the target's host, or leave it out with --exclude-extension.",
        )];
    };
    if let Some(installed) = &available.installed {
        return match compare(installed, &extension.version) {
            Some(Ordering::Less) => vec![
                Finding::new(
                    Warning,
                    object,
                    format!(
                        "is on the target in version {installed}, older than the source's {}",
                        extension.version
                    ),
                )
                .with_hint(format!("On the target: ALTER EXTENSION {name} UPDATE;")),
            ],
            Some(Ordering::Equal) => Vec::new(),
            _ => vec![differs(object, extension, installed)],
        };
    }
    let mut findings = Vec::new();
    match compare(&available.default_version, &extension.version) {
        Some(Ordering::Equal) => {}
        Some(Ordering::Less) => findings.push(
            Finding::new(
                Blocker,
                object,
                format!(
                    "has version {} on the source, and the target makes the older {}",
                    extension.version, available.default_version
                ),
            )
            .with_hint(newer(available, extension)),
        ),
        _ => findings.push(differs(object, extension, &available.default_version)),
    }
    findings
}

fn differs(object: String, extension: &Extension, target: &str) -> Finding {
    let what = format!("has version {} on the source and {target} on the target", extension.version);
    Finding::new(Info, object, what)
}

fn newer(available: &AvailableExtension, extension: &Extension) -> String {
    let name = ident(&extension.name);
    let enough =
        |version: &&String| compare(version, &extension.version).is_some_and(|order| order != Ordering::Less);
    match available.versions.iter().find(enough) {
        Some(version) => format!(
            "Create it on the target: CREATE EXTENSION {name} WITH SCHEMA {} VERSION '{version}';",
            ident(&extension.schema)
        ),
        None => "Install a newer package on the target's host, or leave it out with --exclude-extension."
            .to_owned(),
    }
}

/// Compares versions number by number, `1.10` after `1.9`; `None` where they aren't made of numbers.
fn compare(a: &str, b: &str) -> Option<Ordering> {
    if a == b {
        return Some(Ordering::Equal);
    }
    let numbers =
        |text: &str| text.split(['.', '-']).map(|part| part.parse::<u64>().ok()).collect::<Option<Vec<_>>>();
    let order = numbers(a)?.cmp(&numbers(b)?);
    Some(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_their_numbers() {
        assert_eq!(compare("1.9", "1.10"), Some(Ordering::Less));
        assert_eq!(compare("3.4.2", "3.4"), Some(Ordering::Greater));
        assert_eq!(compare("unpackaged", "unpackaged"), Some(Ordering::Equal));
        assert_eq!(compare("1.0dev", "1.0"), None);
    }
}
