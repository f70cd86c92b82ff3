//! The collector of spans. Without the feature `otlp` nobody could send them, so asking for them is
//! refused.

use super::super::problem::ProblemKind;
use super::super::schema::Key;
use super::super::server::RootSource;
use super::super::spans::{SPAN_SERVICE_NAME, Spans};
use super::super::value::{Name, PerMillion, Roots, Server};
use super::discovery;
use super::resolver::Resolver;

/// Why the others have no effect without a collector.
const NO_COLLECTOR: &str = "no collector of spans is given";

/// The collector, if there is one.
pub(super) fn spans(r: &mut Resolver) -> Option<Spans> {
    if !cfg!(feature = "otlp") {
        let keys = [
            Key::OtlpEndpoint,
            Key::OtlpRootCa,
            Key::OtlpServiceName,
            Key::OtlpRatio,
        ];
        for key in keys {
            if r.is_given(key) {
                let kind = ProblemKind::NotBuilt {
                    what: "sending spans".to_owned(),
                    instead: "build it with `--features otlp`",
                };
                let origin = r.origin_of(key);
                r.problem(origin, key, kind);
            }
        }
        return None;
    }
    let Some(collector) = r.optional(Key::OtlpEndpoint, &Server).flatten() else {
        discovery::check(r, Key::OtlpRootCa, &Roots, NO_COLLECTOR);
        discovery::check(r, Key::OtlpServiceName, &Name, NO_COLLECTOR);
        discovery::check(r, Key::OtlpRatio, &PerMillion, NO_COLLECTOR);
        return None;
    };
    let name = r.optional(Key::OtlpServiceName, &Name);
    Some(Spans {
        collector,
        roots: r
            .optional(Key::OtlpRootCa, &Roots)
            .unwrap_or(RootSource::System),
        service_name: name.unwrap_or_else(|| SPAN_SERVICE_NAME.into()),
        sampled_per_million: r
            .optional(Key::OtlpRatio, &PerMillion)
            .unwrap_or(PerMillion::ALL),
    })
}
