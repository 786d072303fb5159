//! The syntax tree: what the parser makes of the text, with a span on every node and no names resolved.
//!
//! Scalar and tabular expressions share [`Expr`], because KQL lets either stand after `let`, in parentheses and as an
//! argument; the binder tells them apart.

use std::ops::Range;

use crate::types::Type;
use crate::value::Value;

/// Bytes of the query text.
pub type Span = Range<usize>;

/// A name with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Name {
    /// The name without quoting.
    pub text: String,
    /// Its place.
    pub span: Span,
}

/// A statement; they are separated by `;`.
#[derive(Debug, Clone)]
pub enum Statement {
    /// `let name = expression`
    Let {
        /// The name.
        name: Name,
        /// What it stands for.
        value: Expr,
    },
    /// `set option [= value]`: an option of the request.
    Set {
        /// Name of the option.
        name: Name,
        /// Where its value is; an option without one is on.
        value: Option<Span>,
    },
    /// `declare query_parameters(…)`
    Parameters(Vec<Parameter>),
    /// A query.
    Query(Expr),
    /// A statement that is recognised but not supported (`alias`, `restrict`, `declare pattern`): its name.
    Other(Name),
}

/// A parameter of a function or a query.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// The name.
    pub name: Name,
    /// Its type.
    pub ty: ParameterType,
    /// Value when the caller gives none.
    pub default: Option<Expr>,
}

/// Type of a parameter.
#[derive(Debug, Clone)]
pub enum ParameterType {
    /// A scalar.
    Scalar(Type),
    /// A table; None is `(*)`, any columns.
    Table(Option<Vec<ColumnDeclaration>>),
}

/// `name: type`
#[derive(Debug, Clone)]
pub struct ColumnDeclaration {
    /// The name.
    pub name: Name,
    /// The type.
    pub ty: Type,
}

/// An expression.
#[derive(Debug, Clone)]
pub struct Expr {
    /// What it is.
    pub kind: ExprKind,
    /// Its place.
    pub span: Span,
    /// Levels of expression below and including this one; the parser bounds it, so that recursion over it is safe.
    pub height: usize,
}

