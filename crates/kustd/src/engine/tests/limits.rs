//! Limits on memory, time, size of the answer and depth of the query.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Fixture, Stored, bind, block_on, engine_rows, limits};
use crate::engine::{QueryLimits, run, runtime};

fn outcome(text: &str, limits: QueryLimits) -> Result<usize, &'static str> {
    let fixture = Fixture::new();
    let query = bind(&fixture, text).unwrap();
    let source = Arc::new(Stored(fixture.provider()));
    engine_rows(&query, source, limits).map(|tables| tables[0].rows.len()).map_err(|error| error.code)
}

#[test]
fn an_answer_with_too_many_rows_is_an_error_unless_truncation_is_off() {
    let few = || QueryLimits { max_rows: Some(299), ..limits() };
    assert_eq!(outcome("T", few()), Err("E_QUERY_RESULT_SET_TOO_LARGE"));
    assert_eq!(outcome("T | take 299", few()), Ok(299));
    assert_eq!(outcome("T", few().without_truncation()), Ok(300));
}

#[test]
fn an_answer_with_too_many_bytes_is_an_error() {
    let small = QueryLimits { max_bytes: Some(1_000), ..limits() };
    assert_eq!(outcome("T", small.clone()), Err("E_QUERY_RESULT_SET_TOO_LARGE"));
    assert_eq!(outcome("T | count", small), Ok(1));
}

#[test]
fn operators_in_memory_are_held_to_the_memory_limit() {
    let small = QueryLimits { memory: 100_000, ..limits() };
    assert_eq!(outcome("T | join kind=inner T on Flag | mv-expand Labels", small), Err("E_RUNAWAY_QUERY"));
}

#[test]
fn a_passed_deadline_and_a_cancellation_end_a_query() {
    let text = "range a from 1 to 3000000 step 1 | extend k = 1 | summarize count() by a, k";
    let late = QueryLimits { deadline: Some(Instant::now()), ..limits() };
    assert_eq!(outcome(text, late), Err("E_QUERY_TIMEOUT"));
    let cancelled = limits();
    cancelled.cancel.cancel();
    assert_eq!(outcome(text, cancelled), Err("E_QUERY_CANCELLED"));
}

#[test]
fn a_query_waits_for_a_place_as_long_as_it_may() {
    let soon = || QueryLimits { deadline: Some(Instant::now() + Duration::from_millis(50)), ..limits() };
    let all = u32::try_from(runtime::place_count()).unwrap();
    let taken = block_on(runtime::places().acquire_many(all)).unwrap();
    assert_eq!(outcome("T | count", soon()), Err("E_QUERY_TIMEOUT"));
    drop(taken);
    assert_eq!(outcome("T | count", limits()), Ok(1));
}

#[test]
fn deep_queries_run_or_are_refused_but_do_not_overflow_the_stack() {
    let chain = |operators: usize| {
        let mut text = "T".to_owned();
        for n in 0..operators {
            write!(text, " | where SeriesId != {} | extend Count = Count + 1", 100 + n).unwrap();
        }
        text
    };
    assert!(outcome(&chain(60), limits()).is_ok());
    let fixture = Fixture::new();
    // The parser may refuse it before the engine does.
    if let Ok(query) = bind(&fixture, &chain(2_000)) {
        let error = block_on(run(&query, Arc::new(Stored(fixture.provider())), limits())).unwrap_err();
        assert_eq!(error.code, "E_QUERY_TOO_COMPLEX");
    }
}
