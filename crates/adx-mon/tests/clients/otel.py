"""Sends logs, metrics and traces with the OpenTelemetry SDK over OTLP, and prints the ids it used.

Usage: otel.py ENDPOINT [grpc]
"""
import json
import logging
import sys

from opentelemetry import metrics, trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import Counter, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

endpoint = sys.argv[1]
if sys.argv[2:] == ["grpc"]:
    from grpc import Compression
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    def exporter(kind, signal, **options):
        return kind(endpoint=endpoint, insecure=True, compression=Compression.Gzip, **options)
else:
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    def exporter(kind, signal, **options):
        compression = Compression.Gzip if signal == "traces" else Compression.NoCompression
        return kind(f"{endpoint}/v1/{signal}", compression=compression, **options)

resource = Resource.create({"service.name": "end-to-end", "service.instance.id": "1"})
attributes = {
    "text": 'grüße, "quoted"',
    "flag": True,
    "whole": 42,
    "real": 1.5,
    "texts": ["a", "b"],
    "wholes": [1, 2],
    "flags": [True, False],
}
# Without a destination of its own, a record goes to the default one, where there is one.
routing = {"kusto.database": "Logs", "kusto.table": "App"} if sys.argv[2:] == ["grpc"] else {}

spans = TracerProvider(resource=resource)
spans.add_span_processor(BatchSpanProcessor(exporter(OTLPSpanExporter, "traces")))
logs = LoggerProvider(resource=resource)
logs.add_log_record_processor(BatchLogRecordProcessor(exporter(OTLPLogExporter, "logs")))
meters = MeterProvider(
    resource=resource,
    metric_readers=[PeriodicExportingMetricReader(exporter(OTLPMetricExporter, "metrics"), export_interval_millis=60000)],
    views=[
        View(instrument_name="latency", aggregation=ExplicitBucketHistogramAggregation([0.5, 1.0, 5.0])),
        View(instrument_name="sizes", aggregation=ExponentialBucketHistogramAggregation()),
    ],
)
deltas = exporter(OTLPMetricExporter, "metrics", preferred_temporality={Counter: AggregationTemporality.DELTA})
delta_meters = MeterProvider(resource=resource, metric_readers=[PeriodicExportingMetricReader(deltas, export_interval_millis=60000)])

tracer = spans.get_tracer("scope", "1.0")
logger = logs.get_logger("scope")
with tracer.start_as_current_span("parent", kind=SpanKind.SERVER) as parent:
    with tracer.start_as_current_span(
        "child", kind=SpanKind.CLIENT, attributes=attributes, links=[Link(parent.get_span_context(), {"why": "test"})]
    ) as child:
        child.add_event("something happened", {"detail": "x"})
        child.set_status(Status(StatusCode.ERROR, "broken"))
        child_id = child.get_span_context().span_id
    context = parent.get_span_context()
    logger.emit(
        severity_number=SeverityNumber.ERROR,
        severity_text="ERROR",
        body="a line, with a comma",
        attributes={**attributes, **routing},
    )

meter = meters.get_meter("scope")
counter = meter.create_counter("requests_total")
counter.add(3, {"route": "/a"})
counter.add(4, {"route": "/a"})
meter.create_up_down_counter("queue_length").add(3)
latency = meter.create_histogram("latency")
for value in (0.1, 0.6, 3.0, 20.0):
    latency.record(value)
meter.create_gauge("temperature").set(21.5, {"place": "room"})
sizes = meter.create_histogram("sizes")
for value in (1, 10, 100):
    sizes.record(value)
delta = delta_meters.get_meter("scope").create_counter("delta_total")
delta.add(2)
delta_meters.force_flush()
delta.add(3)

for provider in (spans, logs, meters, delta_meters):
    if provider.force_flush() is False:
        sys.exit(f"{provider} could not be flushed")
    provider.shutdown()
print(json.dumps({"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}", "child_id": f"{child_id:016x}"}))
