//! Aggregates against Kusto's documented and recorded answers.
#![allow(clippy::unwrap_used)]

use super::lookup;
use crate::functions::Arg;
use crate::types::Type;
use crate::value::{Dynamic, Value};

/// Runs an aggregate over rows of arguments.
fn run(name: &str, types: &[Type], rows: &[Vec<Value>]) -> Value {
    let function = lookup(name).unwrap();
    let args: Vec<Arg<'_>> = types.iter().map(|ty| Arg { ty: *ty, constant: None }).collect();
    let resolved = (function.resolve)(&args).unwrap();
    let mut state = (function.new)(&resolved.args);
    rows.iter().for_each(|row| state.update(row));
    state.finish()
}

fn longs(name: &str, values: &[i64]) -> Value {
    let rows: Vec<_> = values.iter().map(|v| vec![Value::Long(*v)]).collect();
    run(name, &[Type::Long], &rows)
}

fn reals(name: &str, values: &[f64]) -> Value {
    let rows: Vec<_> = values.iter().map(|v| vec![Value::Real(*v)]).collect();
    run(name, &[Type::Real], &rows)
}

fn json(value: &Value) -> String {
    value.to_json()
}

#[test]
fn empty_groups() {
    assert_eq!(longs("sum", &[]), Value::Long(0));
    assert!(matches!(longs("avg", &[]), Value::Real(v) if v.is_nan()));
    assert_eq!(longs("min", &[]), Value::Null);
    assert_eq!(longs("dcount", &[]), Value::Long(0));
    assert_eq!(reals("stdev", &[]), Value::Real(0.0));
    assert_eq!(json(&longs("make_list", &[])), "[]");
    assert_eq!(json(&run("make_bag", &[Type::Dynamic], &[])), "{}");
}

#[test]
fn spreads() {
    assert_eq!(reals("variance", &[1.0, 2.0, 3.0, 4.0, 5.0]), Value::Real(2.5));
    assert_eq!(reals("variancep", &[1.0, 2.0, 3.0, 4.0, 5.0]), Value::Real(2.0));
    assert_eq!(reals("stdev", &[1.5, 2.5, 3.5]), Value::Real(1.0));
    let rows: Vec<_> = [(1.0, 14.0), (2.0, 10.0), (3.0, 17.0), (4.0, 20.0), (5.0, 50.0)]
        .iter()
        .map(|(x, y)| vec![Value::Real(*x), Value::Real(*y)])
        .collect();
    assert_eq!(run("covariance", &[Type::Real, Type::Real], &rows), Value::Real(20.5));
}

#[test]
fn averages_of_integers_wrap() {
    assert_eq!(longs("avg", &[i64::MAX - 1, 1, i64::MAX]), Value::Real(-2.0 / 3.0));
}

#[test]
fn extremes_take_the_first_row_of_a_tie_and_of_nulls() {
    let types = [Type::Long, Type::String];
    let row = |x: Value, y: &str| vec![x, Value::string(y)];
    let rows = [row(Value::Long(1), "a"), row(Value::Long(2), "b"), row(Value::Long(2), "c"), row(Value::Null, "d")];
    assert_eq!(run("arg_max", &types, &rows), Value::string("b"));
    assert_eq!(run("arg_min", &types, &rows), Value::string("a"));
    assert_eq!(run("arg_max", &types, &[row(Value::Null, "c"), row(Value::Null, "d")]), Value::string("c"));
}

#[test]
fn percentiles_are_of_nearest_rank() {
    let rows: Vec<_> = [(10, 8), (20, 6), (30, 3), (40, 1)].iter().map(|(v, w)| [*v, *w].map(Value::Long).to_vec()).collect();
    for (percent, value) in [(50.0, 20), (75.0, 20), (99.9, 40)] {
        let rows: Vec<_> = rows.iter().map(|row| [row.clone(), vec![Value::Real(percent)]].concat()).collect();
        assert_eq!(run("percentilew", &[Type::Long, Type::Long, Type::Real], &rows), Value::Long(value));
    }
}

#[test]
fn collections_keep_order_and_leave_out_nulls() {
    let rows: Vec<_> = [Value::Long(3), Value::Null, Value::Long(1), Value::Long(3)].map(|v| vec![v]).to_vec();
    assert_eq!(json(&run("make_list", &[Type::Long], &rows)), "[3,1,3]");
    assert_eq!(json(&run("make_list_with_nulls", &[Type::Long], &rows)), "[3,null,1,3]");
    assert_eq!(json(&run("make_set", &[Type::Long], &rows)), "[3,1]");
    let bags: Vec<_> = [r#"{"a":1}"#, r#"{"a":2,"b":3}"#].iter().map(|j| vec![Value::dynamic(Dynamic::parse_json(j).unwrap())]).collect();
    assert_eq!(json(&run("make_bag", &[Type::Dynamic], &bags)), r#"{"a":1,"b":3}"#);
}

#[test]
fn distinct_counts_are_exact_then_close() {
    let few: Vec<i64> = (0..10_000).map(|v| v % 5000).collect();
    assert_eq!(longs("dcount", &few), Value::Long(5000));
    let many: Vec<i64> = (0..100_000).collect();
    let Value::Long(count) = longs("dcount", &many) else { panic!("not a count") };
    assert!((97_000..=103_000).contains(&count), "{count}");
    assert_eq!(longs("count_distinct", &many), Value::Long(100_000));
}

#[test]
fn states_merge() {
    let count = |state: Value| {
        let function = crate::functions::lookup("dcount_hll").unwrap();
        (function.eval)(&mut crate::eval::EvalContext::new(0), &[state])
    };
    let (a, b) = (longs("hll", &(0..30_000).collect::<Vec<_>>()), longs("hll", &[1, 2, 40_000]));
    let Value::Long(merged) = count(run("hll_merge", &[Type::Dynamic], &[vec![a], vec![b.clone()]])) else { panic!("not a count") };
    assert!((29_100..=30_900).contains(&merged), "{merged}");
    assert_eq!(count(b), Value::Long(3));

    let digest = reals("tdigest", &(1..=100_000).map(f64::from).collect::<Vec<_>>());
    let function = crate::functions::lookup("percentile_tdigest").unwrap();
    let median = (function.eval)(&mut crate::eval::EvalContext::new(0), &[digest, Value::Real(50.0)]);
    let Value::Dynamic(Dynamic::Real(median)) = median else { panic!("not a real: {median:?}") };
    assert!((median - 50_000.0).abs() < 500.0, "{median}");
}
