//! The typed tree: what the binder makes of a query, and all that an engine has to run.
//!
//! Names are resolved (columns are positions in the input's schema), `let`, stored functions and `invoke` are
//! inlined, operators and functions are resolved to one overload with casts made explicit, `project` and its
//! family are all [`RelOp::Project`]. Every node says its output columns, so an engine never infers types.

use std::sync::Arc;

use crate::types::{Column, Type};
use crate::value::Value;

/// A bound query: one result table for each tabular statement.
#[derive(Debug, Clone)]
pub struct Query {
    /// Result tables in order, with the name to show (`PrimaryResult` unless named).
    pub results: Vec<Rel>,
    /// `render` as JSON object text for the `Visualization` extended property.
    pub visualization: Option<String>,
}

/// A relational operator with its output columns.
#[derive(Debug, Clone)]
pub struct Rel {
    /// Output columns, in order.
    pub columns: Vec<Column>,
    /// What it does.
    pub op: RelOp,
}

/// Relational operators.
#[derive(Debug, Clone)]
pub enum RelOp {
    /// Rows of a stored table; `columns` of the node is the whole table.
    Table {
        /// Database that holds it.
        database: String,
        /// Table name.
        table: String,
    },
    /// The rows of a query that another cluster runs.
    Remote(Remote),
    /// A branch of `macro-expand` with `best_effort`: when other clusters fail, it has no rows. Not all may fail.
    BestEffort {
        /// The branch.
        input: Box<Rel>,
        /// Its number, from 0.
        branch: usize,
        /// All of them, shared by identity of the `Arc`.
        branches: Arc<Branches>,
    },
    /// Constant rows: `datatable`, `print` (expressions without input are folded by the engine from one empty row).
    Values(Arc<Vec<Vec<Value>>>),
    /// `range name from a to b step c`; bounds are constant expressions without columns.
    Range {
        /// First value.
        from: Expr,
        /// Last value, inclusive.
        to: Expr,
        /// Step.
        step: Expr,
    },
    /// The rows bound to the sub-query of `partition`, `mv-apply` or `fork` while it runs.
    Argument,
    /// A sub-plan computed once for the whole query (`materialize`, `as`), shared by identity of the `Arc`.
    Materialize(Arc<Rel>),
    /// Keeps the rows whose predicate is true (null is not).
    Filter(Box<Rel>, Expr),
    /// One expression per output column: project, extend, project-away, -keep, -rename, -reorder.
    /// An expression may contain [`ExprKind::Window`] when the input is serialized.
    Project(Box<Rel>, Vec<Expr>),
    /// `summarize`: output is the keys, then the aggregates. No keys: one row even without input.
    Summarize {
        /// Input.
        input: Box<Rel>,
        /// Group keys.
        keys: Vec<Expr>,
        /// Aggregates.
        aggregates: Vec<Aggregate>,
    },
    /// `distinct`: all columns of the input.
    Distinct(Box<Rel>),
    /// `order by`; also marks the rows serialized. Stable.
    Sort(Box<Rel>, Vec<SortKey>),
    /// `serialize` without expressions: rows keep the order they have.
    Serialize(Box<Rel>),
    /// The first rows: `take`, `limit`, the second half of `top`.
    Take(Box<Rel>, u64),
    /// `count`
    Count(Box<Rel>),
    /// Joins. Output columns are left then right as kept by the kind (a following Project renames and drops).
    Join {
        /// Left input.
        left: Box<Rel>,
        /// Right input.
        right: Box<Rel>,
        /// Kind.
        kind: JoinKind,
        /// Pairs of key expressions of equal type: (over left, over right). Nulls match nulls.
        on: Vec<(Expr, Expr)>,
        /// `lookup`: rows come in the order of the left input, not in that of the right.
        lookup: bool,
    },
    /// Concatenation; every input has exactly the node's columns. Order of inputs is kept.
    Union(Vec<Rel>),
    /// `mv-expand`. Output: the input's columns with the expanded ones replaced in place or appended,
    /// then the index column if asked for.
    MvExpand(Box<MvExpand>),
    /// `mv-apply`: expands like [`RelOp::MvExpand`], runs the sub-query for each input row; output is the kept input
    /// columns followed by the sub-query's.
    MvApply {
        /// The expansion.
        expand: Box<MvExpand>,
        /// Over [`RelOp::Argument`], whose columns are those of the expansion.
        subquery: Box<Rel>,
        /// Positions of the input's columns to put in front of the sub-query's columns.
        keep: Vec<usize>,
    },
    /// `make-series`. Output: group keys, one array column per aggregate, the axis array, in the order of `columns`:
    /// keys, aggregates, axis.
    MakeSeries(Box<MakeSeries>),
    /// `parse`, `parse-where`. Output: the input's columns with captured ones replaced in place or appended.
    Parse(Box<Parse>),
    /// `parse-kv`. Output: the input's columns with extracted ones replaced or appended.
    ParseKv(Box<ParseKv>),
    /// `partition by`: runs the sub-query for each distinct key; output is the union.
    Partition {
        /// Input.
        input: Box<Rel>,
        /// Key column (position).
        key: usize,
        /// Over [`RelOp::Argument`] with the input's columns.
        subquery: Box<Rel>,
    },
    /// `top-nested`
    TopNested {
        /// Input.
        input: Box<Rel>,
        /// Levels, outermost first.
        levels: Vec<TopNestedLevel>,
    },
    /// `scan`
    Scan(Box<Scan>),
    /// `sample n` (any rows), `sample-distinct n of column` when `column` is set.
    Sample {
        /// Input.
        input: Box<Rel>,
        /// How many.
        count: u64,
        /// For `sample-distinct`.
        column: Option<usize>,
    },
    /// A plugin whose output columns are known when binding (`evaluate bag_unpack(d) : (a:string)`, `narrow`, …) or
    /// found by running its input (`bag_unpack`, `pivot`): then `columns` is empty and `open_schema` is true, and the
    /// binder cannot resolve names behind it unless it runs the input first through [`crate::Catalog::materialize`].
    Evaluate {
        /// Input.
        input: Box<Rel>,
        /// Plugin name, lower case.
        plugin: String,
        /// Arguments; column references are over the input.
        args: Vec<Expr>,
        /// Whether the columns are only known by running.
        open_schema: bool,
    },
    /// `getschema`: ColumnName, ColumnOrdinal, DataType, ColumnType.
    GetSchema(Box<Rel>),
}

