//! Kernels against the row evaluator: for every operation with a kernel, random arguments as columns and as constants,
//! in plain and in dictionary storage, must give what [`kql::eval`] gives row by row.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use kql::eval::EvalContext;
use kql::tree::{Expr, ExprKind};
use kql::value::UNIX_EPOCH_TICKS;
use kql::{Dynamic, Type, Value, eval};
use proptest::prelude::*;

use super::kernel::Evaluation;
use super::program::Program;
use crate::engine::values::{ColumnReader, dictionary_type, values_to_array};

/// Operations with the types of their arguments and result.
const OPERATIONS: &[(&str, &[Type], Type)] = {
    use Type::{Bool, DateTime, Dynamic, Int, Long, Real, String, TimeSpan};
    &[
        ("==", &[Long, Long], Bool),
        ("!=", &[Long, Long], Bool),
        ("<", &[Long, Long], Bool),
        (">=", &[DateTime, DateTime], Bool),
        ("<=", &[TimeSpan, TimeSpan], Bool),
        (">", &[Int, Int], Bool),
        ("==", &[Int, Int], Bool),
        ("==", &[Real, Real], Bool),
        ("!=", &[Real, Real], Bool),
        ("<", &[Real, Real], Bool),
        (">=", &[Real, Real], Bool),
        ("==", &[String, String], Bool),
        ("!=", &[String, String], Bool),
        ("==", &[Dynamic, String], Bool),
        ("in", &[String, String, String], Bool),
        ("!in", &[Long, Long, Long], Bool),
        ("in", &[Long, Long, Long], Bool),
        ("between", &[Long, Long, Long], Bool),
        ("between", &[DateTime, DateTime, DateTime], Bool),
        ("isnull", &[Real], Bool),
        ("isnotnull", &[String], Bool),
        ("isempty", &[String], Bool),
        ("isnotempty", &[Dynamic], Bool),
        ("isempty", &[Long], Bool),
        ("and", &[Bool, Bool, Bool], Bool),
        ("or", &[Bool, Bool], Bool),
        ("not", &[Bool], Bool),
        ("iff", &[Bool, Long, Long], Long),
        ("iff", &[Bool, String, String], String),
        ("+", &[Long, Long], Long),
        ("-", &[Long, Long], Long),
        ("*", &[Long, Long], Long),
        ("/", &[Long, Long], Long),
        ("+", &[Real, Real], Real),
        ("/", &[Real, Real], Real),
        ("*", &[Real, Real], Real),
        ("+", &[DateTime, TimeSpan], DateTime),
        ("-", &[DateTime, TimeSpan], DateTime),
        ("-", &[DateTime, DateTime], TimeSpan),
        ("+", &[TimeSpan, TimeSpan], TimeSpan),
        ("bin", &[Long, Long], Long),
        ("bin", &[DateTime, TimeSpan], DateTime),
        ("bin", &[TimeSpan, TimeSpan], TimeSpan),
        ("bin", &[Real, Real], Real),
        ("bin_at", &[Long, Long, Long], Long),
        ("bin_at", &[DateTime, TimeSpan, DateTime], DateTime),
        ("bin_at", &[Real, Real, Real], Real),
        ("tolong", &[Int], Long),
        ("tolong", &[Real], Long),
        ("toreal", &[Long], Real),
        ("toreal", &[Int], Real),
        ("[]", &[Dynamic, String], Dynamic),
        ("=~", &[String, String], Bool),
        ("!~", &[String, String], Bool),
        ("contains", &[String, String], Bool),
        ("!contains_cs", &[String, String], Bool),
        ("startswith", &[String, String], Bool),
        ("!startswith_cs", &[String, String], Bool),
        ("endswith", &[String, String], Bool),
        ("has", &[String, String], Bool),
        ("!has", &[String, String], Bool),
        ("has_cs", &[String, String], Bool),
        ("hasprefix", &[String, String], Bool),
        ("!hassuffix_cs", &[String, String], Bool),
        ("strlen", &[String], Long),
    ]
};

