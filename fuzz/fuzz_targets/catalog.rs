//! Rows of the system catalogs, up to the statements that are made of them. Input: a line with the server's version, then rows, each in a line: the number
//! of the query that it answers, a space, and the row as JSON.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use pgstream::catalog;
use pgstream::ddl::{self, Section};
use pgstream::schema::{inherit, partition};
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let Some((version, rows)) = std::str::from_utf8(data).ok().and_then(|text| text.split_once('\n')) else {
        return;
    };
    let version = version.parse().unwrap_or(180_000);
    let rows = rows.lines().filter_map(|line| line.split_once(' '));
    let rows = rows.filter_map(|(query, row)| Some((query.parse().ok()?, row.to_owned())));
    let database = match catalog::of_rows(version, rows) {
        Ok(database) => database,
        Err(error) => {
            let _ = error.to_string();
            return;
        }
    };
    partition::leaves(&database.tables);
    partition::loaded_through_root(&database, "UTF8");
    let parents = inherit::parents(&database.tables);
    for table in &database.tables {
        inherit::ancestors(&parents, table.oid);
    }
    let options = ddl::Options { database: Some("fuzz".to_owned()), ..ddl::Options::default() };
    match ddl::plan(&database, &options, 180_000) {
        Ok(plan) => {
            let sections = [Section::PreData, Section::PostData, Section::Privileges, Section::Last];
            ddl::script(&plan, &sections);
            plan.part(&(0..plan.items.len()).collect::<Vec<_>>());
        }
        Err(error) => drop(error.to_string()),
    }
});

// Bytes alone would hardly get past JSON: mostly, a value is replaced, often by one that stands elsewhere, so that objects refer to each other in ways that
// no server knows.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut random = Random(u64::from(seed) | 1 << 40);
    if random.below(8) == 0 {
        return fuzzer_mutate(data, size, max_size);
    }
    let mutated = std::str::from_utf8(&data[..size]).ok().and_then(|text| mutate(text, &mut random));
    match mutated.filter(|mutated| mutated.len() <= max_size) {
        Some(mutated) => {
            data[..mutated.len()].copy_from_slice(mutated.as_bytes());
            mutated.len()
        }
        None => fuzzer_mutate(data, size, max_size),
    }
});

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound.max(1)
    }
}

fn mutate(text: &str, random: &mut Random) -> Option<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let rows: Vec<usize> = (1..lines.len()).filter(|&at| lines[at].contains(' ')).collect();
    let at = *rows.get(random.below(rows.len()))?;
    match random.below(10) {
        0 => drop(lines.remove(at)),
        1 => lines.push(lines[at].clone()),
        _ => {
            let (query, row) = lines[at].split_once(' ')?;
            let mut row: Value = serde_json::from_str(row).ok()?;
            let (_, other) = lines[rows[random.below(rows.len())]].split_once(' ')?;
            let mut other: Value = serde_json::from_str(other).ok()?;
            let count = nodes(&mut other).len();
            let elsewhere = nodes(&mut other).swap_remove(random.below(count)).clone();
            let mut places = nodes(&mut row);
            let place = random.below(places.len());
            *places.swap_remove(place) = match random.below(12) {
                0 => Value::Null,
                1 => Value::from(0),
                2 => Value::from(-1),
                3 => Value::from(u64::MAX),
                4 => Value::from(""),
                5 => Value::from("\u{e9}\""),
                6 => Value::Array(Vec::new()),
                7 => Value::from(true),
                _ => elsewhere,
            };
            lines[at] = format!("{query} {row}");
        }
    }
    Some(lines.join("\n"))
}

/// The innermost values: those that hold no others.
fn nodes(value: &mut Value) -> Vec<&mut Value> {
    let holds_others = value.as_array().is_some_and(|values| !values.is_empty())
        || value.as_object().is_some_and(|fields| !fields.is_empty());
    if !holds_others {
        return vec![value];
    }
    match value {
        Value::Array(values) => values.iter_mut().flat_map(nodes).collect(),
        Value::Object(fields) => fields.values_mut().flat_map(nodes).collect(),
        _ => Vec::new(),
    }
}
