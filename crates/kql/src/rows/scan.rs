//! `scan`: matches a sequence of steps over serialized rows.
//!
//! For each row the steps are tried from the last to the first. A step takes the row when the step before it is active
//! and the condition holds (the match moves on), or when it is active itself and the condition holds (the match stays).
//! The first step begins a new match when it is not active.

use super::prepare::{prepare, prepare_all};
use super::{Row, Rows, RunContext, RunError};
use crate::eval::eval;
use crate::tree::{Expr, Scan, ScanOutput};
use crate::value::Value;

/// A match in progress: for every step the last row it took, and the number of the match.
#[derive(Clone)]
struct Match {
    id: i64,
    rows: Vec<Option<Row>>,
}

struct Machine<'a> {
    plan: &'a Scan,
    conditions: Vec<Expr>,
    assignments: Vec<Vec<Expr>>,
    width: usize,
    states: Vec<Option<Match>>,
    next_id: i64,
    out: Vec<Row>,
}

pub(super) fn scan(input: Rows, plan: &Scan, width: usize, ctx: &mut RunContext<'_>) -> Result<Vec<Row>, RunError> {
    let mut conditions = Vec::new();
    let mut assignments = Vec::new();
    for step in &plan.steps {
        conditions.push(prepare(&step.condition, ctx)?);
        let exprs: Vec<Expr> = step.assignments.iter().map(|(_, expr)| expr.clone()).collect();
        assignments.push(prepare_all(&exprs, ctx)?);
    }
    let states = vec![None; plan.steps.len()];
    let mut machine = Machine { plan, conditions, assignments, width, states, next_id: 0, out: Vec::new() };
    for row in &input.rows {
        for step in (0..plan.steps.len()).rev() {
            machine.offer(step, row, ctx);
        }
    }
    for step in 0..plan.steps.len() {
        machine.leave(step);
    }
    Ok(machine.out)
}

impl Machine<'_> {
    /// Lets a step take the row if it can.
    fn offer(&mut self, step: usize, row: &Row, ctx: &mut RunContext<'_>) {
        let from = self.sources(step).into_iter().find(|from| {
            let state = from.and_then(|from| self.states[from].clone()).unwrap_or_else(|| self.empty());
            eval(&self.conditions[step], &self.scope(step, row, &state), &mut ctx.eval) == Value::Bool(true)
        });
        let Some(from) = from else { return };
        let mut state = match from {
            Some(from) if from == step => self.states[step].take(),
            Some(from) => {
                self.leave(step);
                self.states[from].take()
            }
            None => {
                let fresh = Match { id: self.next_id, ..self.empty() };
                self.next_id += 1;
                Some(fresh)
            }
        }
        .unwrap_or_else(|| self.empty());
        let mut result: Row = row.clone();
        result.extend(self.plan.declared.iter().cloned());
        for ((target, _), expr) in self.plan.steps[step].assignments.iter().zip(&self.assignments[step]) {
            let scope = self.scope_with(&result, &state);
            result[row.len() + target] = eval(expr, &scope, &mut ctx.eval);
        }
        result.resize(self.width, Value::Null);
        if let Some(at) = self.plan.match_id {
            result[at] = Value::Long(state.id);
        }
        if self.plan.steps[step].output == ScanOutput::All {
            self.out.push(result.clone());
        }
        state.rows[step] = Some(result);
        self.states[step] = Some(state);
    }

    /// Where a step may get its match from, best first: the nearest active step before it (skipping optional ones),
    /// itself, or nowhere for a step that may begin a match.
    fn sources(&self, step: usize) -> Vec<Option<usize>> {
        let mut sources = Vec::new();
        let mut before = step;
        while before > 0 {
            before -= 1;
            if self.states[before].is_some() {
                sources.push(Some(before));
                break;
            }
            if !self.plan.steps[before].optional {
                break;
            }
        }
        if self.states[step].is_some() {
            sources.push(Some(step));
        } else if self.plan.steps[..step].iter().all(|earlier| earlier.optional) && sources.is_empty() {
            sources.push(None);
        }
        sources
    }

    /// The match of a step ends: its last row goes out if the step asks for that.
    fn leave(&mut self, step: usize) {
        if let Some(state) = self.states[step].take()
            && self.plan.steps[step].output == ScanOutput::Last
            && let Some(row) = &state.rows[step]
        {
            self.out.push(row.clone());
        }
    }

    fn empty(&self) -> Match {
        Match { id: self.next_id, rows: vec![None; self.plan.steps.len()] }
    }

    /// Columns that expressions of a step see before anything is assigned.
    fn scope(&self, _step: usize, row: &Row, state: &Match) -> Row {
        let mut current = row.clone();
        current.extend(self.plan.declared.iter().cloned());
        self.scope_with(&current, state)
    }

    fn scope_with(&self, current: &Row, state: &Match) -> Row {
        let mut scope = current.clone();
        let input_width = current.len() - self.plan.declared.len();
        for taken in &state.rows {
            match taken {
                Some(row) => scope.extend(row.iter().cloned()),
                None => {
                    scope.extend(std::iter::repeat_n(Value::Null, input_width));
                    scope.extend(self.plan.declared.iter().cloned());
                    scope.extend(std::iter::repeat_n(Value::Null, self.width - current.len()));
                }
            }
        }
        scope
    }
}
