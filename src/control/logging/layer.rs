//! `tracing` events → log lines of our framing (spec: telemetry 3.1).

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::filter::Filter;
use crate::telemetry::line::{Fields, Head, Level, LineFormat, SpanText, push_line};
use crate::telemetry::log_limit::LogLimit;
use crate::telemetry::log_writer::LogSink;

/// Writes events that pass the filter to the log writer; never waits.
#[derive(Debug)]
pub struct LogLayer {
    filter: Arc<ArcSwap<Filter>>,
    sink: LogSink,
    /// Warnings of the DNS library, which strangers can cause with forged replies.
    resolver: LogLimit,
}

/// Beginning of the targets of the DNS library.
const RESOLVER: &str = "hickory_";

fn level_of(level: tracing::Level) -> Level {
    match level {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warn,
        tracing::Level::INFO => Level::Info,
        tracing::Level::DEBUG => Level::Debug,
        tracing::Level::TRACE => Level::Trace,
    }
}

impl LogLayer {
    pub(super) const fn new(filter: Arc<ArcSwap<Filter>>, sink: LogSink) -> Self {
        Self {
            filter,
            sink,
            resolver: LogLimit::new(),
        }
    }

    fn allows(&self, metadata: &Metadata<'_>) -> bool {
        level_of(*metadata.level()) <= self.filter.load().level(metadata.target())
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LogLayer {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        // Asked again whenever the filter changes.
        if self.allows(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _context: Context<'_, S>) -> bool {
        self.allows(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match self.filter.load().max() {
            Level::Off => LevelFilter::OFF,
            Level::Error => LevelFilter::ERROR,
            Level::Warn => LevelFilter::WARN,
            Level::Info => LevelFilter::INFO,
            Level::Debug => LevelFilter::DEBUG,
            Level::Trace => LevelFilter::TRACE,
        })
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = String::new();
        attributes.record(&mut Visitor::new(&mut fields, self.sink.format()));
        let name = span.name();
        span.extensions_mut().insert(SpanText { name, fields });
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(text) = span.extensions_mut().get_mut::<SpanText>() {
            values.record(&mut Visitor::new(&mut text.fields, self.sink.format()));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        if metadata.target().starts_with(RESOLVER)
            && *metadata.level() <= tracing::Level::INFO
            && self.resolver.admit_now().is_none()
        {
            return;
        }
        let format = self.sink.format();
        let mut fields = String::new();
        let mut visitor = Visitor::new(&mut fields, format);
        event.record(&mut visitor);
        let message = visitor.message;
        let mut spans = Vec::new();
        for span in context
            .event_scope(event)
            .into_iter()
            .flat_map(|scope| scope.from_root())
        {
            spans.extend(span.extensions().get::<SpanText>().cloned());
        }
        let level = level_of(*event.metadata().level());
        let head = Head {
            time: SystemTime::now(),
            level,
            target: event.metadata().target(),
            spans: &spans,
            message: message.as_deref(),
        };
        let mut line = String::new();
        let has_fields = !fields.is_empty();
        push_line(&mut line, format, &head, has_fields, |out| {
            out.written(&fields)
        });
        self.sink.line(line, level);
    }
}

/// Writes fields as they come; the message is kept apart.
struct Visitor<'a> {
    fields: Fields<'a>,
    message: Option<String>,
}

impl<'a> Visitor<'a> {
    fn new(out: &'a mut String, format: LineFormat) -> Self {
        Self {
            fields: Fields::more(out, format),
            message: None,
        }
    }
}

const MESSAGE: &str = "message";

impl Visit for Visitor<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == MESSAGE {
            self.message = Some(format!("{value:?}"));
        } else {
            self.fields.bare(field.name(), DebugText(value));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == MESSAGE {
            self.message = Some(value.to_owned());
        } else {
            self.fields.text(field.name(), value);
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.number(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.number(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.number(field.name(), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.fields.number(field.name(), value);
        } else {
            // JSON has no such number.
            self.fields.bare(field.name(), value);
        }
    }
}

/// Shows a value by its `Debug` form, which for `%value` fields is the display form.
struct DebugText<'a>(&'a dyn Debug);

impl fmt::Display for DebugText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
