//! The fixture database (`tests/fixtures`): every kind of object, awkward names and values.

use super::{Cluster, Database, run};
use std::path::Path;

/// Files for every major, in order; then, for each major from 11 on, the file of what it brought, if it has one.
const FILES: [&str; 5] = ["roles.sql", "app.sql", "rows.sql", "values.sql", "rare.sql"];

/// A fresh copy of the fixture on a server; dropped with the handle.
pub(crate) fn fixture(cluster: &Cluster) -> Database<'_> {
    // Subscriptions and roles are the whole server's: two loads at once would meet there.
    run::exclusively(&format!("fixture-{}", cluster.port()), || {
        let database = cluster.create_database_with("fixture", "TEMPLATE template0");
        load(&database);
        database
    })
}

fn load(database: &Database<'_>) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    FILES.iter().for_each(|file| database.load(&directory.join(file)));
    for major in 11..=database.cluster().major() {
        let file = directory.join(format!("from_{major}.sql"));
        if file.exists() {
            database.load(&file);
        }
    }
}
