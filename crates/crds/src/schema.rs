//! The CRDs: schemas derived from the types, brought into the form that the reference's CRDs have.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::CustomResourceExt;
use schemars::{Schema, SchemaGenerator, json_schema};

use crate::{AdxCluster, AlertRule, Alerter, Collector, Function, Ingestor, ManagementCommand, MetricsExporter, SummaryRule};

/// The CRDs of all kinds.
pub fn all() -> Vec<CustomResourceDefinition> {
    [
        AdxCluster::crd(),
        Ingestor::crd(),
        Alerter::crd(),
        Collector::crd(),
        AlertRule::crd(),
        SummaryRule::crd(),
        MetricsExporter::crd(),
        Function::crd(),
        ManagementCommand::crd(),
    ]
    .into_iter()
    .map(tidied)
    .collect()
}

/// The CRD of a kind, by its kind, plural, singular or short name, whatever the case.
pub fn of_kind(name: &str) -> Option<CustomResourceDefinition> {
    all().into_iter().find(|crd| {
        let names = &crd.spec.names;
        let short = names.short_names.iter().flatten();
        [&names.kind, &names.plural].into_iter().chain(&names.singular).chain(short).any(|known| known.eq_ignore_ascii_case(name))
    })
}

/// CRDs as YAML documents, for `kubectl apply -f -`. All of ours can be written, which a test shows; of one that cannot,
/// the document says why.
pub fn yaml(crds: &[CustomResourceDefinition]) -> String {
    let document = |crd| serde_saphyr::to_string(crd).unwrap_or_else(|error| format!("# {error}\n"));
    crds.iter().map(|crd| format!("---\n{}\n", document(crd).trim_end())).collect()
}

/// Conditions as the API machinery checks its own.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": {
            "type": "object",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "type": {
                    "type": "string",
                    "description": "What the condition is about.",
                    "maxLength": 316,
                    "pattern": r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$"
                },
                "status": { "type": "string", "enum": ["True", "False", "Unknown"], "description": "True, False or Unknown." },
                "reason": {
                    "type": "string",
                    "description": "Why, in one word.",
                    "minLength": 1,
                    "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"
                },
                "message": { "type": "string", "description": "Why, for people.", "maxLength": 32768 },
                "lastTransitionTime": { "type": "string", "format": "date-time", "description": "When the status last changed." },
                "observedGeneration": {
                    "type": "integer",
                    "format": "int64",
                    "minimum": 0,
                    "description": "Generation of the object that this was found for."
                }
            }
        }
    })
}

/// What schemars says beyond the reference's schemas is taken out: nulls, defaults of the status and of what is required,
/// which the API server would fill in, and the line ends of the source.
fn tidied(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for schema in crd.spec.versions.iter_mut().filter_map(|version| version.schema.as_mut()?.open_api_v3_schema.as_mut()) {
        tidy(schema, false);
    }
    crd
}

fn tidy(schema: &mut JSONSchemaProps, in_status: bool) {
    schema.nullable = None;
    schema.description = schema.description.as_deref().map(unwrapped);
    if in_status {
        schema.default = None;
    }
    for (name, property) in schema.properties.iter_mut().flatten() {
        tidy(property, in_status || name == "status");
        if schema.required.iter().flatten().any(|required| required == name) {
            property.default = None;
        }
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        tidy(items, in_status);
    }
}

/// Text without the line ends of the source; paragraphs stay.
fn unwrapped(text: &str) -> String {
    text.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect::<Vec<_>>().join("\n\n")
}