/// Few and close values, so that equality and edges are common.
fn value(ty: Type) -> BoxedStrategy<Value> {
    let long = prop_oneof![-3_i64..4, Just(i64::MAX), Just(i64::MIN), any::<i64>()];
    let some = match ty {
        Type::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        Type::Int => prop_oneof![-3_i32..4, Just(i32::MIN), any::<i32>()].prop_map(Value::Int).boxed(),
        Type::Long => long.prop_map(Value::Long).boxed(),
        Type::TimeSpan => long.prop_map(Value::TimeSpan).boxed(),
        Type::DateTime => {
            let ticks = prop_oneof![0_i64..4, UNIX_EPOCH_TICKS..UNIX_EPOCH_TICKS + 4, Just(kql::value::MAX_DATETIME_TICKS)];
            ticks.prop_map(Value::DateTime).boxed()
        }
        Type::Real => {
            let real = prop_oneof![Just(0.0), Just(-0.0), Just(f64::NAN), Just(f64::INFINITY), Just(2.5), any::<f64>()];
            real.prop_map(Value::Real).boxed()
        }
        Type::Dynamic => {
            let text = prop::sample::select(DOCUMENTS);
            text.prop_map(|text| Dynamic::parse_json(text).map_or(Value::Null, Value::dynamic)).boxed()
        }
        _ => return prop::sample::select(TEXTS).prop_map(Value::string).boxed(),
    };
    prop_oneof![4 => some, 1 => Just(Value::Null)].boxed()
}

const TEXTS: &[&str] =
    &["", "a", "A", "ab", "a b", "foo_bar", "Foo-Bar baz", "foobar", "bar", "É foo", "é", "straße", "k8s.pod", "null", "5"];

const DOCUMENTS: &[&str] = &[
    "null",
    "5",
    "\"a\"",
    "[1,2]",
    "{}",
    r#"{"a":"A","foo_bar":1.5}"#,
    r#"{"a":null,"bar":{"a":"x\"y"}}"#,
    r#"{"ab":[1,"2"],"a":true,"":"empty"}"#,
    r#"{"a":"Foo-Bar baz","5":5}"#,
];

/// Rows of columns of those types.
fn table(types: &'static [Type]) -> impl Strategy<Value = Vec<Vec<Value>>> {
    let columns: Vec<_> = types.iter().map(|ty| prop::collection::vec(value(*ty), 20)).collect();
    columns.prop_map(|columns| (0..20).map(|row| columns.iter().map(|column| column[row].clone()).collect()).collect())
}

fn storage(rows: &[Vec<Value>], column: usize, ty: Type, dictionary: bool) -> ArrayRef {
    let array = values_to_array(rows.iter().map(|row| &row[column]), ty).unwrap();
    if dictionary && matches!(ty, Type::String | Type::Dynamic) { cast(&array, &dictionary_type()).unwrap() } else { array }
}

/// Runs an expression both ways.
fn check(expr: &Expr, types: &[Type], rows: &[Vec<Value>], dictionary: bool) -> Result<(), TestCaseError> {
    let arrays: Vec<ArrayRef> = types.iter().enumerate().map(|(index, ty)| storage(rows, index, *ty, dictionary)).collect();
    let program = Program::compile(expr);
    let evaluation = Evaluation::new(0);
    let mut context = EvalContext::new(0);
    // Twice: the second time, dictionaries are known.
    for _ in 0..3 {
        let result = program.evaluate(&arrays, rows.len(), &evaluation).unwrap();
        let mut reader = ColumnReader::new(&result, expr.ty).unwrap();
        for (index, row) in rows.iter().enumerate() {
            let expected = eval::eval(expr, row, &mut context);
            let actual = reader.value(index);
            prop_assert!(same(&expected, &actual), "row {row:?}: row evaluation gives {expected:?}, the kernel {actual:?} for {expr:?}");
        }
    }
    Ok(())
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Real(a), Value::Real(b)) => a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()),
        _ => a == b,
    }
}

fn call(function: &'static str, args: Vec<Expr>, ty: Type) -> Expr {
    Expr { ty, kind: ExprKind::Call { function, args } }
}

