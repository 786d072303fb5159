//! The file that `collector config` prints.

/// A file that runs as it is, with every setting of this version explained; what is commented out
/// shows the default or an example.
pub const DEFAULT_FILE: &str = r#"# Configuration of the collector. $(HOSTNAME) in a value becomes the name of the node.

# Base URL of the ingestor, http or https. Several, in order of preference, as an array or separated by
# commas: while one is away the next is used. Empty: data is kept on disk up to max-disk-usage.
endpoint = 'https://ingestor.adx-mon.svc.cluster.local'
# Accept any certificate of the ingestor.
insecure-skip-verify = false
# Address to listen on, host:port; ':8080' listens on all addresses.
listen-addr = '127.0.0.1:8080'
# A second address with the same routes; OTLP senders expect port 4318.
# otlp-listen-addr = '127.0.0.1:4318'
# Address of OTLP over gRPC (also gRPC-Web and Connect) for metrics, logs and traces; senders expect port 4317.
# Metrics go where the otel-metric entry with the path /v1/metrics puts them, or else where the first entry does.
# otlp-grpc-listen-addr = '127.0.0.1:4317'
# Label of the health metric.
region = ''
# Take CPU profiles on request: /debug/pprof/profile?seconds=10.
enable-pprof = false
# Certificate and key (PEM) of all listeners: both or neither. Read again when they change.
tls-cert-file = ''
tls-key-file = ''
# Certificates of authorities (PEM): clients must show a certificate of one of them.
tls-client-ca-file = ''
# How the collector shows the ingestor who it is; the files are read again when they change. A bearer token, which goes
# to https endpoints and to this host only ...
transfer-token-file = ''
# ... a client certificate and its key (PEM): both or neither ...
transfer-client-cert-file = ''
transfer-client-key-file = ''
# ... and the authorities (PEM) that may have signed the ingestor's certificate; those of the system without it.
transfer-ca-file = ''
# What the collector writes for: 'adx'.
storage-backend = 'adx'
# Open connections; 0 is no limit.
max-connections = 0
# Samples of a scrape that go into one write to the store.
max-batch-size = 5000
# A segment is sent once it is this old, in seconds ...
max-segment-age-seconds = 30
# ... or this large, in bytes.
max-segment-size = 1048576
# Limit of the storage directory, in bytes. Beyond it, senders are told to retry later (429).
max-disk-usage = 10737418240
# Limit of one database in the storage directory, in bytes; 0 is no limit of its own.
max-database-disk-usage = 0
# Tables that one database may have; every metric name makes a table.
max-tables-per-database = 10000
# Accepted for compatibility: every acknowledged request is durable at once, see durability.
wal-flush-interval-ms = 100
# Requests to the ingestor at a time.
max-transfer-concurrency = 5
# Send segments uncompressed.
disable-gzip = false
# Where data waits until it is sent. Default: $HOME/.adx-mon/collector
# storage-dir = '/var/lib/adx-mon/collector'
# What a 2xx promises. 'disk': survives a power cut. 'process': survives the end of the process.
durability = 'disk'

# Drop every metric that no keep rule names.
default-drop-metrics = false
# Drop metrics whose name matches. Expressions are not anchored.
drop-metrics = []
# With default-drop-metrics: keep metrics whose name matches.
keep-metrics = []
# Count metrics but do not store or forward them.
disable-metrics-forwarding = false

# Labels added to every metric.
[add-labels]
# cluster = 'production'

# Metric name expression = label name expression: labels to remove.
[drop-labels]
# '^http_' = '^(user_agent|referer)$'

# Attributes added to the resource of every OTLP record.
[add-attributes]
# cluster = 'production'

# With default-drop-metrics: keep series that have such a label.
# [[keep-metrics-with-label-value]]
# label-regex = '^namespace$'
# value-regex = '^prod-'

# Labels that get a column of their own.
# [[lift-labels]]
# name = 'namespace'
# column = 'Namespace'

# Resource attributes that get a column of their own.
# [[lift-resources]]
# name = 'service.name'
# column = 'Service'

# Who may send; without this table everybody may. Requests carry a bearer token, which is one of the file's (one a line,
# read again when it changes, so that several make rotation possible) or one that Kubernetes knows.
# [authentication]
# token-file = '/etc/adx-mon/tokens'
# Ask the API server whose a token is; needs deploy/rbac/token-review.yaml.
# token-review = true
# What tokens must be meant for; every token of the cluster will do when empty.
# audiences = ['adx-mon']
# Whose they must be, namespace/name or namespace/*; anybody's when empty.
# service-accounts = ['monitoring/prometheus', 'apps/*']
# Paths that need no token.
# open-paths = ['/metrics', '/readyz', '/healthz']

