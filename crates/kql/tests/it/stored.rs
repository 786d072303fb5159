//! Stored functions over partitioned, ordered rows, the way metric rates are computed: bound and run.

use kql::eval::EvalContext;
use kql::rows::{self, NoTables, RunContext};
use kql::{BindOptions, Catalog, StoredFunction, TableSchema, Value, bind};

struct Functions;

impl Catalog for Functions {
    fn table(&self, _database: Option<&str>, _name: &str) -> Option<TableSchema> {
        None
    }

    fn function(&self, _database: Option<&str>, name: &str) -> Option<StoredFunction> {
        (name == "increase").then(|| StoredFunction {
            name: name.into(),
            parameters: "(T:(Timestamp:datetime, SeriesId:long, Labels:dynamic, Value:real), interval:timespan=1m)".into(),
            body: "{
                T
                | where isnan(Value) == false
                | extend h = SeriesId
                | partition hint.strategy=shuffle by h (
                    as Series
                    | order by h, Timestamp asc
                    | extend before = prev(Value)
                    | extend diff = Value - before
                    | extend Value = case(isnull(before), real(0), diff < 0, Value, diff)
                    | project-away before, diff, h
                )
                | summarize Value = sum(Value) by Timestamp = bin(Timestamp, interval), SeriesId
            }"
            .into(),
            view: false,
        })
    }

    fn tables(&self, _database: Option<&str>, _wildcard: &str) -> Vec<TableSchema> {
        Vec::new()
    }

    fn databases(&self) -> Vec<String> {
        vec!["Metrics".into()]
    }
}

/// Rows of a query over three samples of one counter, which is reset before the last, and one of another.
fn run(query: &str) -> Vec<Vec<Value>> {
    let text = format!(
        "let Samples = datatable(Timestamp: datetime, SeriesId: long, Labels: dynamic, Value: real) [
            datetime(2024-01-01 00:00:30), 1, dynamic({{\"pod\": \"a\"}}), 10.0,
            datetime(2024-01-01 00:00:00), 1, dynamic({{\"pod\": \"a\"}}), 4.0,
            datetime(2024-01-01 00:01:00), 1, dynamic({{\"pod\": \"a\"}}), 3.0,
            datetime(2024-01-01 00:00:00), 2, dynamic({{\"pod\": \"b\"}}), 7.0,
        ];
        {query}"
    );
    let options = BindOptions { database: "Metrics".into(), ..BindOptions::default() };
    let bound = bind(&text, &Functions, &options).unwrap_or_else(|errors| panic!("{errors:?}"));
    let mut context = RunContext::new(&NoTables, EvalContext::new(0));
    rows::run(&bound.results[0], &mut context).unwrap().rows
}

#[test]
fn increase_by_series_with_a_reset() {
    let rows = run("Samples | invoke increase() | order by SeriesId asc, Timestamp asc | project SeriesId, Value");
    let wanted = [(1, 6.0), (1, 3.0), (2, 0.0)];
    assert_eq!(rows, wanted.map(|(id, value)| vec![Value::Long(id), Value::Real(value)]));
}

#[test]
fn the_default_of_a_parameter_gives_way_to_an_argument() {
    let rows = run("Samples | where Labels.pod == 'a' | invoke increase(1h) | project Value");
    assert_eq!(rows, [[Value::Real(9.0)]]);
}

#[test]
fn qualified_names_reach_the_function() {
    let rows = run("database('Metrics').increase(Samples, interval = 1h) | count");
    assert_eq!(rows, [[Value::Long(2)]]);
}
