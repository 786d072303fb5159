//! The OTLP messages as tables: JSON name, field number and type of each field that the decoders read.
//!
//! Source: `opentelemetry/proto/{common,resource,logs,metrics,trace}/v1/*.proto` of OTLP 1.x. Fields that no decoder
//! reads are absent, and so are skipped in JSON as unknown ones are.

/// A message.
pub(super) struct Message {
    pub(super) fields: &'static [Field],
}

/// A field of a message.
pub(super) struct Field {
    /// lowerCamelCase name.
    pub(super) json: &'static str,
    pub(super) number: u32,
    pub(super) kind: Kind,
    pub(super) shape: Shape,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Shape {
    Single,
    Repeated,
    /// Repeated, and an element that cannot be read costs only itself.
    Records,
}

/// Type of a field: how JSON writes it and how protobuf does.
pub(super) enum Kind {
    String,
    /// Bytes as base64.
    Base64,
    /// Bytes as hexadecimal digits: trace and span ids.
    Hex,
    Bool,
    /// An integer as a varint; in JSON a number or a string.
    Unsigned,
    Signed,
    /// A zigzag integer.
    Zigzag,
    Fixed64,
    SignedFixed64,
    Fixed32,
    Double,
    /// A number, or one of these names for the values from 0.
    Enum(&'static [&'static str]),
    Message(&'static Message),
}

const fn one(json: &'static str, number: u32, kind: Kind) -> Field {
    Field { json, number, kind, shape: Shape::Single }
}

const fn many(json: &'static str, number: u32, kind: Kind) -> Field {
    Field { json, number, kind, shape: Shape::Repeated }
}

const fn records(json: &'static str, number: u32, message: &'static Message) -> Field {
    Field { json, number, kind: Kind::Message(message), shape: Shape::Records }
}

static ANY_VALUE: Message = Message {
    fields: &[
        one("stringValue", 1, Kind::String),
        one("boolValue", 2, Kind::Bool),
        one("intValue", 3, Kind::Signed),
        one("doubleValue", 4, Kind::Double),
        one("arrayValue", 5, Kind::Message(&ARRAY_VALUE)),
        one("kvlistValue", 6, Kind::Message(&KEY_VALUE_LIST)),
        one("bytesValue", 7, Kind::Base64),
    ],
};
static ARRAY_VALUE: Message = Message { fields: &[many("values", 1, Kind::Message(&ANY_VALUE))] };
static KEY_VALUE_LIST: Message = Message { fields: &[many("values", 1, Kind::Message(&KEY_VALUE))] };
static KEY_VALUE: Message = Message { fields: &[one("key", 1, Kind::String), one("value", 2, Kind::Message(&ANY_VALUE))] };

static RESOURCE: Message = Message { fields: &[many("attributes", 1, Kind::Message(&KEY_VALUE))] };
static SCOPE: Message =
    Message { fields: &[one("name", 1, Kind::String), one("version", 2, Kind::String), many("attributes", 3, Kind::Message(&KEY_VALUE))] };

pub(super) static LOGS: Message = Message { fields: &[many("resourceLogs", 1, Kind::Message(&RESOURCE_LOGS))] };
static RESOURCE_LOGS: Message =
    Message { fields: &[one("resource", 1, Kind::Message(&RESOURCE)), many("scopeLogs", 2, Kind::Message(&SCOPE_LOGS))] };
static SCOPE_LOGS: Message = Message { fields: &[one("scope", 1, Kind::Message(&SCOPE)), records("logRecords", 2, &LOG_RECORD)] };
static LOG_RECORD: Message = Message {
    fields: &[
        one("timeUnixNano", 1, Kind::Fixed64),
        one("severityNumber", 2, Kind::Enum(SEVERITIES)),
        one("severityText", 3, Kind::String),
        one("body", 5, Kind::Message(&ANY_VALUE)),
        many("attributes", 6, Kind::Message(&KEY_VALUE)),
        one("flags", 8, Kind::Fixed32),
        one("traceId", 9, Kind::Hex),
        one("spanId", 10, Kind::Hex),
        one("observedTimeUnixNano", 11, Kind::Fixed64),
        one("eventName", 12, Kind::String),
    ],
};
const SEVERITIES: &[&str] = &[
    "SEVERITY_NUMBER_UNSPECIFIED",
    "SEVERITY_NUMBER_TRACE",
    "SEVERITY_NUMBER_TRACE2",
    "SEVERITY_NUMBER_TRACE3",
    "SEVERITY_NUMBER_TRACE4",
    "SEVERITY_NUMBER_DEBUG",
    "SEVERITY_NUMBER_DEBUG2",
    "SEVERITY_NUMBER_DEBUG3",
    "SEVERITY_NUMBER_DEBUG4",
    "SEVERITY_NUMBER_INFO",
    "SEVERITY_NUMBER_INFO2",
    "SEVERITY_NUMBER_INFO3",
    "SEVERITY_NUMBER_INFO4",
    "SEVERITY_NUMBER_WARN",
    "SEVERITY_NUMBER_WARN2",
    "SEVERITY_NUMBER_WARN3",
    "SEVERITY_NUMBER_WARN4",
    "SEVERITY_NUMBER_ERROR",
    "SEVERITY_NUMBER_ERROR2",
    "SEVERITY_NUMBER_ERROR3",
    "SEVERITY_NUMBER_ERROR4",
    "SEVERITY_NUMBER_FATAL",
    "SEVERITY_NUMBER_FATAL2",
    "SEVERITY_NUMBER_FATAL3",
    "SEVERITY_NUMBER_FATAL4",
];

pub(super) static METRICS: Message = Message { fields: &[many("resourceMetrics", 1, Kind::Message(&RESOURCE_METRICS))] };
static RESOURCE_METRICS: Message =
    Message { fields: &[one("resource", 1, Kind::Message(&RESOURCE)), many("scopeMetrics", 2, Kind::Message(&SCOPE_METRICS))] };
static SCOPE_METRICS: Message = Message { fields: &[one("scope", 1, Kind::Message(&SCOPE)), many("metrics", 2, Kind::Message(&METRIC))] };
static METRIC: Message = Message {
    fields: &[
        one("name", 1, Kind::String),
        one("gauge", 5, Kind::Message(&NUMBERS)),
        one("sum", 7, Kind::Message(&NUMBERS)),
        one("histogram", 9, Kind::Message(&HISTOGRAM)),
        one("exponentialHistogram", 10, Kind::Message(&EXPONENTIAL_HISTOGRAM)),
        one("summary", 11, Kind::Message(&SUMMARY)),
    ],
};
const TEMPORALITIES: &[&str] =
    &["AGGREGATION_TEMPORALITY_UNSPECIFIED", "AGGREGATION_TEMPORALITY_DELTA", "AGGREGATION_TEMPORALITY_CUMULATIVE"];
/// `Gauge` and `Sum`; a gauge has points only.
static NUMBERS: Message = Message {
    fields: &[
        records("dataPoints", 1, &NUMBER_POINT),
        one("aggregationTemporality", 2, Kind::Enum(TEMPORALITIES)),
        one("isMonotonic", 3, Kind::Bool),
    ],
};
static NUMBER_POINT: Message = Message {
    fields: &[
        one("timeUnixNano", 3, Kind::Fixed64),
        one("asDouble", 4, Kind::Double),
        many("exemplars", 5, Kind::Message(&EXEMPLAR)),
        one("asInt", 6, Kind::SignedFixed64),
        many("attributes", 7, Kind::Message(&KEY_VALUE)),
        one("flags", 8, Kind::Unsigned),
    ],
};
static EXEMPLAR: Message = Message {
    fields: &[
        one("timeUnixNano", 2, Kind::Fixed64),
        one("asDouble", 3, Kind::Double),
        one("spanId", 4, Kind::Hex),
        one("traceId", 5, Kind::Hex),
        one("asInt", 6, Kind::SignedFixed64),
        many("filteredAttributes", 7, Kind::Message(&KEY_VALUE)),
    ],
};
static HISTOGRAM: Message =
    Message { fields: &[records("dataPoints", 1, &HISTOGRAM_POINT), one("aggregationTemporality", 2, Kind::Enum(TEMPORALITIES))] };
static HISTOGRAM_POINT: Message = Message {
    fields: &[
        one("timeUnixNano", 3, Kind::Fixed64),
        one("count", 4, Kind::Fixed64),
        one("sum", 5, Kind::Double),
        many("bucketCounts", 6, Kind::Fixed64),
        many("explicitBounds", 7, Kind::Double),
        many("exemplars", 8, Kind::Message(&EXEMPLAR)),
        many("attributes", 9, Kind::Message(&KEY_VALUE)),
        one("flags", 10, Kind::Unsigned),
    ],
};
static EXPONENTIAL_HISTOGRAM: Message =
    Message { fields: &[records("dataPoints", 1, &EXPONENTIAL_POINT), one("aggregationTemporality", 2, Kind::Enum(TEMPORALITIES))] };
static EXPONENTIAL_POINT: Message = Message {
    fields: &[
        many("attributes", 1, Kind::Message(&KEY_VALUE)),
        one("timeUnixNano", 3, Kind::Fixed64),
        one("count", 4, Kind::Fixed64),
        one("sum", 5, Kind::Double),
        one("scale", 6, Kind::Zigzag),
        one("zeroCount", 7, Kind::Fixed64),
        one("positive", 8, Kind::Message(&BUCKETS)),
        one("negative", 9, Kind::Message(&BUCKETS)),
        one("flags", 10, Kind::Unsigned),
        many("exemplars", 11, Kind::Message(&EXEMPLAR)),
        one("zeroThreshold", 14, Kind::Double),
    ],
};
static BUCKETS: Message = Message { fields: &[one("offset", 1, Kind::Zigzag), many("bucketCounts", 2, Kind::Unsigned)] };
static SUMMARY: Message = Message { fields: &[records("dataPoints", 1, &SUMMARY_POINT)] };
static SUMMARY_POINT: Message = Message {
    fields: &[
        one("timeUnixNano", 3, Kind::Fixed64),
        one("count", 4, Kind::Fixed64),
        one("sum", 5, Kind::Double),
        many("quantileValues", 6, Kind::Message(&QUANTILE)),
        many("attributes", 7, Kind::Message(&KEY_VALUE)),
        one("flags", 8, Kind::Unsigned),
    ],
};
static QUANTILE: Message = Message { fields: &[one("quantile", 1, Kind::Double), one("value", 2, Kind::Double)] };

pub(super) static TRACES: Message = Message { fields: &[many("resourceSpans", 1, Kind::Message(&RESOURCE_SPANS))] };
static RESOURCE_SPANS: Message =
    Message { fields: &[one("resource", 1, Kind::Message(&RESOURCE)), many("scopeSpans", 2, Kind::Message(&SCOPE_SPANS))] };
static SCOPE_SPANS: Message = Message { fields: &[one("scope", 1, Kind::Message(&SCOPE)), records("spans", 2, &SPAN)] };
static SPAN: Message = Message {
    fields: &[
        one("traceId", 1, Kind::Hex),
        one("spanId", 2, Kind::Hex),
        one("traceState", 3, Kind::String),
        one("parentSpanId", 4, Kind::Hex),
        one("name", 5, Kind::String),
        one("kind", 6, Kind::Enum(SPAN_KINDS)),
        one("startTimeUnixNano", 7, Kind::Fixed64),
        one("endTimeUnixNano", 8, Kind::Fixed64),
        many("attributes", 9, Kind::Message(&KEY_VALUE)),
        many("events", 11, Kind::Message(&EVENT)),
        many("links", 13, Kind::Message(&LINK)),
        one("status", 15, Kind::Message(&STATUS)),
    ],
};
const SPAN_KINDS: &[&str] =
    &["SPAN_KIND_UNSPECIFIED", "SPAN_KIND_INTERNAL", "SPAN_KIND_SERVER", "SPAN_KIND_CLIENT", "SPAN_KIND_PRODUCER", "SPAN_KIND_CONSUMER"];
static EVENT: Message = Message {
    fields: &[one("timeUnixNano", 1, Kind::Fixed64), one("name", 2, Kind::String), many("attributes", 3, Kind::Message(&KEY_VALUE))],
};
static LINK: Message = Message {
    fields: &[
        one("traceId", 1, Kind::Hex),
        one("spanId", 2, Kind::Hex),
        one("traceState", 3, Kind::String),
        many("attributes", 4, Kind::Message(&KEY_VALUE)),
    ],
};
static STATUS: Message = Message {
    fields: &[one("message", 2, Kind::String), one("code", 3, Kind::Enum(&["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"]))],
};