# Scraping of this node's pods, as their annotations ask for it (adx-mon/scrape: "true"), and of static targets.
[prometheus-scrape]
# Database of the metrics.
database = 'Metrics'
# From one scrape of a target to the next, in seconds.
scrape-interval = 30
# Longest time of a scrape, in seconds; 0 is 10.
scrape-timeout = 10
# Only the static targets below, no pods: no Kubernetes is needed then.
disable-discovery = true
# Also scrape the pods of this node behind annotated Services. Needs the API server; default: unless
# kubelet-discovery is set.
# discover-services = true
# Ask targets for the protobuf exposition, which has native histograms.
protobuf = false
# Largest page, inflated, in bytes; 0 is 100 MiB. A larger one is a failed scrape.
body-size-limit = 0
# Samples of a page at most; 0 is no limit. A page of more is a failed scrape.
sample-limit = 0
# Store a row with the value NaN where a series has ended. Exporters are told of it either way.
store-stale-markers = false

# [[prometheus-scrape.static-scrape-target]]
# # Scraped by the nodes whose name matches.
# host-regex = '.*'
# url = 'http://127.0.0.1:9100/metrics'
# # Whose metrics these are.
# namespace = 'node'
# pod = 'node-exporter'
# container = 'node-exporter'
# # From one scrape to the next, in seconds; 0 is scrape-interval.
# scrape-interval = 0
# # Of an https url: authorities in PEM that its certificate is checked against, otherwise those of the
# # system; or accept any certificate.
# ca-file = ''
# insecure-skip-verify = false
# # Send the token of the collector's service account; https only. Without ca-file, the certificate is
# # then checked against the cluster's authorities.
# service-account-token = false

# Receiver of Prometheus remote write 1.0. The filter and label settings above can be repeated here.
[[prometheus-remote-write]]
# Database of the metrics.
database = 'Metrics'
# Path of the receiver.
path = '/remote_write'
# Longest time of a request, in seconds, up to 300.
request-timeout-seconds = 15

# Receiver of OTLP metrics over HTTP.
[[otel-metric]]
database = 'Metrics'
path = '/v1/metrics'
request-timeout-seconds = 15
# Only the attributes of the points become labels, not those of resource and scope: the labels, and
# so the SeriesIds, of earlier versions of the collector.
reference-labels = false

# Receiver of OTLP logs over HTTP, at /v1/logs. A record names its destination in the attributes
# kusto.database and kusto.table.
[otel-log]
# Destination of records that name none. Both empty: such records are refused.
default-database = ''
default-table = ''
request-timeout-seconds = 15
# What is done to records before they are stored, in order: addattributes, drop, kql, limit, logrouter, redact,
# rename, sample. docs/logs.md has examples.
# [[otel-log.transforms]]
# name = 'redact'
# config = { presets = ['email', 'credit-card'] }

# Receiver of OTLP traces over HTTP.
[otel-trace]
# Destination of spans that name none.
database = 'Traces'
table = 'OTELTraces'
path = '/v1/traces'
request-timeout-seconds = 15

# Logs of this host. Their positions are stored with them: nothing is read twice or left out.
# [[host-log]]
# # Do not follow the logs of pods.
# disable-kube-discovery = true
# # Set on the resource of every record.
# add-attributes = { cluster = 'production' }
#
# # Log files. They are followed when they are renamed, truncated, compressed or made anew.
# [[host-log.file-target]]
# # A path, or a pattern: * ? [ab] {a,b} within a name, ** for any number of folders.
# file-path = '/var/log/app/*.log'
# # Patterns of what is left out.
# exclude = ['/var/log/app/debug*']
# # How lines are written: 'plain', 'docker', 'cri' or 'kubernetes'.
# log-type = 'plain'
# database = 'Logs'
# table = 'App'
# parsers = ['json']
# # Lines that are one event: stack traces of 'java', 'python', 'go' or 'node'; or, with first-line = '^\d{4}-', each line
# # that matches begins one. max-lines = 1000 and max-wait-seconds = 1 bound it.
# multi-line = { presets = ['java'] }
# # Bytes that are kept of a line or event; 0 is 1 MiB.
# max-line-bytes = 0
#
# # Pods whose logs are collected although no annotation asks for it. Empty settings fit all.
# [[host-log.static-pod-target]]
# namespace = 'kube-system'
# name = ''
# label-targets = { app = 'coredns' }
# destination = 'Logs:Dns'
# parsers = []
#
# # What is done to records, in this order.
# [[host-log.transforms]]
# name = 'logrouter'
#
# # Entries of systemd's journal.
# [[host-log.journal-target]]
# database = 'Logs'
# table = 'Journal'
# # As of journalctl: matches of one field are alternatives, different fields must all match, '+' joins two such sets.
# # Empty: all entries.
# matches = ['_SYSTEMD_UNIT=kubelet.service', '_SYSTEMD_UNIT=containerd.service']
# # Fields that are copied to the resource.
# journal-fields = ['_SYSTEMD_UNIT', '_HOSTNAME']
# # What messages are put through: 'json', 'keyvalue', 'klog', 'space'; the first that succeeds counts.
# parsers = ['klog']
# # Folder of the journal. Empty: those of systemd, /var/log/journal and /run/log/journal.
# journal-path = ''
#
# # The kernel log, /dev/kmsg.
# [[host-log.kernel-target]]
# database = 'Logs'
# table = 'Kernel'
# # Least urgent priority that is taken: emerg, alert, crit, err, warning, notice, info or debug.
# priority = 'info'