/// A query of another cluster, whose columns are those of its node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Remote {
    /// Address of the cluster, as [`crate::Catalog::cluster`] gave it.
    pub cluster: String,
    /// Database that the query runs in.
    pub database: String,
    /// KQL text, to which operators may be appended.
    pub query: String,
}

/// The branches of one `macro-expand`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branches {
    /// How many there are.
    pub count: usize,
}

/// Kinds of join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinKind {
    /// The default: the left side keeps its first row of each key, then inner.
    InnerUnique,
    /// All matching pairs.
    Inner,
    /// Also left rows without a match.
    LeftOuter,
    /// Also right rows without a match.
    RightOuter,
    /// Both.
    FullOuter,
    /// Left rows with a match; columns of the left only.
    LeftSemi,
    /// Right rows with a match; columns of the right only.
    RightSemi,
    /// Left rows without a match; columns of the left only.
    LeftAnti,
    /// Right rows without a match; columns of the right only.
    RightAnti,
}

/// One sort key.
#[derive(Debug, Clone)]
pub struct SortKey {
    /// What to order by.
    pub expr: Expr,
    /// Largest first (the default of KQL).
    pub descending: bool,
    /// Nulls first (the default when ascending).
    pub nulls_first: bool,
}

/// An aggregate function applied.
#[derive(Debug, Clone)]
pub struct Aggregate {
    /// Entry of [`crate::aggregates`], by canonical name.
    pub function: &'static str,
    /// Arguments over the input.
    pub args: Vec<Expr>,
    /// Result type.
    pub ty: Type,
}

/// See [`RelOp::MvExpand`].
#[derive(Debug, Clone)]
pub struct MvExpand {
    /// Input.
    pub input: Rel,
    /// What to expand: (expression over the input, output column position, type to convert the elements to).
    pub columns: Vec<(Expr, usize, Type)>,
    /// For every output column that is not expanded: its input position.
    pub keep: Vec<(usize, usize)>,
    /// Output position of `with_itemindex`, if any.
    pub item_index: Option<usize>,
    /// `bagexpansion=array`: bags become [key, value] arrays instead of single-key bags.
    pub bag_as_array: bool,
    /// Largest number of rows made of one row.
    pub limit: Option<u64>,
}

/// See [`RelOp::MakeSeries`].
#[derive(Debug, Clone)]
pub struct MakeSeries {
    /// Input.
    pub input: Rel,
    /// Aggregates with the default for empty bins (constant; None: 0 in the aggregate's type).
    pub aggregates: Vec<(Aggregate, Option<Expr>)>,
    /// The axis over the input: datetime or a number.
    pub axis: Expr,
    /// First bin; None: smallest axis value.
    pub from: Option<Expr>,
    /// End, exclusive; None: after the largest axis value.
    pub to: Option<Expr>,
    /// Width of a bin.
    pub step: Expr,
    /// Group keys.
    pub keys: Vec<Expr>,
    /// `kind=nonempty`: one row of defaults when there is no input.
    pub nonempty: bool,
}

/// See [`RelOp::Parse`].
#[derive(Debug, Clone)]
pub struct Parse {
    /// Input.
    pub input: Rel,
    /// Text to parse.
    pub source: Expr,
    /// How literals match.
    pub kind: ParseKind,
    /// Regex flags of `kind=regex`.
    pub flags: String,
    /// The pattern.
    pub pattern: Vec<ParsePiece>,
    /// `parse-where`: rows that do not match are dropped.
    pub filter: bool,
    /// For every output column that is not captured: (output position, input position).
    pub keep: Vec<(usize, usize)>,
}

