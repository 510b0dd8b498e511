//! Shows the progress of long work: bars on a terminal, a line now and then elsewhere.

use std::future::Future;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use pgstream_proto::lsn::Lsn;
use serde_json::{Value, json};

use super::size;
use super::ui::Ui;
use crate::progress::{Progress, Snapshot, StreamSnapshot};

/// Nothing is shown of work that is over before.
const PATIENCE: Duration = Duration::from_millis(250);
/// Between two looks at the counters.
const TICK: Duration = Duration::from_millis(100);
/// Between two lines where no bars can be; and while a source is followed, which may be for days.
const LINE: Duration = Duration::from_secs(5);
const FOLLOWING: Duration = Duration::from_secs(30);
/// How far back the rate looks.
const WINDOW: Duration = Duration::from_secs(15);

/// Runs `work` and shows what it counts in `progress`, until it ends.
pub(super) async fn show<T>(ui: &Ui, progress: &Progress, work: impl Future<Output = T>) -> T {
    let mut view = View::new(ui);
    let mut ticks = tokio::time::interval(TICK);
    tokio::pin!(work);
    let result = loop {
        tokio::select! {
            result = &mut work => break result,
            _ = ticks.tick() => view.tick(ui, progress),
        }
    };
    view.finish(ui);
    show_notes(ui, progress);
    result
}

fn show_notes(ui: &Ui, progress: &Progress) {
    progress.take_notes().iter().for_each(|note| ui.report(note));
}

struct View {
    begun: Instant,
    bars: Option<Bars>,
    /// Where no bars can be: when the next line is due.
    next_line: Duration,
    /// Bytes moved at moments of the last seconds, oldest first.
    samples: Vec<(Instant, u64)>,
}

struct Bars {
    all: MultiProgress,
    phase: ProgressBar,
    bytes: ProgressBar,
    items: ProgressBar,
    builds: ProgressBar,
    active: ProgressBar,
}

impl View {
    fn new(ui: &Ui) -> View {
        let bars = (ui.has_terminal() && !ui.manner().quiet).then(Bars::new);
        View { begun: Instant::now(), bars, next_line: Duration::from_secs(2), samples: Vec::new() }
    }

    fn tick(&mut self, ui: &Ui, progress: &Progress) {
        show_notes(ui, progress);
        let elapsed = self.begun.elapsed();
        let snapshot = progress.snapshot();
        let rate = self.rate(snapshot.bytes_moved);
        match &self.bars {
            Some(bars) if elapsed >= PATIENCE => {
                ui.set_bars(Some(bars.all.clone()));
                bars.draw(&snapshot, rate);
                bars.draw_stream(&progress.stream().snapshot());
            }
            _ => {}
        }
        // Where bars are drawn, the line is for the log file alone.
        if elapsed >= self.next_line {
            let following = progress.stream().snapshot();
            ui.progress(&(line(&snapshot, rate) + &stream(&following)), numbers(&snapshot, &following, rate));
            let in_step = following.applied != Lsn::INVALID;
            self.next_line = elapsed + if in_step { FOLLOWING } else { LINE };
        }
    }

    /// Bytes per second over the last seconds, of what this run moves.
    fn rate(&mut self, bytes: u64) -> f64 {
        let now = Instant::now();
        self.samples.retain(|&(at, _)| now.duration_since(at) < WINDOW);
        self.samples.push((now, bytes));
        match self.samples.first() {
            Some(&(at, first)) if now > at => {
                bytes.saturating_sub(first) as f64 / now.duration_since(at).as_secs_f64()
            }
            _ => 0.0,
        }
    }

    fn finish(&self, ui: &Ui) {
        ui.set_bars(None);
        if let Some(bars) = &self.bars {
            for bar in [&bars.phase, &bars.bytes, &bars.items, &bars.builds, &bars.active] {
                bar.finish_and_clear();
            }
        }
    }
}

impl Bars {
    fn new() -> Bars {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        // The templates are constants: one that can't be read would only lose its look.
        let style = |template: &str| {
            ProgressStyle::with_template(template)
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .progress_chars("=> ")
                .tick_chars("-\\|/ ")
        };
        let bar = |template: &str| all.add(ProgressBar::hidden().with_style(style(template)));
        let bars = Bars {
            phase: bar("{spinner} {msg} ({elapsed})"),
            // A terminal of 80 columns must hold it: what is too long is cut, not wrapped.
            bytes: bar("  rows  [{bar:20}] {percent:>3}% {wide_msg}"),
            items: bar("  items [{bar:20}] {pos} of {len}"),
            builds: bar("  {wide_msg}"),
            active: bar("  {wide_msg}"),
            all: all.clone(),
        };
        bars.all.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        bars
    }

