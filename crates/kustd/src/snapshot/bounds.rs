//! What the filters of a scan promise about columns, so that extents and row groups can be passed over unread.
//! Filters stay in the plan: bounds only ever leave out rows that no filter would keep.

use std::collections::HashMap;

use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use datafusion::parquet::file::metadata::RowGroupMetaData;
use datafusion::parquet::file::statistics::Statistics;

/// Bounds on columns, by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Bounds {
    /// Inclusive range of whole-number columns.
    ranges: HashMap<String, (i64, i64)>,
    /// Text that a column must equal (one of).
    texts: HashMap<String, Vec<String>>,
}

impl Bounds {
    /// The bounds that all of `filters` together put on columns.
    pub(super) fn of(filters: &[Expr]) -> Bounds {
        let mut bounds = Bounds::default();
        filters.iter().for_each(|filter| bounds.add(filter));
        bounds
    }

    fn add(&mut self, filter: &Expr) {
        match filter {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
                self.add(left);
                self.add(right);
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (&**left, &**right) {
                (Expr::Column(column), Expr::Literal(value, _)) => self.compare(column, *op, value),
                (Expr::Literal(value, _), Expr::Column(column)) => {
                    if let Some(op) = op.swap() {
                        self.compare(column, op, value);
                    }
                }
                _ => {}
            },
            Expr::Between(between) if !between.negated => {
                if let (Expr::Column(column), Expr::Literal(low, _), Expr::Literal(high, _)) =
                    (&*between.expr, &*between.low, &*between.high)
                {
                    self.compare(column, Operator::GtEq, low);
                    self.compare(column, Operator::LtEq, high);
                }
            }
            Expr::InList(list) if !list.negated => {
                let texts: Option<Vec<String>> = list
                    .list
                    .iter()
                    .map(|item| match item {
                        Expr::Literal(value, _) => text(value),
                        _ => None,
                    })
                    .collect();
                if let (Expr::Column(column), Some(texts)) = (&*list.expr, texts) {
                    self.texts.insert(column.name.clone(), texts);
                }
            }
            _ => {}
        }
    }

    fn compare(&mut self, column: &Column, op: Operator, value: &ScalarValue) {
        if let (Operator::Eq, Some(text)) = (op, text(value)) {
            self.texts.insert(column.name.clone(), vec![text]);
        }
        let Some(value) = whole_number(value) else { return };
        let (low, high) = match op {
            Operator::Eq => (value, value),
            Operator::Gt => (value.saturating_add(1), i64::MAX),
            Operator::GtEq => (value, i64::MAX),
            Operator::Lt => (i64::MIN, value.saturating_sub(1)),
            Operator::LtEq => (i64::MIN, value),
            _ => return,
        };
        let range = self.ranges.entry(column.name.clone()).or_insert((i64::MIN, i64::MAX));
        *range = (range.0.max(low), range.1.min(high));
    }

    /// Whether no row with `column` in `present` can pass. `present` of None: all values are null.
    pub(super) fn exclude(&self, column: &str, present: Option<(i64, i64)>) -> bool {
        let Some((low, high)) = self.ranges.get(column) else { return false };
        present.is_none_or(|(least, most)| most < *low || least > *high)
    }

    /// Whether the statistics of a row group exclude it; `file_column` gives a column's name in the file.
    pub(super) fn exclude_group(&self, group: &RowGroupMetaData, file_column: impl Fn(&str) -> Option<String>) -> bool {
        self.ranges.keys().any(|name| {
            let Some(in_file) = file_column(name) else { return false };
            let chunk = group.columns().iter().find(|chunk| chunk.column_path().string() == in_file);
            match chunk.and_then(|chunk| chunk.statistics()) {
                Some(Statistics::Int64(stats)) => match stats.min_opt().zip(stats.max_opt()) {
                    Some((min, max)) => self.exclude(name, Some((*min, *max))),
                    None => false,
                },
                _ => false,
            }
        })
    }

    /// Whether a Bloom filter says that none of the wanted texts is in the row group. Unreadable filters exclude nothing.
    pub(super) fn bloom_excludes(
        &self,
        reader: &ParquetRecordBatchReaderBuilder<std::fs::File>,
        group: usize,
        file_column: impl Fn(&str) -> Option<String>,
    ) -> bool {
        self.texts.iter().any(|(name, texts)| {
            let Some(in_file) = file_column(name) else { return false };
            let chunks = reader.metadata().row_group(group).columns();
            let Some(at) = chunks.iter().position(|chunk| chunk.column_path().string() == in_file) else { return false };
            if chunks[at].bloom_filter_offset().is_none() {
                return false;
            }
            match reader.get_row_group_column_bloom_filter(group, at) {
                Ok(Some(bloom)) => !texts.iter().any(|text| bloom.check(&text.as_str())),
                _ => false,
            }
        })
    }
}

fn whole_number(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::Int64(value) => *value,
        ScalarValue::Int32(value) => value.map(i64::from),
        _ => None,
    }
}

fn text(value: &ScalarValue) -> Option<String> {
    match value {
        ScalarValue::Utf8(text) | ScalarValue::LargeUtf8(text) | ScalarValue::Utf8View(text) => text.clone(),
        ScalarValue::Dictionary(_, value) => text(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{ident, lit};

    use super::*;

    #[test]
    fn ranges_narrow_and_exclude() {
        let bounds = Bounds::of(&[ident("T").gt(lit(10i64)).and(lit(20i64).gt_eq(ident("T"))), ident("S").eq(lit("x"))]);
        assert_eq!(bounds.ranges["T"], (11, 20));
        assert_eq!(bounds.texts["S"], ["x"]);
        assert!(bounds.exclude("T", Some((0, 10))));
        assert!(!bounds.exclude("T", Some((0, 11))));
        assert!(bounds.exclude("T", None));
        assert!(!bounds.exclude("Other", Some((0, 1))));
    }

    #[test]
    fn alternatives_promise_nothing() {
        assert_eq!(Bounds::of(&[ident("T").gt(lit(10i64)).or(ident("S").eq(lit("x")))]), Bounds::default());
    }
}
