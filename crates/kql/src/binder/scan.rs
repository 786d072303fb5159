//! `scan`: expressions see the row, the declared columns, and the state of every step as `step.column`.

use super::names::Unique;
use super::scope::{Cx, Env, Row, Table};
use super::{Bind, Binder};
use crate::ast::{self, ExprKind as Ast, ParameterType, Span};
use crate::diagnostic::Diagnostic;
use crate::tree::{Expr, RelOp, Scan, ScanOutput, ScanStep};
use crate::types::{Column, Type};
use crate::value::Value;

impl Binder<'_> {
    pub(super) fn scan(&mut self, input: Table, spec: &ast::Scan, env: &Env, span: &Span) -> Bind<Table> {
        if !spec.partition.is_empty() || !spec.order.is_empty() {
            return Err(Diagnostic::unsupported(span.clone(), "scan with 'partition by' or 'order by'"));
        }
        let (declared, values) = self.scan_columns(spec, env)?;
        let mut current = input.columns().to_vec();
        current.extend(declared.iter().cloned());
        let mut names = Unique::new();
        if let Some(twice) = current.iter().find(|column| !names.take(&column.name)) {
            let message = format!("'scan' operator: a column named '{}' is already there", twice.name);
            return Err(Diagnostic::semantic("SEM0034", span.clone(), message));
        }
        let mut columns = current.clone();
        let mut match_id = None;
        for option in &spec.options {
            match (option.name.text.as_str(), &option.value.kind) {
                ("with_match_id", Ast::Name(name)) => {
                    match_id = Some(columns.len());
                    columns.push(Column::new(name, Type::Long));
                }
                (name, _) => {
                    let what = format!("the option '{name}' of scan");
                    return Err(Diagnostic::unsupported(option.name.span.clone(), what));
                }
            }
        }
        let step_names: Vec<String> = spec.steps.iter().map(|step| step.name.text.clone()).collect();
        let row = Row { steps: &step_names, state_columns: &columns, ..Row::of(&current, false) };
        let scope = self.new_scope();
        let cx = Cx { env, row: Some(row), scope, operator: "scan", aggregates: None };
        let mut steps = Vec::with_capacity(spec.steps.len());
        for step in &spec.steps {
            steps.push(self.scan_step(step, &declared, &cx)?);
        }
        let size = input.size + 1;
        let plan = Scan { input: input.rel, declared: values, match_id, steps };
        Ok(Table::new(columns.clone(), RelOp::Scan(Box::new(plan)), size))
    }

    /// Declared columns and their first values.
    fn scan_columns(&mut self, spec: &ast::Scan, env: &Env) -> Bind<(Vec<Column>, Vec<Value>)> {
        let (mut columns, mut values) = (Vec::new(), Vec::new());
        for parameter in &spec.declared {
            let ParameterType::Scalar(ty) = parameter.ty else {
                return Err(Diagnostic::unsupported(parameter.name.span.clone(), "a table declared in scan"));
            };
            columns.push(Column::new(&parameter.name.text, ty));
            values.push(match &parameter.default {
                Some(default) => {
                    let (value, from) = self.constant(default, &Cx::constant(env, "scan"))?;
                    let converted = self.convert(Expr::constant(value, from), ty, &default.span)?;
                    self.constant_value(&converted).unwrap_or(Ok(Value::Null))?
                }
                None => Value::null_of(ty),
            });
        }
        Ok((columns, values))
    }

    fn scan_step(&mut self, step: &ast::ScanStep, declared: &[Column], cx: &Cx<'_>) -> Bind<ScanStep> {
        let output = match step.output.as_ref().map(|n| n.text.as_str()) {
            None | Some("all") => ScanOutput::All,
            Some("last") => ScanOutput::Last,
            Some("none") => ScanOutput::None,
            Some(other) => {
                let message = format!("'scan' operator: unknown output '{other}'");
                return Err(Diagnostic::semantic("SEM0001", step.name.span.clone(), message));
            }
        };
        let condition = self.predicate(&step.condition, cx)?;
        let mut assignments = Vec::with_capacity(step.assignments.len());
        for assignment in &step.assignments {
            let Ast::Assign(names, value) = &assignment.kind else {
                let message = "'scan' operator: an assignment is expected here";
                return Err(Diagnostic::semantic("SEM0001", assignment.span.clone(), message));
            };
            let target = names.first().and_then(|n| declared.iter().position(|c| c.name == n.text));
            let Some(target) = target.filter(|_| names.len() == 1) else {
                let message = "'scan' operator: only declared columns can be assigned";
                return Err(Diagnostic::semantic("SEM0100", assignment.span.clone(), message));
            };
            let bound = self.scalar(value, cx)?;
            assignments.push((target, self.convert(bound, declared[target].ty, &value.span)?));
        }
        Ok(ScanStep { name: step.name.text.clone(), optional: step.optional, output, condition, assignments })
    }
}
