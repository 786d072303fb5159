//! Queries over a stored table, one or more for each operator and each way of lowering it.

use std::sync::Arc;

use datafusion::catalog::MemTable;

use super::{Fixture, Stored, bind, canonical_table, engine_rows, interpreted, limits};

/// Queries; those that begin with `ordered:` are compared in order.
const QUERIES: &[&str] = &[
    "T",
    "T | where Host == 'Host-3'",
    "T | where Host != 'Host-3' and Value > 2",
    "T | where Host == ''",
    "T | where Timestamp > ago(30m) and Timestamp <= now()",
    "T | where Timestamp between (ago(40m) .. ago(10m))",
    "T | where SeriesId in (1, 3, 5) and Count < 2",
    "T | where SeriesId != 3",
    "T | where not(Value >= 1.5) or Flag",
    "T | where Labels.host == 'h2'",
    "T | where tostring(Labels.host) == 'h2' and Labels.n == 1",
    "T | where Labels.pod startswith 'p-1' and Host has 'host'",
    "T | where isnotempty(Labels.host) and Labels.deep.x[1] > 1",
    "T | where isnull(Labels) or isempty(Host)",
    "T | where Host in~ ('host-1', 'HOST-2') and Host !contains '2'",
    "T | where SeriesId in ((T | where Value > 8 | distinct SeriesId))",
    "T | where Value > toscalar(T | summarize avg(Value))",
    "T | project Timestamp, V = Value * 2 + 1, Host",
    "T | extend Minute = bin(Timestamp, 5m), Pod = tostring(Labels.pod), Half = Value / 2, Whole = tolong(Value)",
    "T | extend SeriesId = SeriesId + 1 | extend SeriesId = SeriesId + 1 | where Flag | extend SeriesId = SeriesId + 1",
    "T | extend v = iff(Flag, real(nan), Value) | summarize min(v), max(v), minif(v, not(Flag)) by Host",
    "T | extend v = real(nan) | summarize min(v), max(v), sum(v)",
    "ordered:T | where isnotnull(Timestamp) | extend v = iff(Flag, real(nan), Value) | order by v asc, Timestamp | project v",
    "T | extend Host = strcat(Host, '-', SeriesId), Long = Count + 1 | project-away Labels",
    "T | extend x = case(Value > 5, 'high', Value > 0, 'low', 'none'), y = iff(Flag, Host, tostring(Labels.host))",
    "T | count",
    "T | where false | count",
    "T | summarize count() by Host",
    "T | summarize count(), sum(Value), min(Value), max(Value), avg(Value) by SeriesId, Host",
    "T | summarize countif(Flag), sumif(Count, Flag), maxif(Value, Flag), avg(Count), sum(Span) by bin(Timestamp, 10m)",
    "T | summarize count(), sum(Count), max(Timestamp), min(Span), avg(Value)",
    "T | where false | summarize count(), sum(Count), sum(Value), max(Timestamp), avg(Value)",
    "T | where false | summarize count() by Host",
    "T | summarize by Host, Flag",
    "T | summarize arg_max(Timestamp, *) by Host",
    "T | summarize arg_min(Timestamp, Value, Host) by SeriesId",
    "T | summarize dcount(SeriesId), array_sort_asc(make_set(Flag)), percentile(Value, 90), stdev(Value) by Host",
    "T | summarize count() by Value",
    "T | summarize c = count() by tostring(Labels.host) | where c > 10",
    "T | distinct Host, Flag",
    "T | distinct Value",
    "ordered:T | where isnotnull(Timestamp) | order by Timestamp desc | project Timestamp, Value",
    "ordered:T | where isnotnull(Timestamp) | sort by Host asc, Timestamp asc | project Host, Timestamp",
    "ordered:T | summarize count() by SeriesId | order by SeriesId asc",
    "ordered:T | summarize v = max(Value) by SeriesId | order by v nulls first, SeriesId | take 4",
    "ordered:T | where isnotnull(Timestamp) | top 7 by Timestamp desc | project Timestamp, SeriesId",
    "ordered:T | where isnotnull(Timestamp) | sort by Timestamp asc | where Flag | extend p = prev(Value), n = next(Host, 1, 'end')",
    "ordered:T | where isnotnull(Timestamp) | sort by Timestamp asc | serialize rn = row_number() | where rn % 7 == 0 | project rn, Value",
    "ordered:T | where isnotnull(Timestamp) | order by Timestamp asc | extend c = row_cumsum(Count, Host != prev(Host)) | project Timestamp, c",
    "T | where isnotnull(Timestamp) | partition by Host (order by Timestamp asc | extend d = Value - prev(Value) | project Host, Timestamp, d)",
    "T | where isnotnull(Timestamp) | partition hint.strategy=native by SeriesId (top 2 by Timestamp)",
    "T | join kind=inner (T | summarize m = max(Value) by Host) on Host",
    "T | project Host | join (T | where Flag | project Host, Count) on Host",
    "T | where SeriesId < 3 | join kind=leftouter (T | where SeriesId == 2 | project SeriesId, Other = Host, At = Timestamp) on SeriesId",
    "T | where SeriesId < 3 | join kind=rightouter (T | where SeriesId > 1 | summarize c = count() by SeriesId, Host) on SeriesId, Host",
    "T | summarize c = count() by SeriesId | join kind=fullouter (T | where Flag | summarize d = count(), any = max(Count) by SeriesId) on SeriesId",
    "T | project Host, SeriesId | join kind=leftsemi (T | where Value > 8 | project SeriesId) on SeriesId",
    "T | project Host, SeriesId | join kind=leftanti (T | where Value > 8 | project SeriesId) on SeriesId",
    "T | where Value > 8 | project SeriesId | join kind=rightsemi (T | project SeriesId, Host) on SeriesId",
    "T | where Value > 8 | project SeriesId | join kind=rightanti (T | project SeriesId, Host) on SeriesId",
    "T | summarize c = count() by Value | join kind=inner (T | distinct Value) on Value",
    "T | lookup (T | summarize m = max(Count) by Host) on Host",
    "T | project Host, Labels | union (T | where Flag | project Host, Value)",
    "T | where Flag | union kind=outer (print Host = 'x', Extra = 5)",
    "T | mv-expand x = Labels.deep.x to typeof(long) | summarize sum(x) by Host",
    "T | mv-apply x = Labels.deep.x to typeof(long) on (summarize s = sum(x)) | project Host, s",
    "T | where isnotnull(Timestamp) | make-series v = sum(Value) default = 0 on Timestamp from ago(1h) to now() step 10m by Host",
    "T | make-series c = count(), m = max(Value), avg(Count) default = -1 on Timestamp step 7m by tostring(Labels.host), Flag",
    "T | make-series dcount(SeriesId) on Timestamp from ago(1h) to ago(20m) step 11m",
    "T | make-series sum(Value) on Count from -4 to 8 step 2 by Host",
    "T | make-series sum(Count) on SeriesId step 2",
    "T | where false | make-series kind=nonempty sum(Count) on Timestamp from ago(10m) to now() step 5m",
    "T | parse Host with 'Host-' Number:long | summarize count() by Number",
    "T | parse-where Host with * '-' N:int | project N",
    "T | getschema",
    "T | top-nested 2 of Host by c = count(), top-nested 1 of SeriesId by sum(Value)",
    "let M = materialize(T | summarize c = count() by Host); M | where c > toscalar(M | summarize avg(c))",
    "let X = T | where Flag; union X, X | count",
    "range n from 1 to 1000 step 1 | extend m = n % 7 | summarize sum(n) by m",
    "print a = 1, b = 'x', c = dynamic({'k': [1, 2]}), d = now()",
    "T | where Host has_any ('Host', '3') | summarize count() by Host, bin(Value, 2.5)",
];

