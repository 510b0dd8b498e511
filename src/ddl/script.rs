//! A plan as a script for psql.

use super::{Plan, Section};

/// The settings under which the statements of a plan run, on whatever session: names resolve only where they are qualified, and
/// functions may name what comes later.
const SETTINGS: [&str; 9] = [
    "SET statement_timeout = 0",
    "SET lock_timeout = 0",
    "SET idle_in_transaction_session_timeout = 0",
    "SET client_encoding = 'UTF8'",
    "SET standard_conforming_strings = on",
    "SELECT pg_catalog.set_config('search_path', '', false)",
    "SET check_function_bodies = false",
    "SET client_min_messages = warning",
    "SET row_security = off",
];

/// Writes the statements of the plan's `sections`, in order, for psql to run. What is left out is listed at the end.
pub fn script(plan: &Plan, sections: &[Section]) -> String {
    let mut text = String::new();
    let mut push = |statement: &str| {
        text.push_str(statement);
        text.push_str(";\n");
    };
    SETTINGS.iter().for_each(|s| push(s));
    for item in plan.items.iter().filter(|i| sections.contains(&i.section)) {
        let statements = || item.create.iter().chain(&item.decorate);
        if statements().next().is_none() {
            continue;
        }
        text.push_str("\n-- ");
        text.push_str(&one_line(&item.key()));
        text.push('\n');
        for statement in statements() {
            text.push_str(statement);
            text.push_str(";\n");
        }
    }
    for left in &plan.not_copied {
        let line = format!("\n-- not copied: {} {}: {}", left.kind, left.name, left.reason);
        text.push_str(&format!("\n{}\n", one_line(line.trim_start())));
    }
    text
}

/// A name may hold a line break, which would end the comment.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}
