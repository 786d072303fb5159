//! Messages of clients: Base64 of a JSON object, by Microsoft's page "How to ingest data with the REST API" and as its clients
//! for Go, Java, Node, Python and .NET write it: names in any case, numbers and booleans also as text, lists also as JSON in a
//! string.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use uuid::Uuid;

/// What a client wants to hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReportLevel {
    /// 0, the default
    Failures,
    /// 1
    Nothing,
    /// 2
    All,
}

/// The row that a client made in the status table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StatusRow {
    /// Address of the table, without a signature.
    pub(crate) table: String,
    pub(crate) partition: String,
    pub(crate) row: String,
}

/// A message, as far as it makes sense. `Debug` leaves the signature out.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// The client's id; nil when there is none.
    pub(crate) id: Uuid,
    pub(crate) database: String,
    pub(crate) table: String,
    /// Address of the blob with its signature: a secret.
    pub(crate) blob: String,
    pub(crate) report: ReportLevel,
    /// Reports go to the queues of successes and failures.
    pub(crate) to_queue: bool,
    /// Reports go to the status table.
    pub(crate) status: Option<StatusRow>,
    /// What to do, or what is wrong: Kusto's code, and details.
    pub(crate) what: Result<What, Malformed>,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({}, {} into {}.{}, {:?})", self.id, self.source(), self.database, self.table, self.what)
    }
}

/// How a blob is to be ingested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct What {
    pub(crate) format: String,
    /// Name of a mapping.
    pub(crate) mapping_reference: Option<String>,
    /// A mapping's JSON.
    pub(crate) mapping: Option<String>,
    pub(crate) skip_first: bool,
    pub(crate) tags: Vec<String>,
    /// Tags, with their prefix, of which none may be there already.
    pub(crate) unless_tagged: Vec<String>,
    pub(crate) retain_blob: bool,
}

/// Why a message can never work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// Kusto's code.
    pub(crate) code: &'static str,
    pub(crate) details: String,
}

fn malformed(code: &'static str, details: impl Into<String>) -> Malformed {
    Malformed { code, details: details.into() }
}

impl Message {
    /// Reads the text of a message.
    pub(crate) fn read(text: &str) -> Message {
        let mut message = Message {
            id: Uuid::nil(),
            database: String::new(),
            table: String::new(),
            blob: String::new(),
            report: ReportLevel::Failures,
            to_queue: true,
            status: None,
            what: Err(malformed("BadRequest_CorruptedMessage", "the message is empty")),
        };
        match decode(text) {
            Ok(fields) => message.fill(&fields),
            Err(details) => message.what = Err(malformed("BadRequest_CorruptedMessage", details)),
        }
        message
    }

    /// The blob's address without its signature.
    pub(crate) fn source(&self) -> &str {
        self.blob.split(['?', ';', '#']).next().unwrap_or_default()
    }

    fn fill(&mut self, fields: &Fields) {
        self.id = fields.text("Id").and_then(|id| Uuid::parse_str(&id).ok()).unwrap_or_default();
        self.database = fields.text("DatabaseName").unwrap_or_default();
        self.table = fields.text("TableName").unwrap_or_default();
        self.blob = fields.text("BlobPath").unwrap_or_default();
        self.report = match fields.text("ReportLevel").as_deref() {
            Some("1" | "None" | "DoNotReport") => ReportLevel::Nothing,
            Some("2" | "FailuresAndSuccesses" | "All") => ReportLevel::All,
            _ => ReportLevel::Failures,
        };
        let method = fields.text("ReportMethod").unwrap_or_default();
        self.to_queue = !matches!(method.as_str(), "1" | "Table");
        if matches!(method.as_str(), "1" | "2" | "Table" | "QueueAndTable") {
            self.status = fields.object("IngestionStatusInTable").and_then(|row| {
                let address = row.text("TableConnectionString")?;
                let table = address.split('?').next().unwrap_or_default().to_owned();
                Some(StatusRow { table, partition: row.text("PartitionKey")?, row: row.text("RowKey")? })
            });
        }
        self.what = self.check().and_then(|()| What::read(fields));
    }

