//! Transforms: against `log_transforms.json`, and one by one.

use std::sync::Arc;

use logs::{Destination, Map, Record, TransformCounts, Transforms, Value};
use serde_json::Value as Json;

use crate::support::{NOW, value, vector};

/// The transforms of a TOML text with a list `t`.
fn transforms(toml: &str) -> Result<Transforms, Vec<String>> {
    let table: toml::Table = toml.parse().unwrap_or_else(|error| panic!("{error}\n{toml}"));
    let empty = toml::Value::Table(toml::Table::new());
    let list = table["t"].as_array().unwrap();
    let list = list.iter().map(|item| (item["name"].as_str().unwrap(), item.get("config").unwrap_or(&empty)));
    Transforms::new(list).map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn one(name: &str, config: &str) -> Transforms {
    transforms(&format!("[[t]]\nname = '{name}'\n[t.config]\n{config}")).unwrap_or_else(|errors| panic!("{errors:?}"))
}

fn errors(name: &str, config: &str) -> Vec<String> {
    transforms(&format!("[[t]]\nname = '{name}'\n[t.config]\n{config}")).expect_err(config)
}

fn map(json: &str) -> Map {
    let Value::Map(map) = value(&serde_json::from_str::<Json>(json).unwrap()) else { panic!("no object: {json}") };
    map
}

fn record(body: &str) -> Record {
    Record {
        timestamp: NOW + 1,
        observed: NOW + 22,
        severity_text: "INFO".into(),
        severity_number: 9,
        trace_id: "0102".into(),
        span_id: "03".into(),
        body: map(body),
        attributes: map(r#"{"a":1,"http.status":500}"#),
        resource: Arc::new(map(r#"{"pod":"web-1","nested":{"x":"y"}}"#)),
        destination: Destination::new("D", "T"),
    }
}

fn applied(transforms: &mut Transforms, mut record: Record) -> Option<Record> {
    transforms.apply(&mut record, NOW).then_some(record)
}

#[test]
fn configurations_agree() {
    for case in vector("log_transforms.json")["create_from_toml"].as_array().unwrap() {
        let expected = case["error"].as_str().unwrap();
        let (name, config) = match case.get("toml") {
            Some(text) => ("addattributes", text.as_str().unwrap().parse::<toml::Table>().unwrap().remove("config").unwrap()),
            None => (case["name"].as_str().unwrap(), toml::Value::Table(toml::Table::new())),
        };
        let got = Transforms::new([(name, &config)]);
        match (name, config.get("ResourceValues")) {
            // The reference refuses every table that TOML can write.
            ("addattributes", Some(_)) => {
                let record = applied(&mut got.unwrap(), record("{}")).unwrap();
                assert_eq!(record.resource["environment"], Value::from("production"));
            }
            // No Go here: the error says what to do instead.
            ("plugin", _) => {
                assert_eq!(
                    got.unwrap_err()[0].to_string().split(';').next().unwrap(),
                    "transforms[0].name: plugin: transforms written in Go cannot be run"
                );
            }
            _ => {
                let errors = got.unwrap_err();
                assert!(errors[0].message.starts_with(expected), "{errors:?}");
            }
        }
    }
}

#[test]
fn routes_agree() {
    for case in vector("log_transforms.json")["logrouter"].as_array().unwrap() {
        let mut record = record("{}");
        let Value::Map(body) = value(&case["body"]) else { panic!("no body") };
        record.body = body;
        record.destination = Destination::new("D0", "T0");
        let resource = Arc::make_mut(&mut record.resource);
        for key in ["log-sources", "log-keys"] {
            resource.insert(format!("adx-mon/{key}"), Value::from(case[key].as_str().unwrap()));
        }
        let got = applied(&mut one("logrouter", ""), record).unwrap().destination;
        assert_eq!(got, Destination::new(case["database"].as_str().unwrap(), case["table"].as_str().unwrap()), "{case}");
    }
}

/// Integers of JSON are integers here and floats in the reference: routes that were written for either match.
#[test]
fn routes_match_numbers_in_both_forms() {
    let routed = |number: Value, text: &str| {
        let mut record = record("{}");
        record.body.insert("k".into(), number);
        Arc::make_mut(&mut record.resource).insert("adx-mon/log-keys".into(), Value::from(format!("k:{text}:L:E")));
        applied(&mut one("logrouter", ""), record).unwrap().destination == Destination::new("L", "E")
    };
    for (number, text) in [
        (Value::Int(1_000_000), "1e+06"),
        (Value::Int(1_000_000), "1000000"),
        (Value::Int(1_234_567), "1.234567e+06"),
        (Value::Float(0.00001), "1e-05"),
        (Value::Float(0.0001), "0.0001"),
        (Value::Float(-2.5), "-2.5"),
        (Value::Float(123_456.0), "123456"),
        (Value::Float(1e21), "1e+21"),
    ] {
        assert!(routed(number.clone(), text), "{number:?} {text}");
    }
    assert!(!routed(Value::Int(1_000_000), "1e6"));
}

/// A route to a name that has no letter or digit leaves the record without a destination, which is counted later.
#[test]
fn a_router_follows_the_resource_of_each_record() {
    let mut router = one("logrouter", "");
    let with = |sources: &str| {
        let mut record = record(r#"{"source":"a"}"#);
        Arc::make_mut(&mut record.resource).insert("adx-mon/log-sources".into(), Value::from(sources));
        record
    };
    let first = with("a:L:A");
    for (record, table) in [(first.clone(), "A"), (with("a:L:B"), "B"), (first, "A")] {
        assert_eq!(applied(&mut router, record).unwrap().destination, Destination::new("L", table));
    }
}

#[test]
fn names_and_keys_that_are_not_known_are_errors_with_suggestions() {
    let cases = [
        ("redcat", "", "transforms[0].name: unknown transform type: redcat; did you mean redact?"),
        (
            "bogus",
            "",
            "transforms[0].name: unknown transform type: bogus; use one of addattributes, drop, kql, limit, logrouter, redact, rename, sample",
        ),
        ("redact", "preset = ['email']", "transforms[0].config.preset: unknown key preset; did you mean presets?"),
        ("redact", "presets = ['emial']", "transforms[0].config.presets[0]: emial is not a preset; did you mean email?"),
        ("redact", "presets = 'email'", "transforms[0].config.presets: invalid type: string \"email\", expected a sequence"),
        ("redact", "", "transforms[0].config: redact needs presets, patterns or keys"),
        ("redact", "keys = ['a']\nin = ['Bdoy']", "transforms[0].config.in[0]: Bdoy is not one of Body, Attributes, Resource"),
        ("logrouter", "x = 1", "transforms[0].config.x: unknown key x; it takes no settings"),
        ("sample", "", "transforms[0].config: sample needs rate, the share of records to keep, from 0.0 to 1.0"),
        ("sample", "rate = 2.0", "transforms[0].config.rate: rate is 2 and must be from 0.0 to 1.0"),
        ("sample", "rate = nan", "transforms[0].config.rate: rate is NaN and must be from 0.0 to 1.0"),
        (
            "sample",
            "rate = 0.5\nkey = 'Trace'",
            "transforms[0].config.key: Trace is not a field of a record; use Body.<key>, Attributes.<key>, Resource.<key>, SeverityText, SeverityNumber, TraceId, SpanId, Database or Table",
        ),
        ("limit", "", "transforms[0].config: limit needs rate, the records a second to keep for each table"),
        ("limit", "rate = 0", "transforms[0].config.rate: rate is 0 and must be from 0.001 to 1000000000"),
        ("limit", "rate = 1\nburst = 0.5", "transforms[0].config.burst: burst is 0.5 and must be from 1 to 1000000000"),
        ("drop", "", "transforms[0].config: drop needs conditions: any = [{ field = \"Body.level\", equals = \"debug\" }], or all = [...]"),
        ("drop", "any = [{ field = 'Body.x', equal = 1 }]", "transforms[0].config.any[0].equal: unknown key equal; did you mean equals?"),
        (
            "drop",
            "any = [{ field = 'Body.x' }]",
            "transforms[0].config.any[0]: a condition has a field and one of equals, in, matches and exists, or severity-below alone",
        ),
        (
            "drop",
            "all = [{ severity-below = 'loud' }]",
            "transforms[0].config.all[0].severity-below: loud is not a severity; use trace, debug, info, warn, error or fatal",
        ),
        ("rename", "", "transforms[0].config: rename needs fields = { \"Body.old\" = \"Body.new\" }"),
        (
            "rename",
            "fields = { 'Body.a' = 'b' }",
            "transforms[0].config.fields.Body.a: b is not a key of Body, Attributes, Resource; write it as Body.<key>",
        ),
        ("addattributes", "ResourceValues = { a = [1] }", "transforms[0].config.ResourceValues: a must be a string, number or bool"),
        ("kql", "", "transforms[0].config: kql needs query, such as query = \"where Body.level != 'debug'\""),
    ];
    for (name, config, expected) in cases {
        assert_eq!(errors(name, config), [expected], "{name}: {config}");
    }
    let all = transforms(
        "[[t]]\nname = 'sample'\nconfig.rate = 0.5\n[[t]]\nname = 'x'\n[[t]]\nname = 'redact'\nconfig = { patterns = ['('], in = ['y'] }",
    )
    .unwrap_err();
    assert_eq!(all.len(), 3, "all mistakes at once: {all:?}");
    assert!(all[0].starts_with("transforms[1].name") && all[1].starts_with("transforms[2].config.patterns[0]"), "{all:?}");
}

#[test]
fn add_attributes_sets_values_of_any_type() {
    let mut transform = one("addattributes", "ResourceValues = { pod = 'x', n = 1, f = 0.5, b = true }");
    let first = record("{}");
    let resource = Arc::clone(&first.resource);
    let first = applied(&mut transform, first).unwrap();
    let expected = map(r#"{"pod":"x","n":1,"f":0.5,"b":true,"nested":{"x":"y"}}"#);
    assert_eq!((&*first.resource, resource["pod"].as_str()), (&expected, Some("web-1")));
    // Records that shared a resource still do.
    let second = applied(&mut transform, Record { resource, ..record("{}") }).unwrap();
    assert!(Arc::ptr_eq(&first.resource, &second.resource));
}

#[test]
fn redact_replaces_what_it_finds_wherever_it_is() {
    let mut transform = one(
        "redact",
        "presets = ['email', 'credit-card', 'ipv4', 'bearer-token', 'jwt']\npatterns = ['secret-\\d+']\nkeys = ['Password']\nin = ['body', 'Attributes', 'Resource']",
    );
    let mut input = record(
        r#"{"message":"mail to a.b+c@mail.example.org, from 10.0.0.1:80 (version 1.2.3, 1.2.3.4.5)","card":"4111 1111-1111 1111 and 4111111111111112",
            "auth":"Authorization: Bearer abc.DEF-123456== x","jwt":"t=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln;","list":["secret-1",{"deep":"secret-22"}],
            "password":12345,"number":4111111111111111,"other":4111111111111112,"fine":"nothing"}"#,
    );
    input.attributes = map(r#"{"client":"192.168.1.255"}"#);
    *Arc::make_mut(&mut input.resource) = map(r#"{"owner":"x@y.io","PASSWORD":"p"}"#);
    let got = applied(&mut transform, input).unwrap();
    let r = "[REDACTED]";
    assert_eq!(got.body["message"], Value::from(format!("mail to {r}, from {r}:80 (version 1.2.3, {r}.5)")));
    assert_eq!(got.body["card"], Value::from(format!("{r} and 4111111111111112")), "what is no card number stays");
    assert_eq!(got.body["auth"], Value::from(format!("Authorization: Bearer {r} x")));
    assert_eq!(got.body["jwt"], Value::from(format!("t={r};")));
    assert_eq!(got.body["list"], Value::Array(vec![Value::from(r), Value::Map(Map::from([("deep".into(), Value::from(r))]))]));
    assert_eq!((&got.body["password"], &got.body["number"]), (&Value::from(r), &Value::from(r)));
    assert_eq!((&got.body["other"], &got.body["fine"]), (&Value::Int(4_111_111_111_111_112), &Value::from("nothing")));
    assert_eq!(got.attributes, Map::from([("client".into(), Value::from(r))]));
    assert_eq!(*got.resource, Map::from([("PASSWORD".into(), Value::from(r)), ("owner".into(), Value::from(r))]));
}

#[test]
fn redact_leaves_the_resource_alone_unless_told_and_takes_replacements_as_they_are() {
    let mut transform = one("redact", "patterns = ['web']\nreplacement = '$0-'");
    let got = applied(&mut transform, record(r#"{"m":"web web"}"#)).unwrap();
    assert_eq!((&got.body["m"], &got.resource["pod"]), (&Value::from("$0- $0-"), &Value::from("web-1")));
}

#[test]
fn sample_by_key_gives_equal_keys_one_fate() {
    let mut transform = one("sample", "rate = 0.25\nkey = 'TraceId'");
    let mut kept = 0;
    for id in 0..4000 {
        let with = |body: &str| Record { trace_id: format!("{id:032x}"), ..record(body) };
        let fates = [applied(&mut transform, with("{}")).is_some(), applied(&mut transform, with(r#"{"x":1}"#)).is_some()];
        assert_eq!(fates[0], fates[1]);
        kept += u32::from(fates[0]);
    }
    // Four standard deviations of a binomial distribution are 110.
    assert!((890..=1110).contains(&kept), "{kept}");
    assert_eq!(transform.take_counts()[0].dropped, u64::from(2 * (4000 - kept)));
}

#[test]
fn sample_at_random_is_repeatable_with_a_seed_and_keeps_errors_if_told() {
    let run = |seed| {
        let mut transform = one("sample", "rate = 0.5\nkey = 'Body.absent'\nkeep-errors = true").seeded(seed);
        (0..64).map(|_| applied(&mut transform, record("{}")).is_some()).collect::<Vec<_>>()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
    let mut none = one("sample", "rate = 0.0\nkeep-errors = true");
    assert!(applied(&mut none, Record { severity_number: 17, ..record("{}") }).is_some());
    assert!(applied(&mut none, Record { severity_number: 16, ..record("{}") }).is_none());
    let mut all = one("sample", "rate = 1.0");
    assert!((0..1000).all(|_| applied(&mut all, record("{}")).is_some()));
    assert!(applied(&mut one("sample", "rate = 0"), record("{}")).is_none(), "an integer is a number too");
}

#[test]
fn drop_follows_its_conditions() {
    let drops = |config: &str, record: Record| applied(&mut one("drop", config), record).is_none();
    let body = || record(r#"{"level":"debug","n":5,"path":"/healthz","in":{"er":true}}"#);
    for (config, expected) in [
        ("any = [{ field = 'Body.level', equals = 'debug' }]", true),
        ("any = [{ field = 'Body.level', equals = 'Debug' }]", false),
        ("any = [{ field = 'body.n', equals = 5 }]", true),
        ("any = [{ field = 'Body.in.er', equals = true }]", true),
        ("any = [{ field = 'Attributes.http.status', in = [500, 501] }]", true),
        ("any = [{ field = 'Resource.nested.x', in = ['x', 'y'] }]", true),
        ("any = [{ field = 'Body.path', matches = '^/(healthz|readyz)$' }]", true),
        ("any = [{ field = 'Body.none', matches = '.*' }, { field = 'SeverityText', equals = 'INFO' }]", true),
        ("any = [{ field = 'Body.none', exists = false }]", true),
        ("any = [{ field = 'Body.level', exists = false }]", false),
        ("any = [{ severity-below = 'info' }]", false),
        ("any = [{ severity-below = 'warn' }]", true),
        ("all = [{ field = 'Table', equals = 'T' }, { field = 'Database', equals = 'X' }]", false),
        ("all = [{ field = 'Table', equals = 'T' }]\nany = [{ field = 'SpanId', equals = '04' }]", false),
        (
            "all = [{ field = 'TraceId', equals = '0102' }]\nany = [{ field = 'SpanId', equals = '03' }, { field = 'SeverityNumber', equals = 1 }]",
            true,
        ),
    ] {
        assert_eq!(drops(config, body()), expected, "{config}");
    }
    let unknown = Record { severity_number: 0, ..body() };
    assert!(!drops("any = [{ severity-below = 'fatal' }]", unknown), "a severity that is not known is not below");
}

const SECOND: u64 = 1_000_000_000;

/// How many of `records` records at a time are kept.
fn kept(transforms: &mut Transforms, like: &Record, records: usize, now: u64) -> usize {
    (0..records).filter(|_| transforms.apply(&mut like.clone(), now)).count()
}

#[test]
fn limit_keeps_so_many_records_a_second_for_each_table() {
    let mut transform = one("limit", "rate = 10\nburst = 25");
    let (one, other) = (record("{}"), Record { destination: Destination::new("D", "T2"), ..record("{}") });
    assert_eq!((kept(&mut transform, &one, 100, NOW), kept(&mut transform, &other, 100, NOW)), (25, 25));
    // Workers share the allowance.
    let mut worker = transform.clone();
    assert_eq!((kept(&mut worker, &one, 100, NOW + SECOND / 2), kept(&mut transform, &one, 100, NOW + SECOND)), (5, 5));
    assert_eq!(kept(&mut transform, &one, 100, NOW + 3600 * SECOND), 25, "what was not used is kept up to the burst");
    assert_eq!(transform.take_counts()[0].dropped, 75 + 75 + 95 + 75);
    // A clock that is set back by an hour drops what it would have dropped otherwise.
    let back = kept(&mut transform, &one, 100, NOW) + kept(&mut transform, &one, 100, NOW + SECOND);
    assert_eq!(back, 10);
}

#[test]
fn limit_by_a_field_is_bounded() {
    let mut transform = one("limit", "rate = 1\nkey = 'Body.user'");
    let user = |user: String| Record { body: Map::from([("user".into(), Value::from(user))]), ..record("{}") };
    let all: usize = (0..10_000).map(|i| kept(&mut transform, &user(format!("u{i}")), 2, NOW)).sum();
    assert_eq!(all, 10_000);
    let more: usize = (0..100).map(|i| kept(&mut transform, &user(format!("v{i}")), 2, NOW)).sum();
    assert_eq!(more, 1, "values beyond the bound share one allowance");
    let later: usize = (0..100).map(|i| kept(&mut transform, &user(format!("v{i}")), 2, NOW + 2 * SECOND)).sum();
    assert_eq!(later, 100, "values that were not seen for a while make room");
    assert_eq!(kept(&mut transform, &record("{}"), 5, NOW + 10 * SECOND), 1, "records without the field share one");
}

#[test]
fn rename_moves_keys() {
    let config = "fields = { 'Body.old' = 'Body.new', 'Body.in.er' = 'Attributes.er', 'Attributes.http.status' = 'Body.status', 'Resource.pod' = 'Resource.nested.pod', 'Body.none' = 'Body.never' }";
    let got = applied(&mut one("rename", config), record(r#"{"old":1,"new":0,"in":{"er":2,"x":3}}"#)).unwrap();
    assert_eq!(got.body, map(r#"{"new":1,"in":{"x":3},"status":500}"#));
    assert_eq!(got.attributes, map(r#"{"a":1,"er":2}"#));
    assert_eq!(*got.resource, map(r#"{"nested":{"x":"y","pod":"web-1"}}"#));
    let mut within = one("rename", "fields = { 'Resource.pod' = 'Resource.k8s.pod.name' }");
    let shared = record("{}");
    let (first, second) = (applied(&mut within, shared.clone()).unwrap(), applied(&mut within, shared).unwrap());
    assert_eq!(first.resource["k8s.pod.name"], Value::from("web-1"));
    assert!(Arc::ptr_eq(&first.resource, &second.resource));
}

fn kql(query: &str) -> Transforms {
    one("kql", &format!("query = '''\n{query}'''"))
}

#[test]
fn kql_drops_and_changes_records() {
    let mut transform = kql(
        "where Body.level != 'debug'\n| extend SeverityText = toupper(tostring(Body.level)), user = extract('user=(\\\\w+)', 1, tostring(Body.message))",
    );
    assert_eq!(applied(&mut transform, record(r#"{"level":"debug"}"#)), None);
    let got = applied(&mut transform, record(r#"{"level":"warn","message":"user=ann in"}"#)).unwrap();
    let mut expected = record(r#"{"level":"warn","message":"user=ann in"}"#);
    expected.severity_text = "WARN".into();
    expected.attributes.insert("user".into(), Value::from("ann"));
    assert_eq!(got, expected, "new columns are attributes, and nothing else changes");
    let got = applied(&mut transform, record(r#"{"level":"warn","message":"nobody"}"#)).unwrap();
    assert_eq!(got.attributes, record("{}").attributes, "the empty string is KQL's null");
    assert_eq!(transform.take_counts(), [TransformCounts { name: "kql", dropped: 1, failed: 0 }]);
    assert_eq!(transform.take_counts(), []);
}

#[test]
fn kql_that_projects_empties_the_rest_but_times_and_destination() {
    let got =
        applied(&mut kql("project Body, Attributes = bag_pack('only', SeverityNumber), new = Resource.pod"), record(r#"{"m":1}"#)).unwrap();
    let expected = Record {
        timestamp: NOW + 22,
        observed: NOW + 22,
        body: map(r#"{"m":1}"#),
        attributes: map(r#"{"only":9,"new":"web-1"}"#),
        destination: Destination::new("D", "T"),
        ..Record::default()
    };
    assert_eq!(got, expected);
    let got = applied(&mut kql("project-away Timestamp, Attributes"), record("{}")).unwrap();
    assert_eq!(got, Record { timestamp: NOW + 22, attributes: Map::new(), ..record("{}") });
}

#[test]
fn kql_keeps_nanoseconds_and_exact_numbers_of_what_it_does_not_touch() {
    let exact = || {
        let mut record = record("{}");
        record.body = Map::from([("u".into(), Value::Uint(u64::MAX)), ("b".into(), Value::Bytes(vec![1]))]);
        record
    };
    assert_eq!(applied(&mut kql("where isnotempty(Body.u)"), exact()).unwrap(), exact());
    let got = applied(&mut kql("extend Body = bag_merge(Body, dynamic({'x': 9007199254740993}))"), exact()).unwrap();
    let expected = [("b", Value::from("AQ==")), ("u", Value::Float(u64::MAX as f64)), ("x", Value::Int(9_007_199_254_740_993))];
    assert_eq!(got.body, expected.map(|(key, value)| (key.to_owned(), value)).into());
}

#[test]
fn kql_sets_every_column() {
    let query = "extend Timestamp = datetime(2024-01-02 03:04:05.1234567), ObservedTimestamp = now(), TraceId = 'aa', SpanId = 'bb', \
                 SeverityNumber = 17, Resource = bag_pack('r', 1), Body = strcat('was ', tostring(Body.m)), Database = 'New-DB', Table = strcat(Table, '2')";
    let got = applied(&mut kql(query), record(r#"{"m":"x"}"#)).unwrap();
    let expected = Record {
        timestamp: 1_704_164_645_123_456_700,
        observed: NOW,
        trace_id: "aa".into(),
        span_id: "bb".into(),
        severity_number: 17,
        resource: Arc::new(map(r#"{"r":1}"#)),
        body: map(r#"{"message":"was x"}"#),
        destination: Destination::new("NewDB", "T2"),
        ..record("{}")
    };
    assert_eq!(got, expected);
    let got = applied(&mut kql("project-rename Old = Body, Body = Attributes"), record(r#"{"m":"x"}"#)).unwrap();
    assert_eq!((got.body, got.attributes), (record("{}").attributes, map(r#"{"Old":{"m":"x"}}"#)));
    let got = applied(&mut kql("extend Table = ''"), record("{}")).unwrap();
    assert_eq!(got.destination, None, "a record that is sent nowhere is counted when rows are made");
}

#[test]
fn kql_parses() {
    let query = "parse-where Body.message with method:string ' ' path:string ' took ' ms:long 'ms'\n| extend Body = bag_merge(bag_pack('method', method, 'path', path, 'ms', ms), Body)\n| project-away method, path, ms";
    let mut transform = kql(query);
    let got = applied(&mut transform, record(r#"{"message":"GET /a took 15ms"}"#)).unwrap();
    assert_eq!(got.body, map(r#"{"message":"GET /a took 15ms","method":"GET","path":"/a","ms":15}"#));
    assert_eq!(got.attributes, record("{}").attributes);
    assert_eq!(applied(&mut transform, record(r#"{"message":"other"}"#)), None);
}

#[test]
fn kql_that_gives_no_record_leaves_it_and_counts() {
    for query in ["extend Attributes = Body.list", "extend Timestamp = datetime(1900-01-01)", "extend SeverityNumber = tolong(Body.big)"] {
        let mut transform = kql(query);
        let input = record(r#"{"list":[1],"big":99999999999}"#);
        assert_eq!(applied(&mut transform, input.clone()), Some(input), "{query}");
        assert_eq!(transform.take_counts(), [TransformCounts { name: "kql", dropped: 0, failed: 1 }], "{query}");
    }
}

#[test]
fn kql_is_checked_when_the_configuration_is_read() {
    let said = |query: &str| errors("kql", &format!("query = '''\n{query}'''")).join("\n");
    let refused = said("where Body.x == 1\n| summarize count()");
    assert!(refused.starts_with("transforms[0].config.query: line 2, column 3 of the query: "), "{refused}");
    assert!(refused.contains("summarize needs many rows, and here each row is alone; use only where, extend, project,"), "{refused}");
    assert!(said("where Nope == 1").contains("line 1, column 7 of the query: "), "{}", said("where Nope == 1"));
    assert!(said("where Body.x ==").contains("Syntax error"));
    let types = said("extend SeverityNumber = 'x', TraceId = 1, Body = 2");
    assert_eq!(types.lines().count(), 2, "{types}");
    assert!(types.contains("SeverityNumber has to be of type int, and the query makes it a string; convert it with toint()"), "{types}");
}

#[test]
fn transforms_run_in_order() {
    let mut all = transforms("[[t]]\nname = 'rename'\nconfig.fields = { 'Body.lvl' = 'Body.level' }\n[[t]]\nname = 'drop'\nconfig.any = [{ field = 'Body.level', equals = 'x' }]\n[[t]]\nname = 'sample'\nconfig.rate = 0.0").unwrap();
    assert!(applied(&mut all, record(r#"{"lvl":"x"}"#)).is_none());
    assert!(applied(&mut all, record(r#"{"lvl":"y"}"#)).is_none());
    let counts: Vec<_> = all.take_counts().into_iter().map(|counts| (counts.name, counts.dropped)).collect();
    assert_eq!(counts, [("drop", 1), ("sample", 1)]);
    assert!(!all.is_empty() && Transforms::default().is_empty());
}
