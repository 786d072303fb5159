//! CPU profiles on request, in the format of Google's pprof: `go tool pprof http://host/debug/pprof/profile?seconds=10`.
//!
//! Stacks are sampled by the library `pprof` on a timer of CPU time; here they become a `perftools.profiles.Profile`
//! (`profile.proto` of google/pprof), compressed with gzip as the format asks for. One profile is taken at a time, and none
//! for longer than two minutes.

use std::collections::HashMap;
use std::io::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use axum::Router;
use axum::extract::Query;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{StatusCode, header};
use pprof::{Frames, ProfilerGuardBuilder, Report, Symbol};
use prost::Message;
use serde::Deserialize;
use tokio::sync::Semaphore;

use crate::receive::plain;

/// Samples per second of CPU time: not a divisor of usual intervals, so that periodic work is not over- or underrated.
const FREQUENCY: i32 = 99;
/// When the request does not say.
const USUAL_SECONDS: u64 = 30;
/// The longest that a profile may take.
pub const MAX_SECONDS: u64 = 120;

/// The timer of CPU time is one for the process.
static ONE_AT_A_TIME: Semaphore = Semaphore::const_new(1);

/// `/debug/pprof/` and `/debug/pprof/profile?seconds=N`, for a router whose requests may take [`MAX_SECONDS`].
pub fn router() -> Router {
    Router::new()
        .route("/debug/pprof/", get(|| async { Html(INDEX) }))
        .route("/debug/pprof/profile", get(|Query(asked): Query<Asked>| async move { profile(asked.seconds).await }))
        .route("/debug/pprof/{other}", get(|| async { plain(StatusCode::NOT_FOUND, "only CPU profiles are taken: /debug/pprof/profile") }))
}

const INDEX: &str = "<!doctype html><title>pprof</title><h1>Profiles</h1>\
    <p><a href=\"profile?seconds=10\">profile?seconds=10</a>: where CPU time goes, for <code>go tool pprof</code>; 30 seconds \
    unless <code>seconds</code> says otherwise, at most 120, one at a time.</p>";

#[derive(Deserialize)]
struct Asked {
    seconds: Option<u64>,
}

async fn profile(seconds: Option<u64>) -> Response {
    let seconds = seconds.unwrap_or(USUAL_SECONDS);
    if !(1..=MAX_SECONDS).contains(&seconds) {
        return plain(StatusCode::BAD_REQUEST, &format!("seconds must be between 1 and {MAX_SECONDS}"));
    }
    let Ok(_turn) = ONE_AT_A_TIME.try_acquire() else {
        return plain(StatusCode::CONFLICT, "another profile is being taken; try again when it is done");
    };
    tracing::info!(seconds, "a CPU profile is taken");
    match sample(Duration::from_secs(seconds)).await {
        Ok(profile) => {
            let name = "attachment; filename=\"profile.pb.gz\"";
            ([(header::CONTENT_TYPE, "application/octet-stream"), (header::CONTENT_DISPOSITION, name)], profile).into_response()
        }
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &format!("taking a profile: {error}")),
    }
}

async fn sample(time: Duration) -> Result<Vec<u8>, String> {
    // Unwinding from within these may wait for locks that the interrupted thread holds.
    let unsafe_to_unwind = ["libc", "libgcc", "pthread", "vdso"];
    let builder = ProfilerGuardBuilder::default().frequency(FREQUENCY).blocklist(&unsafe_to_unwind);
    let guard = builder.build().map_err(|error| error.to_string())?;
    tokio::time::sleep(time).await;
    let encoded = tokio::task::spawn_blocking(move || {
        let report = guard.report().build().map_err(|error| error.to_string())?;
        let mut compressed = GzEncoder::new(Vec::new(), Compression::fast());
        let written = compressed.write_all(&Encoder::encode(&report).encode_to_vec()).and_then(|()| compressed.finish());
        written.map_err(|error| error.to_string())
    });
    encoded.await.map_err(|error| error.to_string())?
}

/// `perftools.profiles.Profile`, as far as CPU profiles need it.
#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
}

/// Both are indices into the string table.
#[derive(Clone, Copy, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    label: Vec<Label>,
}

/// Both are indices into the string table.
#[derive(Clone, Copy, PartialEq, Message)]
struct Label {
    #[prost(int64, tag = "1")]
    key: i64,
    #[prost(int64, tag = "2")]
    str: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

/// Names are indices into the string table.
#[derive(Clone, Copy, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "3")]
    system_name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
}

/// Gives each text, function and place its number.
struct Encoder {
    profile: Profile,
    strings: HashMap<String, i64>,
    functions: HashMap<(i64, i64), u64>,
    /// By the lines of a place, the innermost inlined function first.
    locations: HashMap<Vec<(u64, i64)>, u64>,
}