proptest! {
    #[test]
    fn every_kernel_agrees_with_row_evaluation(
        (operation, rows) in prop::sample::select(OPERATIONS).prop_flat_map(|operation| (Just(operation), table(operation.1))),
        constants in any::<u8>(),
        dictionary in any::<bool>(),
    ) {
        let (function, types, ty) = operation;
        // Any of the arguments may be a constant, taken from the first row.
        let args = types.iter().enumerate().map(|(index, ty)| match constants & (1 << index) {
            0 => Expr::column(index, *ty),
            _ => Expr::constant(rows[0][index].clone(), *ty),
        });
        check(&call(function, args.collect(), ty), types, &rows, dictionary)?;
    }

    #[test]
    fn text_of_a_path_agrees_with_row_evaluation(
        rows in table(&[Type::Dynamic, Type::String]),
        keys in prop::collection::vec(prop::sample::select(&["a", "bar", "foo_bar", "", "5"][..]), 0..3),
        dictionary in any::<bool>(),
    ) {
        let path = keys.into_iter().fold(Expr::column(0, Type::Dynamic), |base, key| {
            call("[]", vec![base, Expr::constant(Value::string(key), Type::String)], Type::Dynamic)
        });
        let text = call("tostring", vec![path.clone()], Type::String);
        let types = &[Type::Dynamic, Type::String];
        check(&text, types, &rows, dictionary)?;
        let first = Expr::constant(rows[0][1].clone(), Type::String);
        check(&call("==", vec![text.clone(), first], Type::Bool), types, &rows, dictionary)?;
        check(&call("==", vec![text, Expr::column(1, Type::String)], Type::Bool), types, &rows, dictionary)?;
        for operator in ["==", "!="] {
            let value = Expr::constant(rows[0][1].clone(), Type::String);
            check(&call(operator, vec![path.clone(), value], Type::Bool), types, &rows, dictionary)?;
        }
        check(&call("isnull", vec![path], Type::Bool), types, &rows, dictionary)?;
    }
}

/// Documents are compared without reading them where the text does not occur in them; escapes may hide it.
#[test]
fn a_text_behind_escapes_is_found() {
    let documents = [r#"{"a":"b\u0061r"}"#, r#"{"a":"bar"}"#, r#"{"a":"barn"}"#, r#"{"b":"bar"}"#, r#"{"a":true}"#, r#"{"a":5.0}"#];
    let array: ArrayRef = Arc::new(datafusion::arrow::array::StringArray::from(documents.to_vec()));
    let path = call("[]", vec![Expr::column(0, Type::Dynamic), Expr::constant(Value::string("a"), Type::String)], Type::Dynamic);
    for text in ["bar", "true", "True", "5", "5.0", "no"] {
        for operator in ["==", "!="] {
            let expr = call(operator, vec![path.clone(), Expr::constant(Value::string(text), Type::String)], Type::Bool);
            let result = Program::compile(&expr).evaluate(std::slice::from_ref(&array), documents.len(), &Evaluation::new(0)).unwrap();
            let mut context = EvalContext::new(0);
            let by_row = |document: &&str| {
                let row = [Dynamic::parse_json(document).map_or(Value::Null, Value::dynamic)];
                matches!(eval::eval(&expr, &row, &mut context), Value::Bool(true))
            };
            let expected: Vec<Option<bool>> = documents.iter().map(by_row).map(Some).collect();
            assert_eq!(result.as_boolean().iter().collect::<Vec<_>>(), expected, "{operator} {text}");
        }
    }
}

#[test]
fn a_dictionary_larger_than_a_batch_is_computed_for_the_used_values_first() {
    let texts: Vec<String> = (0..100).map(|n| format!("value {n}")).collect();
    let values: ArrayRef = Arc::new(datafusion::arrow::array::StringArray::from(texts));
    let keys = datafusion::arrow::array::Int32Array::from(vec![Some(7), None, Some(99), Some(7)]);
    let array: ArrayRef = Arc::new(datafusion::arrow::array::DictionaryArray::new(keys, values));
    let expr = call("endswith", vec![Expr::column(0, Type::String), Expr::constant(Value::string("7"), Type::String)], Type::Bool);
    let program = Program::compile(&expr);
    let evaluation = Evaluation::new(0);
    for _ in 0..3 {
        let result = program.evaluate(std::slice::from_ref(&array), 4, &evaluation).unwrap();
        let answers: Vec<_> = result.as_boolean().iter().collect();
        assert_eq!(answers, [Some(true), Some(false), Some(false), Some(true)]);
    }
}
