//! Counters of a running migration; who shows them is `cli`'s matter.
//!
//! In: additions by the workers, from any thread. Out: [`Progress::snapshot`], a consistent enough picture for a person. Nothing here fails.

mod stream;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

pub use stream::{StreamProgress, StreamSnapshot};

/// What a migration is doing, and how far it is. Shared by reference.
#[derive(Debug, Default)]
pub struct Progress {
    bytes: AtomicU64,
    bytes_total: AtomicU64,
    bytes_moved: AtomicU64,
    rows: AtomicU64,
    parts: AtomicU64,
    parts_total: AtomicU64,
    items: AtomicU64,
    items_total: AtomicU64,
    stream: Arc<StreamProgress>,
    text: Mutex<Text>,
    databases: Mutex<Vec<Member>>,
}

#[derive(Debug, Default, Clone)]
struct Text {
    phase: &'static str,
    active: Vec<String>,
    builds: Vec<String>,
    notes: Vec<Note>,
}

/// One of the databases of a whole server.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its counters.
    pub progress: Arc<Progress>,
    /// Nothing more is done in it.
    pub ended: bool,
    /// Why it ended, where that was not as it should.
    pub error: Option<String>,
}

/// Something that the operator should know, shown once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The database that it is about, where there are several.
    pub database: Option<String>,
    /// Whether something may be wrong.
    pub warning: bool,
    /// One line, lower case, no full stop.
    pub text: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// The counters at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// What is being done, such as `copying rows`.
    pub phase: &'static str,
    /// Bytes of rows sent to the target so far, parts of earlier runs included as estimated.
    pub bytes: u64,
    /// Estimated bytes of all rows.
    pub bytes_total: u64,
    /// Bytes of rows that this run has sent.
    pub bytes_moved: u64,
    /// Rows of finished parts of this run.
    pub rows: u64,
    /// Finished parts.
    pub parts: u64,
    /// Parts in all.
    pub parts_total: u64,
    /// Finished items of the schema.
    pub items: u64,
    /// Items in all.
    pub items_total: u64,
    /// What workers are at, such as `copy public.film`.
    pub active: Vec<String>,
    /// Indexes that are being built, with how far they are, such as `index on public.film: building index 45 %`.
    pub builds: Vec<String>,
    /// Of a whole server's databases, those that are done with, and all.
    pub databases: (u64, u64),
}

/// Takes its name off the list of what is active when dropped.
#[derive(Debug)]
pub struct Active<'a> {
    progress: &'a Progress,
    name: String,
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        let mut text = self.progress.text();
        if let Some(at) = text.active.iter().position(|name| *name == self.name) {
            text.active.remove(at);
        }
    }
}

impl Progress {
    fn text(&self) -> std::sync::MutexGuard<'_, Text> {
        // The text is whole after every statement, so a panic elsewhere leaves nothing broken in it.
        self.text.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The counters of the stream, once there is one.
    pub fn stream(&self) -> &Arc<StreamProgress> {
        &self.stream
    }

    /// Names what is being done from here on.
    pub fn set_phase(&self, phase: &'static str) {
        self.text().phase = phase;
    }

    /// Sets what the whole copy will be, and what earlier runs have done of it.
    pub fn set_parts(&self, done: u64, total: u64, bytes_done: u64, bytes_total: u64) {
        self.parts.store(done, Ordering::Relaxed);
        self.parts_total.store(total, Ordering::Relaxed);
        self.bytes.store(bytes_done, Ordering::Relaxed);
        self.bytes_total.store(bytes_total, Ordering::Relaxed);
    }

    /// Sets how many items of the schema there are, and how many earlier runs have made.
    pub fn set_items(&self, done: u64, total: u64) {
        self.items.store(done, Ordering::Relaxed);
        self.items_total.store(total, Ordering::Relaxed);
    }

    /// Bytes of rows have been sent to the target.
    pub fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bytes_moved.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A part has been committed.
    pub fn add_part(&self, rows: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.parts.fetch_add(1, Ordering::Relaxed);
    }

    /// Items of the schema have been committed.
    pub fn add_items(&self, items: u64) {
        self.items.fetch_add(items, Ordering::Relaxed);
    }