impl Encoder {
    fn encode(report: &Report) -> Profile {
        let mut encoder =
            Encoder { profile: Profile::default(), strings: HashMap::new(), functions: HashMap::new(), locations: HashMap::new() };
        encoder.string("");
        let mut kind = |kind, unit| ValueType { kind: encoder.string(kind), unit: encoder.string(unit) };
        let (samples, cpu) = (kind("samples", "count"), kind("cpu", "nanoseconds"));
        let period = 1_000_000_000 / i64::from(report.timing.frequency.max(1));
        encoder.profile.sample_type = vec![samples, cpu];
        (encoder.profile.period_type, encoder.profile.period) = (Some(cpu), period);
        let nanos = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        encoder.profile.time_nanos = nanos(report.timing.start_time.duration_since(UNIX_EPOCH).unwrap_or_default());
        encoder.profile.duration_nanos = nanos(report.timing.duration);
        for (frames, count) in &report.data {
            encoder.sample(frames, *count as i64, period);
        }
        encoder.profile
    }

    fn sample(&mut self, frames: &Frames, count: i64, period: i64) {
        let location_id = frames.frames.iter().map(|symbols| self.location(symbols)).collect();
        let label = Label { key: self.string("thread"), str: self.string(&frames.thread_name) };
        self.profile.sample.push(Sample { location_id, value: vec![count, count.saturating_mul(period)], label: vec![label] });
    }

    fn location(&mut self, symbols: &[Symbol]) -> u64 {
        let lines: Vec<(u64, i64)> = symbols.iter().map(|symbol| (self.function(symbol), i64::from(symbol.lineno()))).collect();
        if let Some(id) = self.locations.get(&lines) {
            return *id;
        }
        let id = self.locations.len() as u64 + 1;
        let line = lines.iter().map(|&(function_id, line)| Line { function_id, line }).collect();
        self.profile.location.push(Location { id, line });
        self.locations.insert(lines, id);
        id
    }

    fn function(&mut self, symbol: &Symbol) -> u64 {
        let (name, filename) = (self.string(&symbol.name()), self.string(&symbol.filename()));
        if let Some(id) = self.functions.get(&(name, filename)) {
            return *id;
        }
        let id = self.functions.len() as u64 + 1;
        let system_name = self.string(&symbol.sys_name());
        self.profile.function.push(Function { id, name, system_name, filename });
        self.functions.insert((name, filename), id);
        id
    }

    fn string(&mut self, text: &str) -> i64 {
        if let Some(index) = self.strings.get(text) {
            return *index;
        }
        let index = self.profile.string_table.len() as i64;
        self.profile.string_table.push(text.to_owned());
        self.strings.insert(text.to_owned(), index);
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    /// Takes a profile of a thread that does nothing but call this.
    #[inline(never)]
    fn burns_time(until: std::time::Instant) -> u64 {
        let mut sum = 0u64;
        while std::time::Instant::now() < until {
            for n in 0..1000u64 {
                sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(n));
            }
        }
        sum
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_profile_names_what_used_the_time_and_there_is_one_at_a_time() {
        let burning = tokio::task::spawn_blocking(|| burns_time(std::time::Instant::now() + Duration::from_secs(4)));
        let taken = tokio::spawn(profile(Some(2)));
        while ONE_AT_A_TIME.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(profile(Some(1)).await.status(), StatusCode::CONFLICT);
        let response = taken.await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        burning.await.unwrap();
        let body = axum::body::to_bytes(response.into_body(), 10 << 20).await.unwrap();
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut bytes).unwrap();
        let profile = Profile::decode(&bytes[..]).unwrap();

        assert_eq!(profile.string_table[0], "");
        let text = |index: i64| profile.string_table[index as usize].as_str();
        assert_eq!(
            profile.sample_type.iter().map(|t| (text(t.kind), text(t.unit))).collect::<Vec<_>>(),
            [("samples", "count"), ("cpu", "nanoseconds")]
        );
        let functions: HashMap<u64, &str> = profile.function.iter().map(|f| (f.id, text(f.name))).collect();
        let locations: HashMap<u64, &Location> = profile.location.iter().map(|l| (l.id, l)).collect();
        let burnt = |sample: &Sample| {
            let lines = sample.location_id.iter().flat_map(|id| &locations[id].line);
            lines.into_iter().any(|line| functions[&line.function_id].contains("burns_time"))
        };
        let count: i64 = profile.sample.iter().filter(|sample| burnt(sample)).map(|sample| sample.value[0]).sum();
        // Two seconds at 99 a second, on a machine that may be busy.
        assert!((20..=250).contains(&count), "{count} samples of burns_time among {}", profile.sample.len());
        assert!(profile.sample.iter().all(|sample| sample.value[1] == sample.value[0] * profile.period));
        assert!(profile.duration_nanos >= 2_000_000_000);
    }

    #[tokio::test]
    async fn times_out_of_bounds_are_refused() {
        for seconds in [0, MAX_SECONDS + 1, u64::MAX] {
            assert_eq!(profile(Some(seconds)).await.status(), StatusCode::BAD_REQUEST, "{seconds}");
        }
    }
}