/// Kinds of expression.
#[derive(Debug, Clone)]
pub enum ExprKind {
    /// A literal.
    Literal(Value, Type),
    /// A name: column, `let`, table, `$left`.
    Name(String),
    /// A name with `*` in it, or `*` alone.
    Wildcard(String),
    /// `base.member`
    Member(Box<Expr>, Name),
    /// `base[index]`
    Index(Box<Expr>, Box<Expr>),
    /// `name(arguments)`
    Call(Name, Vec<Argument>),
    /// `-x`, `+x`
    Unary(&'static str, Box<Expr>),
    /// `left op right`; the name of the operator as the typed tree has it.
    Binary(&'static str, Box<Expr>, Box<Expr>),
    /// `left op (a, b, …)`: the `in`, `has_any`, `has_all` families.
    List(&'static str, Box<Expr>, Vec<Expr>),
    /// `x between (low .. high)`; true is `!between`.
    Between(bool, Box<Expr>, Box<Expr>, Box<Expr>),
    /// `name = value` where assignments are allowed, or `(a, b) = value`.
    Assign(Vec<Name>, Box<Expr>),
    /// `typeof(type)` as a value, with the columns of `typeof(a:long, …)` when they are given.
    TypeOf(Type),
    /// Operators applied to a source.
    Pipe(Box<Expr>, Vec<Operator>),
    /// An operator that produces rows without input: `print`, `range`, `datatable`, `union`, `search`, `find`.
    Source(Box<Operator>),
    /// A function literal.
    Function(Box<Function>),
    /// `statements; expression` inside braces: the body of a function or of legacy `partition`.
    Block(Vec<Statement>),
    /// `entity_group [references]`
    EntityGroup(Vec<Expr>),
    /// Text that did not parse; a diagnostic tells why.
    Error,
}

/// An argument of a call.
#[derive(Debug, Clone)]
pub struct Argument {
    /// For `f(name = value)`.
    pub name: Option<Name>,
    /// The value.
    pub value: Expr,
}

/// `[view] (parameters) { body }`
#[derive(Debug, Clone)]
pub struct Function {
    /// Parameters.
    pub parameters: Vec<Parameter>,
    /// Statements; the last is the result.
    pub body: Vec<Statement>,
    /// Whether `view` stands in front.
    pub view: bool,
}

/// A tabular operator.
#[derive(Debug, Clone)]
pub struct Operator {
    /// Which, with its arguments.
    pub kind: OperatorKind,
    /// Its place.
    pub span: Span,
}

/// `name = value` option of an operator: `kind=inner`, `hint.strategy=shuffle`, `withsource=x`.
#[derive(Debug, Clone)]
pub struct OperatorOption {
    /// The name, with dots, lower case kept as written.
    pub name: Name,
    /// The value.
    pub value: Expr,
}

/// A sort key.
#[derive(Debug, Clone)]
pub struct Ordered {
    /// What to order by.
    pub expr: Expr,
    /// `asc` is false, `desc` is true.
    pub descending: Option<bool>,
    /// `nulls first` is true.
    pub nulls_first: Option<bool>,
}

/// Tabular operators.
#[derive(Debug, Clone)]
pub enum OperatorKind {
    /// `where`, `filter`
    Where(Expr),
    /// `project`
    Project(Vec<Expr>),
    /// `project-away`
    ProjectAway(Vec<Expr>),
    /// `project-keep`
    ProjectKeep(Vec<Expr>),
    /// `project-rename`
    ProjectRename(Vec<Expr>),
    /// `project-reorder`: columns with `asc`/`desc`.
    ProjectReorder(Vec<Ordered>),
    /// `extend`
    Extend(Vec<Expr>),
    /// `summarize aggregates by keys`
    Summarize {
        /// Aggregates.
        aggregates: Vec<Expr>,
        /// Keys.
        keys: Vec<Expr>,
        /// Whether `by` was written.
        by: bool,
    },
    /// `sort by`, `order by`
    Sort(Vec<Ordered>),
    /// `top n by`
    Top {
        /// How many.
        count: Expr,
        /// Sort keys.
        by: Vec<Ordered>,
    },
    /// `take`, `limit`
    Take(Expr),
    /// `distinct`
    Distinct(Vec<Expr>),
    /// `count`
    Count(Option<Name>),
    /// `as name`
    As(Name),
    /// `join`, `lookup`
    Join {
        /// `lookup`
        lookup: bool,
        /// `kind=`, `hint.*`
        options: Vec<OperatorOption>,
        /// Right side.
        right: Expr,
        /// Conditions after `on`.
        on: Vec<Expr>,
    },
    /// `union`
    Union {
        /// `kind=`, `withsource=`, `isfuzzy=`, `hint.*`
        options: Vec<OperatorOption>,
        /// Tables.
        tables: Vec<Expr>,
    },
    /// `mv-expand`
    MvExpand(MvExpand),
    /// `mv-apply`
    MvApply {
        /// What to expand.
        expand: MvExpand,
        /// Operators of the sub-query.
        subquery: Vec<Operator>,
    },
    /// `make-series`
    MakeSeries(Box<MakeSeries>),
    /// `serialize`
    Serialize(Vec<Expr>),
    /// `partition by`
    Partition {
        /// `hint.*`
        options: Vec<OperatorOption>,
        /// Key.
        key: Expr,
        /// Sub-query: `Pipe` over nothing (operators) or a whole expression in braces.
        subquery: PartitionBody,
    },
    /// `parse`, `parse-where`
    Parse {
        /// `parse-where`
        filter: bool,
        /// `kind=`, `flags=`
        options: Vec<OperatorOption>,
        /// Text.
        source: Expr,
        /// Pattern.
        pattern: Vec<ParsePiece>,
    },
    /// `parse-kv`
    ParseKv {
        /// Text.
        source: Expr,
        /// Keys.
        keys: Vec<ColumnDeclaration>,
        /// `with (…)`
        options: Vec<OperatorOption>,
    },
    /// `search`
    Search {
        /// `kind=`
        options: Vec<OperatorOption>,
        /// `in (tables)`
        tables: Vec<Expr>,
        /// Predicate.
        predicate: Expr,
    },
    /// `top-nested` levels
    TopNested(Vec<TopNestedLevel>),
    /// `scan`
    Scan(Box<Scan>),
    /// `sample n`
    Sample(Expr),
    /// `sample-distinct n of column`
    SampleDistinct(Expr, Expr),
    /// `evaluate plugin(…) [: (schema)]`
    Evaluate {
        /// `hint.*`
        options: Vec<OperatorOption>,
        /// Plugin.
        name: Name,
        /// Arguments.
        arguments: Vec<Argument>,
        /// Declared output: a leading `*` and columns.
        schema: Option<(bool, Vec<ColumnDeclaration>)>,
    },
    /// `getschema`
    GetSchema,
    /// `invoke function(…)`
    Invoke(Name, Vec<Argument>),
    /// `render chart [with (…)]`
    Render {
        /// Chart.
        chart: Name,
        /// Properties.
        options: Vec<OperatorOption>,
    },
    /// `consume`
    Consume,
    /// `datatable (schema) [values]`
    DataTable {
        /// Columns.
        columns: Vec<ColumnDeclaration>,
        /// Values, row by row.
        values: Vec<Expr>,
    },
    /// `print`
    Print(Vec<Expr>),
    /// `range name from a to b step c`
    Range {
        /// Column.
        name: Name,
        /// First value.
        from: Expr,
        /// Last value.
        to: Expr,
        /// Step.
        step: Expr,
    },
    /// `macro-expand`
    MacroExpand(Box<MacroExpand>),
    /// An operator that is recognised but not supported.
    Other(Name),
}

/// `macro-expand [options] group as alias ( body )`
#[derive(Debug, Clone)]
pub struct MacroExpand {
    /// `kind=`, `isfuzzy=`, `best_effort=`
    pub options: Vec<OperatorOption>,
    /// The group: its name, or [`ExprKind::EntityGroup`].
    pub group: Expr,
    /// What stands for an entity in the body.
    pub alias: Name,
    /// `let` statements and the sub-query.
    pub body: Vec<Statement>,
    /// Members of the alias that the body names.
    pub members: Vec<String>,
}

/// Sub-query of `partition`.
#[derive(Debug, Clone)]
pub enum PartitionBody {
    /// `( operators )`
    Operators(Vec<Operator>),
    /// `{ expression }`, with its own source.
    Legacy(Expr),
}

/// `mv-expand` and the head of `mv-apply`.
#[derive(Debug, Clone)]
pub struct MvExpand {
    /// `kind=`, `bagexpansion=`, `with_itemindex=`
    pub options: Vec<OperatorOption>,
    /// Expressions with `to typeof(…)`.
    pub items: Vec<(Expr, Option<Type>)>,
    /// `limit n`
    pub limit: Option<Expr>,
}

/// `make-series`
#[derive(Debug, Clone)]
pub struct MakeSeries {
    /// `kind=nonempty`
    pub options: Vec<OperatorOption>,
    /// Aggregates with `default=`.
    pub aggregates: Vec<(Expr, Option<Expr>)>,
    /// `on`
    pub axis: Expr,
    /// `from`
    pub from: Option<Expr>,
    /// `to`
    pub to: Option<Expr>,
    /// `step`
    pub step: Option<Expr>,
    /// `in range(from, to, step)`: the upper bound is inclusive.
    pub in_range: bool,
    /// `by`
    pub keys: Vec<Expr>,
}

/// A part of a parse pattern.
#[derive(Debug, Clone)]
pub enum ParsePiece {
    /// Text.
    Literal(Expr),
    /// `*`
    Skip,
    /// `name:type`
    Capture(Name, Option<Type>),
}

/// A level of `top-nested`.
#[derive(Debug, Clone)]
pub struct TopNestedLevel {
    /// How many; None: all.
    pub count: Option<Expr>,
    /// `of`, may be an assignment.
    pub of: Expr,
    /// `with others =`
    pub others: Option<Expr>,
    /// `by`, may be an assignment.
    pub by: Ordered,
}

/// `scan`
#[derive(Debug, Clone)]
pub struct Scan {
    /// `with_match_id=`
    pub options: Vec<OperatorOption>,
    /// `order by`
    pub order: Vec<Ordered>,
    /// `partition by`
    pub partition: Vec<Expr>,
    /// `declare`
    pub declared: Vec<Parameter>,
    /// Steps.
    pub steps: Vec<ScanStep>,
}

/// A step of `scan`.
#[derive(Debug, Clone)]
pub struct ScanStep {
    /// Name.
    pub name: Name,
    /// `optional`
    pub optional: bool,
    /// `output=`
    pub output: Option<Name>,
    /// Condition.
    pub condition: Expr,
    /// Assignments.
    pub assignments: Vec<Expr>,
}
