use crds::conditions::{Desired, Truth, get, is_true, remove, set};
use jiff::Timestamp;

fn desired(status: Truth, message: &str, generation: i64) -> Desired<'_> {
    Desired { type_: "Criteria", status, reason: "CriteriaMatched", message, observed_generation: Some(generation) }
}

#[test]
fn the_transition_time_moves_with_the_status_only() {
    let at = |second| Timestamp::from_second(second).unwrap();
    let mut list = Vec::new();
    assert!(set(&mut list, &desired(Truth::True, "a", 1), at(10)));
    assert!(!set(&mut list, &desired(Truth::True, "a", 1), at(20)), "nothing changed, nothing to write");
    assert!(set(&mut list, &desired(Truth::True, "b", 2), at(30)));
    let condition = get(&list, "Criteria").unwrap();
    assert_eq!((condition.last_transition_time.0, condition.message.as_str(), condition.observed_generation), (at(10), "b", Some(2)));
    assert!(set(&mut list, &desired(Truth::False, "b", 2), at(40)));
    assert_eq!(get(&list, "Criteria").unwrap().last_transition_time.0, at(40));
    assert!(!is_true(&list, "Criteria"));
    assert_eq!(list.len(), 1);
    assert!(remove(&mut list, "Criteria") && !remove(&mut list, "Criteria") && list.is_empty());
}

/// The API server counts characters, and refuses a longer message with the whole status.
#[test]
fn a_message_is_cut_to_what_the_api_server_takes() {
    let mut list = Vec::new();
    set(&mut list, &desired(Truth::Unknown, &"ä".repeat(40_000), 1), Timestamp::UNIX_EPOCH);
    assert_eq!(list[0].message.chars().count(), 32_768);
}
