//! The documentation of the file, made from the types of [`super::file`] and their comments: a file to start from
//! ([`file_to_start_from`]), a page ([`page`]), and a JSON schema for editors ([`schema`]).

mod page;
mod text;

use schemars::transform::{RecursiveTransform, Transform};
use schemars::{Schema, schema_for};
use serde_json::{Map, Value};

use super::file::{File, Filters};

pub use page::page;
pub use text::{file_of_examples, file_to_start_from, value};

/// The file's JSON schema.
#[must_use]
pub fn schema() -> Value {
    let mut schema = finished(schema_for!(File));
    forbid_unknown_keys(&mut schema);
    schema
}

fn finished(mut schema: Schema) -> Value {
    RecursiveTransform(without_null).transform(&mut schema);
    schema.to_value()
}

/// TOML has no null: what is optional is absent.
fn without_null(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else { return };
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [only] = &types[..] {
            let only = only.clone();
            object.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(choices)) = object.get_mut("anyOf") {
        choices.retain(|choice| choice["type"] != "null");
        if let [Value::Object(only)] = &choices[..] {
            let only = only.clone();
            object.remove("anyOf");
            object.extend(only);
        }
    }
    if object.get("default").is_some_and(Value::is_null) {
        object.remove("default");
    }
}

fn forbid_unknown_keys(schema: &mut Value) {
    let tables = schema["$defs"].as_object_mut().into_iter().flat_map(|tables| tables.values_mut().filter_map(Value::as_object_mut));
    for table in tables {
        table.insert("additionalProperties".to_owned(), false.into());
    }
    if let Some(file) = schema.as_object_mut() {
        file.insert("additionalProperties".to_owned(), false.into());
    }
}

/// A table of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Its name with those of the tables around it; empty for the whole file.
    pub path: Vec<String>,
    /// Whether there may be several.
    pub many: bool,
    /// What it is for.
    pub about: String,
    /// Its keys, in the order of their declaration.
    pub settings: Vec<Setting>,
    /// Tables within it.
    pub tables: Vec<Table>,
    /// The type that says what is in it: tables of one type have the same keys.
    kind: String,
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// The key.
    pub key: String,
    /// What it does.
    pub about: String,
    /// What may stand there, in words.
    pub kind: String,
    /// What counts when it is absent.
    pub default: Option<Value>,
    /// What it could be.
    pub example: Option<Value>,
    /// What it may be, if not anything of its kind.
    pub choices: Vec<Value>,
    /// Whether it must be there.
    pub required: bool,
}

impl Setting {
    /// What stands for it in an example: one that is made for it, or else the default, or else nothing of its kind.
    #[must_use]
    pub fn shown(&self) -> Value {
        let nothing = || match self.kind.as_str() {
            "list of strings" => Value::Array(Vec::new()),
            "true or false" => Value::Bool(false),
            "table" | "table of strings" => Value::Object(Map::new()),
            _ => Value::String(String::new()),
        };
        self.example.clone().or_else(|| self.default.clone()).unwrap_or_else(nothing)
    }
}

impl Table {
    /// The whole file.
    #[must_use]
    pub fn file() -> Table {
        let schema = schema();
        Table::new(&schema, &schema, Vec::new(), None)
    }

    /// The keys of filters, which several tables have.
    #[must_use]
    pub fn filters() -> Table {
        let schema = finished(schema_for!(Filters));
        Table::new(&schema, &schema, Vec::new(), None)
    }

    /// `property` is the key that the table stands at.
    fn new(schema: &Value, table: &Value, path: Vec<String>, property: Option<&Value>) -> Table {
        let required = |key: &str| table["required"].as_array().is_some_and(|keys| keys.iter().any(|required| required == key));
        let (mut settings, mut tables) = (Vec::new(), Vec::new());
        for (key, property) in table["properties"].as_object().into_iter().flatten() {
            let within = || path.iter().cloned().chain([key.clone()]).collect();
            match table_of(property) {
                Some(name) => tables.push(Table {
                    many: property["type"] == "array",
                    kind: name.to_owned(),
                    ..Table::new(schema, &schema["$defs"][name], within(), Some(property))
                }),
                None => settings.push(Setting::new(key, property, required(key))),
            }
        }
        let about = words(property.unwrap_or(table));
        Table { path, many: false, about, settings, tables, kind: String::new() }
    }

    /// This table and all within it.
    pub fn all(&self) -> Vec<&Table> {
        std::iter::once(self).chain(self.tables.iter().flat_map(Table::all)).collect()
    }

    /// As the file has it: `[name]`, or `[[name]]`.
    #[must_use]
    pub fn header(&self) -> String {
        let path = self.path.join(".");
        if self.many { format!("[[{path}]]") } else { format!("[{path}]") }
    }

    /// Whether it has all keys of filters, beside others.
    fn has_filters(&self, filters: &Table) -> bool {
        !self.path.is_empty() && filters.settings.iter().all(|filter| self.settings.iter().any(|own| own.key == filter.key))
    }
}

/// The type of the table, or the tables, at a key.
fn table_of(property: &Value) -> Option<&str> {
    let reference = property["$ref"].as_str().or_else(|| property["items"]["$ref"].as_str())?;
    reference.strip_prefix("#/$defs/")
}

/// A description, on one line.
fn words(schema: &Value) -> String {
    schema["description"].as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Setting {
    fn new(key: &str, property: &Value, required: bool) -> Setting {
        // What only says that nothing is there is no default worth telling.
        let tells = |value: &&Value| match value {
            Value::String(text) => !text.is_empty(),
            Value::Array(items) => !items.is_empty(),
            Value::Object(entries) => !entries.is_empty(),
            _ => true,
        };
        Setting {
            key: key.to_owned(),
            about: words(property),
            kind: kind(property),
            default: property.get("default").filter(tells).filter(|_| !required).cloned(),
            example: property["examples"].get(0).cloned(),
            choices: property["enum"].as_array().cloned().unwrap_or_default(),
            required,
        }
    }
}

/// What may stand at a key, in words.
fn kind(property: &Value) -> String {
    if let Some(choices) = property["anyOf"].as_array() {
        return choices.iter().map(kind).collect::<Vec<_>>().join(" or ");
    }
    let kind = match property["type"].as_str() {
        Some("array") => "list of strings",
        Some("boolean") => "true or false",
        Some("object") if property["additionalProperties"]["type"] == "string" => "table of strings",
        Some("object") => "table",
        Some(kind) => kind,
        None => "anything",
    };
    kind.to_owned()
}