    fn check(&self) -> Result<(), Malformed> {
        let wrong = |code, details: &str| Err(malformed(code, details));
        match self {
            _ if self.id.is_nil() => wrong("BadRequest_CorruptedMessage", "Id is missing, or is no guid"),
            _ if self.database.is_empty() => wrong("BadRequest_EmptyDatabaseName", "DatabaseName is missing"),
            _ if self.table.is_empty() => wrong("BadRequest_InvalidOrEmptyTableName", "TableName is missing"),
            _ if self.blob.is_empty() => wrong("BadRequest_EmptyBlobUri", "BlobPath is missing"),
            _ => Ok(()),
        }
    }
}

impl What {
    fn read(fields: &Fields) -> Result<What, Malformed> {
        let more = fields.object("AdditionalProperties").unwrap_or_default();
        if more.text("authorizationContext").is_none_or(|token| token.is_empty()) {
            let details = "AdditionalProperties has no authorizationContext; ask for one with .get kusto identity token";
            return Err(malformed("BadRequest_InvalidKustoIdentityToken", details));
        }
        let mapping = more.text("ingestionMapping").filter(|mapping| !mapping.is_empty());
        let reference = ["ingestionMappingReference", "csvMappingReference", "jsonMappingReference"];
        let mapping_reference = reference.iter().find_map(|name| more.text(name)).filter(|name| !name.is_empty());
        if mapping.is_some() && mapping_reference.is_some() {
            return Err(malformed("BadRequest_DuplicateMapping", "there are both ingestionMapping and ingestionMappingReference"));
        }
        Ok(What {
            format: more.text("format").or_else(|| fields.text("Format")).filter(|f| !f.is_empty()).unwrap_or_else(|| "csv".to_owned()),
            mapping_reference,
            mapping,
            skip_first: more.flag("ignoreFirstRecord"),
            tags: more.list("tags")?,
            unless_tagged: more.list("ingestIfNotExists")?.into_iter().map(|value| format!("ingest-by:{value}")).collect(),
            retain_blob: fields.flag("RetainBlobOnSuccess"),
        })
    }
}

fn decode(text: &str) -> Result<Fields, String> {
    let json = STANDARD.decode(text.trim()).map_err(|error| format!("the message is no Base64: {error}"))?;
    match serde_json::from_slice(&json) {
        Ok(Value::Object(fields)) => Ok(Fields(fields)),
        Ok(_) => Err("the message is no JSON object".to_owned()),
        // its text may hold signatures, of which the error shows nothing
        Err(error) => Err(format!("the message is no JSON: {error}")),
    }
}

