//! The order of a join's rows, where Kusto's recorded answers show one.

use kql::eval::EvalContext;
use kql::rows::{self, NoTables, RunContext};
use kql::{BindOptions, EmptyCatalog, bind};

/// The rows as text, cells separated by commas.
fn run(query: &str) -> Vec<String> {
    let bound = bind(query, &EmptyCatalog, &BindOptions::default()).unwrap_or_else(|errors| panic!("{errors:?}"));
    let mut context = RunContext::new(&NoTables, EvalContext::new(0));
    let rows = rows::run(&bound.results[0], &mut context).unwrap().rows;
    rows.iter().map(|row| row.iter().map(kql::Value::to_text).collect::<Vec<_>>().join(",")).collect()
}

const TABLES: &str =
    "let L = datatable(k:string, l:long)['b',1, 'b',2, 'a',0]; let R = datatable(k:string, r:long)['b',10, 'c',30, 'b',20];";

#[test]
fn join_goes_through_the_right_rows_and_ends_with_unmatched_left_ones() {
    assert_eq!(
        run(&format!("{TABLES} L | join kind=fullouter R on k")),
        ["b,2,b,10", "b,1,b,10", ",,c,30", "b,2,b,20", "b,1,b,20", "a,0,,"]
    );
    assert_eq!(run(&format!("{TABLES} L | join kind=leftouter R on k")), ["b,2,b,10", "b,1,b,10", "b,2,b,20", "b,1,b,20", "a,0,,"]);
    assert_eq!(run(&format!("{TABLES} L | join R on k")), ["b,1,b,10", "b,1,b,20"]);
}

#[test]
fn lookup_goes_through_the_left_rows() {
    assert_eq!(run(&format!("{TABLES} L | lookup R on k")), ["b,1,20", "b,1,10", "b,2,20", "b,2,10", "a,0,"]);
}