#[test]
fn queries_over_a_stored_table_agree_with_the_row_interpreter() {
    agree(|fixture| fixture.provider());
}

#[test]
fn queries_over_a_table_with_columns_of_keys_agree_with_the_row_interpreter() {
    agree(|fixture| fixture.provider_with_keys(|_, value| value));
}

/// The columns of keys here say something else than the documents, which shows where an answer comes from.
#[test]
fn keys_are_read_from_their_columns() {
    let fixture = Fixture::new();
    let other = |key: &str, _| Some(if key == "host" { "\"column\"".to_owned() } else { "77".to_owned() });
    let source = Arc::new(Stored(fixture.provider_with_keys(other)));
    let all = fixture.rows.rows.len();
    for (text, count) in [
        ("T | where Labels.host == 'column' | count", all),
        ("T | where Labels['host'] == 'h2' | count", 0),
        ("T | extend x = 1 | project L = Labels, x | order by x asc | take 9999 | where L.n == 77 | count", all),
        ("T | summarize by tostring(Labels.host) | count", 1),
        ("T | extend h = tostring(Labels.host) | where h == 'column' | count", all),
        ("let M = materialize(T | where Labels.host == 'column'); M | count", all),
        ("union T, (T | where Labels.host == 'h2') | count", all),
        ("T | where Flag in ((T | where Labels.host == 'h2' | project Flag)) | count", 0),
        // these read documents
        ("T | where Labels.pod == 'p-3' | count", 7),
        ("T | where tostring(Labels) has 'h2' | count", 58),
    ] {
        let query = bind(&fixture, text).unwrap();
        let answer = engine_rows(&query, source.clone(), limits()).unwrap();
        assert_eq!(canonical_table(&answer[0], true), [format!("Long({count})")], "{text}");
    }
    let whole = bind(&fixture, "T | where Labels.host == 'column'").unwrap();
    let answer = engine_rows(&whole, source, limits()).unwrap();
    assert_eq!(answer[0].columns, fixture.rows.columns, "columns of keys are not in the answer");
}

fn agree(provider: impl Fn(&Fixture) -> Arc<MemTable>) {
    let fixture = Fixture::new();
    let source = Arc::new(Stored(provider(&fixture)));
    let mut failures = Vec::new();
    for text in QUERIES {
        let (ordered, text) = text.strip_prefix("ordered:").map_or((false, *text), |text| (true, text));
        let query = match bind(&fixture, text) {
            Ok(query) => query,
            Err(why) => {
                failures.push(format!("{text}\n  does not bind: {why}"));
                continue;
            }
        };
        let expected = interpreted(&query, &fixture).unwrap();
        match engine_rows(&query, source.clone(), limits()) {
            Err(why) => failures.push(format!("{text}\n  fails: {why}")),
            Ok(actual) => {
                for (expected, actual) in expected.iter().zip(&actual) {
                    let (e, a) = (canonical_table(expected, ordered), canonical_table(actual, ordered));
                    if e != a {
                        let at = e.iter().zip(&a).position(|(e, a)| e != a).unwrap_or(e.len().min(a.len()));
                        let (left, right) = (e.get(at), a.get(at));
                        failures.push(format!(
                            "{text}\n  {} rows and {}; row {at}:\n  expected {left:?}\n  actual   {right:?}",
                            e.len(),
                            a.len()
                        ));
                    }
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} of {} queries differ:\n{}", failures.len(), QUERIES.len(), failures.join("\n"));
}