    /// A worker begins `name`; it ends when the result is dropped.
    pub fn begin(&self, name: String) -> Active<'_> {
        self.text().active.push(name.clone());
        Active { progress: self, name }
    }

    /// Says how far the indexes are that are being built, in place of what was said before.
    pub fn set_builds(&self, builds: Vec<String>) {
        self.text().builds = builds;
    }

    /// Whether a worker is at something whose name begins so.
    pub fn is_active(&self, prefixes: &[&str]) -> bool {
        self.text().active.iter().any(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)))
    }

    /// Something the operator should know now, shown once: one line, lower case, no full stop.
    pub fn note(&self, note: impl Into<String>) {
        let note = Note { database: None, warning: false, text: note.into(), hint: None };
        self.text().notes.push(note);
    }

    /// Something that may be wrong, and what to do about it.
    pub fn warn(&self, text: impl Into<String>, hint: Option<String>) {
        self.text().notes.push(Note { database: None, warning: true, text: text.into(), hint });
    }

    /// Takes the notes that have not been shown, those of databases included.
    pub fn take_notes(&self) -> Vec<Note> {
        let mut notes = std::mem::take(&mut self.text().notes);
        for member in self.members().iter() {
            let named = |note| Note { database: Some(member.name.clone()), ..note };
            notes.extend(member.progress.take_notes().into_iter().map(named));
        }
        notes
    }

    fn members(&self) -> std::sync::MutexGuard<'_, Vec<Member>> {
        // As for the text.
        self.databases.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The counters of a database of a whole server; [`snapshot`](Self::snapshot) adds them to its own.
    pub fn add_database(&self, name: &str) -> Arc<Progress> {
        let progress = Arc::new(Progress::default());
        self.members().push(Member {
            name: name.to_owned(),
            progress: progress.clone(),
            ended: false,
            error: None,
        });
        progress
    }

    /// Nothing more is done in that database; the error if it failed.
    pub fn end_database(&self, name: &str, error: Option<String>) {
        if let Some(member) = self.members().iter_mut().find(|member| member.name == name) {
            member.ended = true;
            member.error = error;
        }
    }

    /// The databases of a whole server, in the order in which they were added; none where there is only one.
    pub fn databases(&self) -> Vec<Member> {
        self.members().clone()
    }

    /// The counters now.
    pub fn snapshot(&self) -> Snapshot {
        let mut sum = self.own_snapshot();
        for member in self.members().iter() {
            let one = member.progress.snapshot();
            sum.databases.0 += u64::from(member.ended);
            sum.databases.1 += 1;
            sum.bytes += one.bytes;
            sum.bytes_total += one.bytes_total;
            sum.bytes_moved += one.bytes_moved;
            sum.rows += one.rows;
            sum.parts += one.parts;
            sum.parts_total += one.parts_total;
            sum.items += one.items;
            sum.items_total += one.items_total;
            sum.builds.extend(one.builds.iter().map(|build| format!("{}: {build}", member.name)));
            if !member.ended && !one.phase.is_empty() {
                sum.active.push(format!("{}: {}", member.name, one.phase));
            }
        }
        sum
    }

    fn own_snapshot(&self) -> Snapshot {
        let text = self.text();
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Snapshot {
            phase: text.phase,
            bytes: load(&self.bytes),
            bytes_total: load(&self.bytes_total),
            bytes_moved: load(&self.bytes_moved),
            rows: load(&self.rows),
            parts: load(&self.parts),
            parts_total: load(&self.parts_total),
            items: load(&self.items),
            items_total: load(&self.items_total),
            active: text.active.clone(),
            builds: text.builds.clone(),
            databases: (0, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_active_ends_with_its_guard() {
        let progress = Progress::default();
        let first = progress.begin("a".to_owned());
        let second = progress.begin("b".to_owned());
        drop(first);
        assert_eq!(progress.snapshot().active, ["b"]);
        drop(second);
        assert!(progress.snapshot().active.is_empty());
    }

    #[test]
    fn a_whole_server_is_the_sum_of_its_databases() {
        let server = Progress::default();
        let (a, b) = (server.add_database("a"), server.add_database("b"));
        a.set_parts(1, 2, 10, 20);
        b.set_parts(0, 3, 0, 30);
        b.set_phase("copying rows");
        b.note("hello");
        server.end_database("a", None);
        let now = server.snapshot();
        assert_eq!((now.parts, now.parts_total, now.bytes, now.bytes_total), (1, 5, 10, 50));
        assert_eq!((now.databases, now.active), ((1, 2), vec!["b: copying rows".to_owned()]));
        let notes = server.take_notes();
        assert_eq!((notes.len(), notes[0].database.as_deref()), (1, Some("b")));
        assert!(server.take_notes().is_empty());
    }
}