# Limits of tables, over all sources. What is above one is left out and counted in adxmon_collector_limited_rows_total;
# the rest of its request is stored. The first that names a table counts.
# [[table-limit]]
# # Empty: every database, or every table, each with a limit of its own. Tables of metrics are named as in Kusto.
# database = 'Metrics'
# table = 'HttpRequestsTotal'
# # Different series of a metric in an hour; 0 is no limit.
# max-series = 100000
# # Rows, on an average over a minute; 0 is no limit.
# max-rows-per-second = 0

# Receiver of syslog (RFC 3164 and RFC 5424).
# [[syslog]]
# listen-addr = '127.0.0.1:514'
# # 'udp', or 'tcp' with messages that have a count before them or a newline behind them.
# protocol = 'udp'
# # Certificate and key (PEM) for TLS over tcp, and the authorities of client certificates.
# tls-cert-file = ''
# tls-key-file = ''
# tls-client-ca-file = ''
# database = 'Logs'
# table = 'Syslog'
# parsers = []
# add-attributes = {}
# # What the records are changed by, as for otel-log.
# transforms = []
# # Names of exporters that get the records too.
# exporters = []
# # What is kept of a message; the rest is counted.
# max-message-bytes = 65536
# # Connections at a time.
# max-connections = 1000

# Events of the Kubernetes cluster: a row for each event, and another for each change of one, such as a larger count. Of several
# collectors with the same table and namespaces one stores, and another goes on when it ends (a Lease in their namespace says
# which); the storage directory must last (a StatefulSet or a Deployment with a volume, not the DaemonSet). Needs
# deploy/rbac/collector-events.yaml.
# [kubernetes-events]
# database = 'Logs'
# table = 'KubernetesEvents'
# # Namespaces whose events are stored. Empty: all. Events of another choice are stored from the start of what the API
# # server has, an hour usually.
# namespaces = []
# # Set on the resource of every record.
# add-attributes = { cluster = 'production' }
# # Names of exporters that get the records too.
# exporters = []

# Exporters send what sources name them for (exporters = ['name'] in a source) to other systems as well. Each has a buffer
# of its own on disk: one whose receiver is away holds up nothing, and gives up its oldest data when the buffer is full.

# Metrics to an OTLP receiver. The filter and label settings above can be repeated here; they come after the source's.
# [[exporters.otlp-metric-export]]
# name = 'otel'
# # The receiver's URL; over gRPC its path does not count.
# destination = 'http://otel-collector:4318/v1/metrics'
# # 'http/protobuf' or 'grpc'.
# protocol = 'http/protobuf'
# # 'gzip' or 'none'.
# compression = 'gzip'
# # Totals become sums where the source says that they are; otherwise everything is a gauge.
# metric-types = false
# # Attributes of the resource.
# add-resource-attributes = { cluster = 'production' }
# # Headers (gRPC metadata) of every request.
# headers = { X-Scope-OrgID = 'tenant' }
# # A file whose content is sent as bearer token, read for every request.
# bearer-token-file = ''
# # Certificates (PEM) that the receiver's must be signed by; default: the system's.
# ca-file = ''
# # Accept any certificate of the receiver; not over gRPC.
# insecure-skip-verify = false
# # Longest time of a try, in seconds.
# request-timeout-seconds = 10
# # Samples and bytes (before compression) of a request.
# max-batch-size = 8192
# max-batch-bytes = 2097152
# # Bytes that may wait for the receiver, compressed on disk; beyond it the oldest are dropped and counted ...
# max-buffer-size = 268435456
# # ... as is what waited for so many seconds.
# max-buffer-age-seconds = 86400

# Metrics to a receiver of Prometheus remote write 1.0. Settings as above, but for protocol, compression, metric-types and
# add-resource-attributes.
# [[exporters.remote-write-metric-export]]
# name = 'prometheus'
# destination = 'http://prometheus:9090/api/v1/write'
# max-batch-size = 2000
# max-batch-bytes = 1048576

# Logs over the fluent forward protocol.
# [[exporters.fluent-forward-log-export]]
# name = 'fluent'
# # 'tcp://host:port', 'tls://host:port' or 'unix:///path'.
# destination = 'unix:///var/run/fluent.sock'
# # The attribute that is the tag; records without it are skipped and counted. adxmon_destination_database and
# # adxmon_destination_table are where a record goes.
# tag-attribute = 'fluent-tag'
# # Wait until the receiver acknowledges each message; without, a receiver that dies can lose some.
# require-ack = false
# # A file with the key that the receiver shares with its senders.
# shared-key-file = ''
# ca-file = ''
# request-timeout-seconds = 10
# max-batch-size = 5000
# max-batch-bytes = 1048576
# max-buffer-size = 268435456
# max-buffer-age-seconds = 86400
"#;
