"""Microsoft's queued client against kustd; prints what it was told of as JSON."""

import io
import json
import sys
import tempfile
import time

from azure.kusto.data import KustoConnectionStringBuilder
from azure.kusto.data.data_format import DataFormat
from azure.kusto.ingest import ColumnMapping, FileDescriptor, IngestionProperties, QueuedIngestClient, ReportLevel, StreamDescriptor
from azure.kusto.ingest.status import KustoIngestStatusQueues

address = sys.argv[1]
client = QueuedIngestClient(KustoConnectionStringBuilder(address))


def properties(table="T", **more):
    return IngestionProperties(database="Metrics", table=table, report_level=ReportLevel.FailuresAndSuccesses, **more)


def ready(step):
    # the storage is made while kustd starts
    for _ in range(100):
        try:
            return step()
        except Exception as error:
            last = error
            time.sleep(0.2)
    raise last


with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
    file.write("1,file\n")
    file.flush()
    ready(lambda: client.ingest_from_file(FileDescriptor(file.name), properties(ingest_by_tags=["f"], ingest_if_not_exists=["f"])))

client.ingest_from_stream(StreamDescriptor(io.BytesIO(b"n,s\n2,stream\n")), properties(ignore_first_record=True, flush_immediately=True))

mapping = [ColumnMapping("n", "long", path="$.number"), ColumnMapping("s", "string", path="$.text")]
document = json.dumps({"number": 3, "text": "json"}).encode()
client.ingest_from_stream(StreamDescriptor(io.BytesIO(document)), properties(data_format=DataFormat.JSON, column_mappings=mapping))

client.ingest_from_stream(StreamDescriptor(io.BytesIO(b"4,nowhere\n")), properties("Nope"))

queues = KustoIngestStatusQueues(client)


def take(queue, count):
    taken = []
    limit = time.monotonic() + 60
    while len(taken) < count and time.monotonic() < limit:
        taken.extend(queue.pop(count - len(taken)))
        time.sleep(0.1)
    return taken


succeeded = take(queues.success, 3)
failed = take(queues.failure, 1)
print(
    json.dumps(
        {
            "succeeded": [[message.Database, message.Table] for message in succeeded],
            "failed": [[m.Database, m.Table, m.ErrorCode, m.FailureStatus, m.ShouldRetry] for m in failed],
        }
    )
)
