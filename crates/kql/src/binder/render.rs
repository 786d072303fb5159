//! `render`: no rows change; the chart goes to the client as JSON.

use serde_json::{Map, Value as Json, json};

use super::scope::Table;
use super::{Bind, Binder};
use crate::ast::{ExprKind as Ast, Name, OperatorOption};
use crate::diagnostic::Diagnostic;
use crate::value::Value;

/// Properties of `render … with (…)` and their names in the JSON.
const PROPERTIES: [(&str, &str); 17] = [
    ("title", "Title"),
    ("xcolumn", "XColumn"),
    ("series", "Series"),
    ("ycolumns", "YColumns"),
    ("anomalycolumns", "AnomalyColumns"),
    ("xtitle", "XTitle"),
    ("ytitle", "YTitle"),
    ("xaxis", "XAxis"),
    ("yaxis", "YAxis"),
    ("legend", "Legend"),
    ("ysplit", "YSplit"),
    ("accumulate", "Accumulate"),
    ("kind", "Kind"),
    ("ymin", "Ymin"),
    ("ymax", "Ymax"),
    ("xmin", "Xmin"),
    ("xmax", "Xmax"),
];

impl Binder<'_> {
    pub(super) fn render(&mut self, input: Table, chart: &Name, options: &[OperatorOption]) -> Bind<Table> {
        let mut object = Map::new();
        object.insert("Visualization".into(), json!(chart.text));
        for (_, name) in PROPERTIES {
            object.insert(name.into(), Json::Null);
        }
        object.insert("Accumulate".into(), json!(false));
        object.insert("IsQuerySorted".into(), json!(super::call::serialized(&input)));
        for option in options {
            let Some((_, name)) = PROPERTIES.iter().find(|(key, _)| key.eq_ignore_ascii_case(&option.name.text)) else {
                let what = format!("the property '{}' of render", option.name.text);
                return Err(Diagnostic::unsupported(option.name.span.clone(), what));
            };
            object.insert((*name).into(), property(option)?);
        }
        self.visualization = Some(Json::Object(object).to_string());
        Ok(input)
    }
}

fn property(option: &OperatorOption) -> Bind<Json> {
    Ok(match &option.value.kind {
        Ast::Name(name) if option.name.text.eq_ignore_ascii_case("ycolumns") || option.name.text.eq_ignore_ascii_case("series") => {
            json!(name.split(',').collect::<Vec<_>>())
        }
        Ast::Name(name) => json!(name),
        Ast::Literal(Value::String(text), _) => json!(text.as_ref()),
        Ast::Literal(Value::Bool(flag), _) => json!(flag),
        Ast::Literal(Value::Long(number), _) => json!(number),
        Ast::Literal(Value::Real(number), _) => json!(number),
        Ast::Literal(value, _) => json!(value.to_text()),
        _ => {
            let what = format!("this value of the property '{}' of render", option.name.text);
            return Err(Diagnostic::unsupported(option.value.span.clone(), what));
        }
    })
}