/// Properties whose names are in any case.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn text(&self, name: &str) -> Option<String> {
        match self.get(name)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(flag) => Some(flag.to_string()),
            _ => None,
        }
    }

    fn flag(&self, name: &str) -> bool {
        self.text(name).is_some_and(|text| text.eq_ignore_ascii_case("true"))
    }

    fn object(&self, name: &str) -> Option<Fields> {
        match self.get(name)? {
            Value::Object(fields) => Some(Fields(fields.clone())),
            _ => None,
        }
    }

    /// An array, JSON of one in a string, or one value.
    fn list(&self, name: &str) -> Result<Vec<String>, Malformed> {
        let wrong = || malformed("BadRequest_MalformedIngestionProperty", format!("{name} is no list of strings"));
        let parsed;
        let value = match self.get(name) {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::String(text)) if text.trim().is_empty() => return Ok(Vec::new()),
            Some(Value::String(text)) if text.trim_start().starts_with('[') => {
                parsed = serde_json::from_str::<Value>(text).map_err(|_| wrong())?;
                &parsed
            }
            Some(Value::String(text)) => return Ok(vec![text.clone()]),
            Some(other) => other,
        };
        let items = value.as_array().ok_or_else(wrong)?;
        items.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(json: &Value) -> Message {
        Message::read(&STANDARD.encode(json.to_string()))
    }

    /// What azure-kusto-go's own test of its message has, with what it writes for each property.
    #[test]
    fn the_message_of_the_go_client() {
        let message = read(&json!({
            "Id": "10f76b1f-0c57-4844-a354-a08d7b9ee627", "BlobPath": "https://a.blob.core.windows.net/c/b?sig=x",
            "DatabaseName": "db", "TableName": "t", "RawDataSize": 7, "RetainBlobOnSuccess": true, "FlushImmediately": true,
            "IgnoreSizeLimit": true, "ReportLevel": 2, "ReportMethod": 1, "SourceMessageCreationTime": "1970-01-01T00:00:00Z",
            "AdditionalProperties": {
                "authorizationContext": "e30=", "ingestionMappingReference": "MapRef", "ingestionMappingType": "Csv",
                "validationPolicy": "{}", "format": "csv", "ignoreFirstRecord": true, "tags": ["blue", "green"],
                "ingestIfNotExists": "yellow", "creationTime": "1970-01-01T00:00:00Z",
            },
            "IngestionStatusInTable": {"TableConnectionString": "https://a.table.core.windows.net/s?sig=x", "PartitionKey": "p", "RowKey": "r"},
        }));
        assert_eq!((message.database.as_str(), message.table.as_str(), message.report), ("db", "t", ReportLevel::All));
        assert_eq!(message.source(), "https://a.blob.core.windows.net/c/b");
        let row = StatusRow { table: "https://a.table.core.windows.net/s".into(), partition: "p".into(), row: "r".into() };
        assert_eq!((message.status, message.to_queue), (Some(row), false));
        let what = message.what.unwrap();
        assert_eq!((what.format.as_str(), what.mapping_reference.as_deref(), what.skip_first), ("csv", Some("MapRef"), true));
        assert_eq!(what.tags, ["blue", "green"]);
        assert_eq!(what.unless_tagged, ["ingest-by:yellow"]);
        assert!(what.retain_blob);
    }

    /// Java's client writes names that begin in lower case, and lists as JSON in a string.
    #[test]
    fn the_message_of_the_java_client() {
        let message = read(&json!({
            "blobPath": "https://a/c/b", "rawDataSize": null, "databaseName": "db", "tableName": "t",
            "id": "10f76b1f-0c57-4844-a354-a08d7b9ee627", "retainBlobOnSuccess": "false", "reportLevel": "2", "reportMethod": "2",
            "ingestionStatusInTable": {"tableConnectionString": "https://a/s?sig=x", "partitionKey": "p", "rowKey": "r"},
            "additionalProperties": {"authorizationContext": "x", "tags": "[\"a\"]", "ingestIfNotExists": "[\"b\",\"c\"]", "format": "json"},
        }));
        assert!(message.status.is_some() && message.to_queue);
        let what = message.what.unwrap();
        assert_eq!((what.tags, what.unless_tagged), (vec!["a".to_owned()], vec!["ingest-by:b".to_owned(), "ingest-by:c".to_owned()]));
        assert!(!what.retain_blob);
    }

    #[test]
    fn what_can_never_work_is_named() {
        let code = |text: &str| Message::read(text).what.unwrap_err().code;
        for text in ["", "%%%", "AAAA", &STANDARD.encode("[1]"), &STANDARD.encode("{")] {
            assert_eq!(code(text), "BadRequest_CorruptedMessage", "{text}");
        }
        let good = json!({
            "Id": "10f76b1f-0c57-4844-a354-a08d7b9ee627", "BlobPath": "b", "DatabaseName": "d", "TableName": "t",
            "AdditionalProperties": {"authorizationContext": "x"},
        });
        assert!(read(&good).what.is_ok());
        for (name, code) in [
            ("Id", "BadRequest_CorruptedMessage"),
            ("BlobPath", "BadRequest_EmptyBlobUri"),
            ("DatabaseName", "BadRequest_EmptyDatabaseName"),
            ("TableName", "BadRequest_InvalidOrEmptyTableName"),
            ("AdditionalProperties", "BadRequest_InvalidKustoIdentityToken"),
        ] {
            let mut bad = good.clone();
            bad.as_object_mut().unwrap().remove(name);
            assert_eq!(read(&bad).what.unwrap_err().code, code, "without {name}");
        }
        for (name, value, code) in [
            ("tags", json!(7), "BadRequest_MalformedIngestionProperty"),
            ("tags", json!("[1]"), "BadRequest_MalformedIngestionProperty"),
            ("ingestIfNotExists", json!("[\"a\""), "BadRequest_MalformedIngestionProperty"),
        ] {
            let mut bad = good.clone();
            bad["AdditionalProperties"][name] = value;
            assert_eq!(read(&bad).what.unwrap_err().code, code, "{name}");
        }
        let mut both = good.clone();
        both["AdditionalProperties"]["ingestionMapping"] = json!("[]");
        both["AdditionalProperties"]["ingestionMappingReference"] = json!("m");
        assert_eq!(read(&both).what.unwrap_err().code, "BadRequest_DuplicateMapping");
    }
}
