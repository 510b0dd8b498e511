//! What the program traces, handed to the printer like all its messages.

use std::fmt;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use super::journal::Level;
use super::ui::Ui;

/// Sends what is traced to the printer: warnings, more with each `-v`, only errors with `-q`.
pub(super) fn start(ui: &Ui) {
    let manner = ui.manner();
    let level = match (manner.quiet, manner.verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => LevelFilter::WARN,
        (false, 1) => LevelFilter::INFO,
        (false, 2) => LevelFilter::DEBUG,
        (false, _) => LevelFilter::TRACE,
    };
    let subscriber = tracing_subscriber::registry().with(Printer(ui.clone()).with_filter(level));
    // A second call in one process finds the first one's subscriber, which is as good.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// `pgstream: debug: message (key=value, …)`.
struct Printer(Ui);

impl<S: Subscriber> Layer<S> for Printer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = match *event.metadata().level() {
            tracing::Level::ERROR => Level::Error,
            tracing::Level::WARN => Level::Warning,
            tracing::Level::INFO => Level::Info,
            tracing::Level::DEBUG => Level::Debug,
            tracing::Level::TRACE => Level::Trace,
        };
        let mut fields = Fields::default();
        event.record(&mut fields);
        if !fields.others.is_empty() {
            fields.message.push_str(&format!(" ({})", fields.others.join(", ")));
        }
        self.0.trace(level, &fields.message);
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<String>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            // What crates that use `log` put there about themselves.
            name if name.starts_with("log.") => {}
            name => self.others.push(format!("{name}={value:?}")),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = value.to_owned(),
            name => self.others.push(format!("{name}={value}")),
        }
    }
}
