"""Sends logs, metrics and traces with the OpenTelemetry SDK over OTLP/HTTP, and prints the ids it used.

Usage: otel.py ENDPOINT
"""
import json
import logging
import sys

from opentelemetry import metrics, trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

endpoint = sys.argv[1]
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

spans = TracerProvider(resource=resource)
spans.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{endpoint}/v1/traces", compression=Compression.Gzip)))
logs = LoggerProvider(resource=resource)
logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(f"{endpoint}/v1/logs")))
meters = MeterProvider(
    resource=resource,
    metric_readers=[PeriodicExportingMetricReader(OTLPMetricExporter(f"{endpoint}/v1/metrics"), export_interval_millis=60000)],
    views=[View(instrument_name="latency", aggregation=ExplicitBucketHistogramAggregation([0.5, 1.0, 5.0]))],
)

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
        attributes=attributes,
    )

meter = meters.get_meter("scope")
counter = meter.create_counter("requests_total")
counter.add(3, {"route": "/a"})
counter.add(4, {"route": "/a"})
meter.create_up_down_counter("queue_length").add(3)
latency = meter.create_histogram("latency")
for value in (0.1, 0.6, 3.0, 20.0):
    latency.record(value)

for provider in (spans, logs, meters):
    if provider.force_flush() is False:
        sys.exit(f"{provider} could not be flushed")
    provider.shutdown()
print(json.dumps({"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}", "child_id": f"{child_id:016x}"}))
