//! Reading requests: `{"db", "csl", "properties"}`, or the same as query parameters of a GET. `properties` comes as an
//! object, as an object with lower-case names, or as a string of JSON.

use axum::body::Body;
use axum::http::{HeaderMap, Uri};
use serde_json::Value;

use crate::error::KustoError;
use crate::query::{QueryOptions, read_options};
use crate::service::DEFAULT_DATABASE;

/// A query or command to run.
#[derive(Debug, Default)]
pub(super) struct Request {
    pub(super) database: String,
    pub(super) text: String,
    pub(super) options: QueryOptions,
    /// `results_v2_fragment_primary_tables`
    pub(super) fragmented: bool,
    /// The text is a management command.
    pub(super) is_command: bool,
}

/// Reads a request.
pub(super) async fn read(uri: &Uri, headers: &HeaderMap, body: Body) -> Result<Request, KustoError> {
    let body = read_body(headers, body).await?;
    let fields = if body.iter().all(u8::is_ascii_whitespace) {
        from_parameters(uri)
    } else {
        serde_json::from_slice(&body).map_err(|error| KustoError::bad_request(format!("the request body is not valid JSON: {error}")))?
    };
    let Value::Object(fields) = fields else {
        return Err(KustoError::bad_request("the request body must be a JSON object with 'db' and 'csl'"));
    };
    let field = |name: &str| fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    let Some(text) = field("csl").and_then(Value::as_str) else {
        return Err(KustoError::bad_request("the request has no text to run: 'csl' must be a string"));
    };
    let database = field("db").and_then(Value::as_str).filter(|name| !name.is_empty()).unwrap_or(DEFAULT_DATABASE);
    let mut request = Request { database: database.to_owned(), text: text.to_owned(), ..Request::default() };
    if let Some(properties) = field("properties") {
        read_properties(properties, &mut request)?;
    }
    if headers.get("x-ms-readonly").is_some() {
        request.options.read_only = true;
    }
    Ok(request)
}

/// Reads a body within the limits.
pub(super) async fn read_body(headers: &HeaderMap, body: Body) -> Result<bytes::Bytes, KustoError> {
    let read = server::read_body(headers, body, &server::BodyLimits::default()).await;
    read.map_err(|error| match error.status() {
        axum::http::StatusCode::PAYLOAD_TOO_LARGE => KustoError::too_large(error.to_string()),
        status => KustoError { status, ..KustoError::bad_request(error.to_string()) },
    })
}

fn from_parameters(uri: &Uri) -> Value {
    Value::Object(parameters(uri).into_iter().map(|(name, value)| (name, Value::String(value))).collect())
}

/// Query parameters of an address, decoded, in order.
pub(super) fn parameters(uri: &Uri) -> Vec<(String, String)> {
    let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri);
    pairs.map(|pairs| pairs.0).unwrap_or_default()
}

fn read_properties(properties: &Value, request: &mut Request) -> Result<(), KustoError> {
    let parsed;
    let properties = match properties {
        Value::String(text) if text.trim().is_empty() => return Ok(()),
        Value::String(text) => {
            parsed = serde_json::from_str::<Value>(text)
                .map_err(|error| KustoError::bad_request(format!("'properties' is not valid JSON: {error}")))?;
            &parsed
        }
        other => other,
    };
    let part = |name: &str| {
        let object = properties.as_object()?;
        object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).and_then(|(_, value)| value.as_object())
    };
    if let Some(options) = part("Options") {
        read_options(options, &mut request.options);
        request.fragmented = options
            .iter()
            .any(|(name, value)| name.eq_ignore_ascii_case("results_v2_fragment_primary_tables") && value == &Value::Bool(true));
    }
    for (name, value) in part("Parameters").into_iter().flatten() {
        let literal = match value {
            Value::String(literal) => literal.clone(),
            other => other.to_string(),
        };
        request.options.parameters.insert(name.clone(), literal);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_in_three_shapes() {
        for properties in [
            serde_json::json!({"Options": {"servertimeout": "00:00:10", "notruncation": true}, "Parameters": {"p": "1"}}),
            serde_json::json!({"options": {"servertimeout": "00:00:10", "notruncation": true}, "parameters": {"p": "1"}}),
            serde_json::json!("{\"Options\":{\"servertimeout\":\"00:00:10\",\"notruncation\":true},\"Parameters\":{\"p\":\"1\"}}"),
        ] {
            let mut request = Request::default();
            read_properties(&properties, &mut request).unwrap();
            assert_eq!(request.options.timeout, Some(std::time::Duration::from_secs(10)), "{properties}");
            assert!(request.options.no_truncation);
            assert_eq!(request.options.parameters["p"], "1");
        }
    }
}