/// `kind=` of parse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParseKind {
    /// A failed conversion gives nulls for the whole row.
    Simple,
    /// A failed conversion gives null for that column only.
    Relaxed,
    /// Literals are regular expressions.
    Regex,
}

/// A part of a parse pattern.
#[derive(Debug, Clone)]
pub enum ParsePiece {
    /// Text (or regex) to find.
    Literal(String),
    /// `*`
    Skip,
    /// A capture: output column position and type.
    Capture(usize, Type),
}

/// See [`RelOp::ParseKv`].
#[derive(Debug, Clone)]
pub struct ParseKv {
    /// Input.
    pub input: Rel,
    /// Text to parse.
    pub source: Expr,
    /// Keys to extract: name, output position, type.
    pub keys: Vec<(String, usize, Type)>,
    /// For every output column that is not extracted: (output position, input position).
    pub keep: Vec<(usize, usize)>,
    /// `pair_delimiter`
    pub pair_delimiter: String,
    /// `kv_delimiter`
    pub kv_delimiter: String,
    /// `quote`: opening and closing.
    pub quotes: Vec<(char, char)>,
    /// `escape`
    pub escape: Option<char>,
    /// `greedy=true`
    pub greedy: bool,
    /// `regex`: group 1 is the key, group 2 the value.
    pub regex: Option<String>,
}

/// One level of `top-nested`.
#[derive(Debug, Clone)]
pub struct TopNestedLevel {
    /// How many; None: all.
    pub count: Option<u64>,
    /// Grouping expression.
    pub of: Expr,
    /// Constant for `with others`.
    pub others: Option<Value>,
    /// Ranking aggregate.
    pub by: Aggregate,
    /// Ascending order.
    pub ascending: bool,
}

/// See [`RelOp::Scan`]. Output: input columns, then declared ones.
#[derive(Debug, Clone)]
pub struct Scan {
    /// Input, serialized.
    pub input: Rel,
    /// Declared columns: initial values (constants).
    pub declared: Vec<Value>,
    /// `with_match_id`: output position.
    pub match_id: Option<usize>,
    /// Steps in order.
    pub steps: Vec<ScanStep>,
}

/// One step of `scan`. Expressions are over: the current row's input columns, the declared columns being assigned,
/// then for every step its state (all output columns), in order of the steps.
#[derive(Debug, Clone)]
pub struct ScanStep {
    /// Name.
    pub name: String,
    /// `optional`
    pub optional: bool,
    /// `output=`: all, last, none
    pub output: ScanOutput,
    /// Condition.
    pub condition: Expr,
    /// Assignments: declared column (index), value.
    pub assignments: Vec<(usize, Expr)>,
}

/// Which rows a scan step puts out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanOutput {
    /// Every row.
    All,
    /// The last one of a run.
    Last,
    /// None.
    None,
}

/// A typed scalar expression.
#[derive(Debug, Clone)]
pub struct Expr {
    /// Type of the result.
    pub ty: Type,
    /// What it computes.
    pub kind: ExprKind,
}

/// Kinds of expression.
#[derive(Debug, Clone)]
pub enum ExprKind {
    /// A constant.
    Const(Value),
    /// Column of the input, by position.
    Column(usize),
    /// A scalar function or operator, by the canonical name of its entry in [`crate::functions`]. Operators are
    /// functions named as they are written: `+ - * / % == != < <= > >= =~ !~ and or has !has has_cs … in !in in~ !in~
    /// between !between`, unary minus `neg`, path access `[]` (dynamic, string or long index), casts `tolong` …,
    /// `iff`, `case`. Arguments have the types that the function's `resolve` accepted.
    Call {
        /// Canonical name.
        function: &'static str,
        /// Arguments.
        args: Vec<Expr>,
    },
    /// A window function over serialized rows, all rows as one partition:
    /// `prev`, `next` (expr, offset, default), `row_number` (start, restart), `row_cumsum` (expr, restart),
    /// `row_rank_dense`, `row_rank_min` (expr, restart), `row_window_session` (expr, max from first, max between, restart).
    Window {
        /// Name.
        function: &'static str,
        /// Arguments.
        args: Vec<Expr>,
    },
    /// `toscalar(query)`: first column of the first row, null without rows. Uncorrelated.
    ScalarSubquery(Arc<Rel>),
    /// `x in (query)`, over the sub-query's first column. Uncorrelated. `=~` semantics when case-insensitive.
    InSubquery {
        /// What to look for.
        needle: Box<Expr>,
        /// Where.
        query: Arc<Rel>,
        /// `!in`
        negated: bool,
        /// `in~`
        case_insensitive: bool,
    },
}

impl Expr {
    /// A constant of that type.
    pub fn constant(value: Value, ty: Type) -> Expr {
        Expr { ty, kind: ExprKind::Const(value) }
    }

    /// Column `index` of the input.
    pub fn column(index: usize, ty: Type) -> Expr {
        Expr { ty, kind: ExprKind::Column(index) }
    }
}