    fn draw(&self, now: &Snapshot, rate: f64) {
        self.phase.set_message(if now.phase.is_empty() { "starting" } else { now.phase });
        self.phase.tick();
        if now.parts_total > 0 {
            self.bytes.set_length(now.bytes_total.max(1));
            self.bytes.set_position(now.bytes.min(now.bytes_total));
            self.bytes.set_message(amounts(now, rate));
        }
        if now.items_total > 0 {
            self.items.set_length(now.items_total);
            self.items.set_position(now.items);
        }
        let builds = now.builds.join(", ");
        // No row for them before there is one.
        if self.builds.message() != builds {
            self.builds.set_message(builds);
        }
        self.active.set_message(now.active.join(", "));
    }

    fn draw_stream(&self, now: &StreamSnapshot) {
        if now.applied != Lsn::INVALID {
            self.active.set_message(stream(now).trim_start_matches(": ").to_owned());
        }
    }
}

/// The counters behind the line, for programs.
fn numbers(now: &Snapshot, stream: &StreamSnapshot, rate: f64) -> Value {
    let mut numbers = json!({
        "phase": now.phase,
        "databases_done": now.databases.0,
        "databases": now.databases.1,
        "bytes_done": now.bytes,
        "bytes": now.bytes_total,
        "bytes_per_second": rate.round(),
        "parts_done": now.parts,
        "parts": now.parts_total,
        "items_done": now.items,
        "items": now.items_total,
        "active": now.active,
        "builds": now.builds,
    });
    if stream.applied != Lsn::INVALID {
        numbers["applied_lsn"] = json!(stream.applied.to_string());
        numbers["source_lsn"] = json!(stream.source.to_string());
        numbers["lag_bytes"] = json!(stream.source.0.saturating_sub(stream.applied.0));
        numbers["transactions"] = json!(stream.transactions);
    }
    numbers
}

fn amounts(now: &Snapshot, rate: f64) -> String {
    let mut text = format!(
        "{} of {}, {} of {}",
        now.parts,
        size::count(now.parts_total, "part", "parts"),
        size::bytes(now.bytes),
        size::bytes(now.bytes_total.max(now.bytes)),
    );
    if rate >= 1.0 && now.bytes < now.bytes_total {
        let left = (now.bytes_total - now.bytes) as f64 / rate;
        text.push_str(&format!(", {}/s, about {} left", size::bytes(rate as u64), size::seconds(left)));
    }
    text
}

/// The line that stands in for bars: `copying rows: 3 of 8 parts, 1.2 GB of 4.0 GB, …`.
fn line(now: &Snapshot, rate: f64) -> String {
    let mut text = if now.phase.is_empty() { "starting" } else { now.phase }.to_owned();
    let (done, all) = now.databases;
    if all > 0 {
        text.push_str(&format!(": {done} of {}", size::count(all, "database", "databases")));
    }
    let rows_left = now.parts < now.parts_total;
    if rows_left {
        let separator = if all > 0 { "; " } else { ": " };
        text.push_str(&format!("{separator}{}", amounts(now, rate)));
    }
    if now.items_total > 0 && now.items < now.items_total {
        let separator = if rows_left || all > 0 { "; " } else { ": " };
        text.push_str(&format!(
            "{separator}{} of {}",
            now.items,
            size::count(now.items_total, "item", "items")
        ));
    }
    text
}

/// What follows the phase once changes are applied: `: 1,200 transactions, 12 kB behind`. Nothing before.
fn stream(now: &StreamSnapshot) -> String {
    if now.applied == Lsn::INVALID {
        return String::new();
    }
    let behind = now.source.0.saturating_sub(now.applied.0);
    format!(
        ": {} applied, at {}, {} behind",
        size::count(now.transactions, "transaction", "transactions"),
        now.applied,
        size::bytes(behind)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_left() {
        let now = Snapshot {
            phase: "copying rows",
            bytes: 1 << 30,
            bytes_total: 4 << 30,
            parts: 3,
            parts_total: 8,
            items: 10,
            items_total: 20,
            ..Snapshot::default()
        };
        assert_eq!(
            line(&now, f64::from(1 << 30)),
            "copying rows: 3 of 8 parts, 1.0 GB of 4.0 GB, 1.0 GB/s, about 3.0 s left; 10 of 20 items"
        );
        let all_copied = Snapshot { phase: "creating indexes", parts: 8, ..now };
        assert_eq!(line(&all_copied, 0.0), "creating indexes: 10 of 20 items");
    }
}
