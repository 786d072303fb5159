use super::AggregateFunction;

pub(super) static AGGREGATES: &[AggregateFunction] = &[];
