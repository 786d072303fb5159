"""Uses Microsoft's azure-kusto-data and azure-kusto-ingest against a local endpoint.

Usage: kusto.py ENDPOINT
"""
import io
import json
import sys
from datetime import datetime, timedelta

from azure.kusto.data import ClientRequestProperties, KustoClient, KustoConnectionStringBuilder
from azure.kusto.data.exceptions import KustoApiError, KustoServiceError
from azure.kusto.data.data_format import DataFormat
from azure.kusto.ingest import IngestionProperties, KustoStreamingIngestClient

endpoint = sys.argv[1]
database = "NetDefaultDB"
connection = KustoConnectionStringBuilder(endpoint)
client = KustoClient(connection)


def check(got, want):
    if got != want:
        sys.exit(f"got {got!r}, expected {want!r}")


# Management.
client.execute_mgmt(database, ".create table Sdk (Name:string, Count:long, At:datetime, Span:timespan, Share:real, Ok:bool, Bag:dynamic)")
client.execute_mgmt(
    database,
    '.create-or-alter table Sdk ingestion csv mapping "ByPosition" '
    "'[" + ",".join(json.dumps({"Column": c, "DataType": t, "Properties": {"Ordinal": str(i)}}) for i, (c, t) in enumerate(
        [("Name", "string"), ("Count", "long"), ("At", "datetime"), ("Span", "timespan"), ("Share", "real"), ("Ok", "bool"), ("Bag", "dynamic")])) + "]'",
)
tables = [row["TableName"] for row in client.execute_mgmt(database, ".show tables").primary_results[0]]
check("Sdk" in tables, True)

# Streaming ingestion, CSV with a mapping and JSON lines.
ingest = KustoStreamingIngestClient(connection)
csv = 'first,1,2024-02-03T04:05:06.1234567Z,1.02:03:04.5,0.25,true,"{""k"":[1,2]}"\n"se""cond",-2,2024-02-03,00:00:01,,false,\n'
ingest.ingest_from_stream(
    io.BytesIO(csv.encode()),
    IngestionProperties(database=database, table="Sdk", data_format=DataFormat.CSV, ingestion_mapping_reference="ByPosition"),
)
client.execute_mgmt(
    database,
    '.create-or-alter table Sdk ingestion json mapping "ByPath" \'[{"column":"Name","path":"$.name"},{"column":"Count","path":"$.count"},{"column":"Bag","path":"$.bag"}]\'',
)
ingest.ingest_from_stream(
    io.BytesIO(b'{"name":"third","count":9007199254740993,"bag":{"a":{"b":"c"}}}\n'),
    IngestionProperties(database=database, table="Sdk", data_format=DataFormat.JSON, ingestion_mapping_reference="ByPath"),
)

# Queries (v2) with every type.
rows = {row["Name"]: row for row in client.execute_query(database, "Sdk | order by Count asc").primary_results[0]}
check(sorted(rows), ["first", 'se"cond', "third"])
first = rows["first"]
check(first["Count"], 1)
check(first["At"].replace(tzinfo=None), datetime(2024, 2, 3, 4, 5, 6, 123456))
check(first["Span"], timedelta(days=1, hours=2, minutes=3, seconds=4, milliseconds=500))
check(first["Share"], 0.25)
check(first["Ok"], True)
check(first["Bag"], {"k": [1, 2]})
check(rows['se"cond']["Share"], None)
check(rows["third"]["Count"], 9007199254740993)
check(rows["third"]["Bag"], {"a": {"b": "c"}})

# Query parameters.
properties = ClientRequestProperties()
properties.set_parameter("wanted", "first")
answer = client.execute_query(database, "declare query_parameters(wanted:string); Sdk | where Name == wanted | count", properties)
check(answer.primary_results[0][0]["Count"], 1)

# Errors.
try:
    client.execute_query(database, "Sdk | where NoSuchColumn == 1")
    sys.exit("a query with an unknown column must fail")
except KustoServiceError as error:
    check("NoSuchColumn" in str(error), True)
try:
    ingest.ingest_from_stream(io.BytesIO(b"x\n"), IngestionProperties(database=database, table="NoSuchTable", data_format=DataFormat.CSV))
    sys.exit("ingestion into an unknown table must fail")
except (KustoServiceError, KustoApiError):
    pass
print("ok")
