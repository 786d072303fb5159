//! The CRDs against the field tables of the specification, in `tests/fields.txt`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// What a line of the table says of a field: words such as `string`, `required`, `default=30`.
type Words = BTreeSet<String>;

/// Checks that are compared for every field; others count only where the table names them.
const ALWAYS: &[&str] = &["required", "default", "enum", "minItems", "rule", "pattern", "minimum", "maximum"];

fn table() -> BTreeMap<(String, String), BTreeMap<String, Words>> {
    let mut kinds: BTreeMap<_, BTreeMap<String, Words>> = BTreeMap::new();
    let mut kind = (String::new(), String::new());
    for line in include_str!("../fields.txt").lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let mut words =
            line.trim_start_matches('+').split_whitespace().map(|word| if word == "*" { word } else { word.trim_end_matches('*') });
        let (first, mut rest) = (words.next().unwrap().to_owned(), words.map(str::to_owned));
        if line.starts_with([' ', '+']) {
            let twice = kinds.entry(kind.clone()).or_default().insert(first, rest.by_ref().collect());
            assert_eq!(twice, None, "{line}");
        } else {
            kind = (first, rest.next_back().unwrap());
        }
    }
    let everywhere = kinds.remove(&("*".to_owned(), "*".to_owned())).unwrap();
    for fields in kinds.values_mut() {
        fields.extend(everywhere.clone());
    }
    kinds
}

/// All fields of a schema: path to what it checks.
fn fields(schema: &Value) -> BTreeMap<String, Words> {
    fn walk(path: String, required: bool, schema: &Value, fields: &mut BTreeMap<String, Words>) {
        if schema["description"].as_str().unwrap_or_default().contains("label selector") || path.ends_with("Selector") {
            fields.insert(path, words(schema, required));
            return;
        }
        let needed = |name: &str| schema["required"].as_array().into_iter().flatten().any(|field| field == name);
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            walk(path, needed(name), property, fields);
        }
        if schema["items"].is_object() {
            walk(format!("{path}[]"), false, &schema["items"], fields);
        }
        if schema["additionalProperties"].is_object() {
            walk(format!("{path}{{}}"), false, &schema["additionalProperties"], fields);
        }
        if !path.is_empty() {
            fields.insert(path, words(schema, required));
        }
    }
    let mut fields = BTreeMap::new();
    walk(String::new(), false, schema, &mut fields);
    fields
}

fn words(schema: &Value, required: bool) -> Words {
    let mut words = Words::from([schema["type"].as_str().unwrap().to_owned()]);
    if required {
        words.insert("required".to_owned());
    }
    for key in ["default", "pattern", "minLength", "maxLength", "minItems", "minimum", "maximum", "format"] {
        match &schema[key] {
            Value::Null => {}
            Value::String(text) => drop(words.insert(format!("{key}={text}"))),
            Value::Number(number) => drop(words.insert(format!("{key}={}", number.as_f64().unwrap()))),
            other => drop(words.insert(format!("{key}={other}"))),
        }
    }
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<_> = values.iter().map(|value| value.as_str().unwrap()).collect();
        words.insert(format!("enum={}", values.join("|")));
    }
    if schema["x-kubernetes-validations"].is_array() {
        words.insert("rule".to_owned());
    }
    words
}

#[test]
fn schemas_are_those_of_the_specification() {
    let table = table();
    assert_eq!(table.len(), 9);
    let crds = crds::all();
    assert_eq!(crds.len(), 9);
    let mut wrong = Vec::new();
    for crd in crds {
        let crd = serde_json::to_value(crd).unwrap();
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap();
        let plural = crd["spec"]["names"]["plural"].as_str().unwrap();
        let expected = &table[&(kind.to_owned(), plural.to_owned())];
        let actual = fields(&crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]);
        for (path, words) in expected {
            let Some(ours) = actual.get(path) else {
                wrong.push(format!("{kind} lacks {path}"));
                continue;
            };
            let missing: Vec<_> = words.difference(ours).collect();
            let standard = path.starts_with("status.conditions[]");
            let name = |word: &str| word.split('=').next().unwrap_or_default().to_owned();
            let more: Vec<_> = ours.difference(words).filter(|word| ALWAYS.contains(&name(word).as_str()) && !standard).collect();
            if !missing.is_empty() || !more.is_empty() {
                wrong.push(format!("{kind} {path} lacks {missing:?} and has {more:?} in addition"));
            }
        }
        let unknown = actual.keys().filter(|path| !expected.contains_key(*path) && *path != "spec");
        wrong.extend(unknown.map(|path| format!("{kind} {path} is not in the table")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_kind_is_namespaced_with_status_columns_and_descriptions() {
    fn undescribed(path: &str, schema: &Value, found: &mut Vec<String>) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            let text = property["description"].as_str().unwrap_or_default();
            if text.is_empty() || text.contains("Auto-generated") {
                found.push(path.clone());
            }
            undescribed(&path, property, found);
            undescribed(&path, &property["items"], found);
        }
    }
    let mut short_names = BTreeSet::new();
    for crd in crds::all() {
        let crd = serde_json::to_value(crd).unwrap();
        let (spec, version) = (&crd["spec"], &crd["spec"]["versions"][0]);
        let kind = spec["names"]["kind"].as_str().unwrap();
        assert_eq!(crd["metadata"]["name"], format!("{}.adx-mon.azure.com", spec["names"]["plural"].as_str().unwrap()));
        assert_eq!((&spec["group"], &spec["scope"]), (&Value::from("adx-mon.azure.com"), &Value::from("Namespaced")), "{kind}");
        assert_eq!((&version["name"], &version["served"], &version["storage"]), (&"v1".into(), &true.into(), &true.into()), "{kind}");
        assert!(version["subresources"]["status"].is_object(), "{kind}");
        assert!(version["additionalPrinterColumns"].as_array().unwrap().len() >= 3, "{kind}");
        assert!(spec["names"]["categories"].as_array().unwrap().contains(&"adx-mon".into()), "{kind}");
        for name in spec["names"]["shortNames"].as_array().into_iter().flatten() {
            assert!(short_names.insert(name.to_string()), "{name} is the short name of two kinds");
        }
        let mut found = Vec::new();
        let schema = &version["schema"]["openAPIV3Schema"];
        for part in ["spec", "status"] {
            undescribed(part, &schema["properties"][part], &mut found);
        }
        assert!(found.is_empty(), "{kind} has fields without description: {found:?}");
    }
}

/// As in Kubernetes' own kinds: two appliers must not each own half of a selector.
#[test]
fn a_selector_is_applied_as_a_whole() {
    for kind in ["Ingestor", "Alerter"] {
        let crd = serde_json::to_value(crds::of_kind(kind).unwrap()).unwrap();
        let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        assert_eq!(spec["properties"]["adxClusterSelector"]["x-kubernetes-map-type"], "atomic", "{kind}");
    }
}

/// Every printer column shows a field that is there: a typing error would show an empty column for ever.
#[test]
fn printer_columns_show_fields_that_exist() {
    for crd in crds::all() {
        let crd = serde_json::to_value(crd).unwrap();
        let version = &crd["spec"]["versions"][0];
        let fields = fields(&version["schema"]["openAPIV3Schema"]);
        for column in version["additionalPrinterColumns"].as_array().unwrap() {
            let path = column["jsonPath"].as_str().unwrap().trim_start_matches('.');
            let path = match path.split_once("[?(@.type==\"") {
                Some((list, rest)) => {
                    let (type_, field) = rest.split_once("\")]").unwrap();
                    let kind = crd["spec"]["names"]["singular"].as_str().unwrap();
                    assert!(type_ == "Ready" || type_ == format!("{kind}.adx-mon.azure.com"), "{type_}");
                    format!("{list}[]{field}")
                }
                None => path.to_owned(),
            };
            assert!(path == "metadata.creationTimestamp" || fields.contains_key(&path), "{} {path}", crd["metadata"]["name"]);
        }
    }
}

/// What is printed is YAML, read back by the same library and by nothing lost: one document for each kind.
#[test]
fn yaml_reads_back_as_the_same_crds() {
    let text = crds::yaml(&crds::all());
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let expected: Vec<Value> = crds::all().iter().map(|crd| serde_json::to_value(crd).unwrap()).collect();
    assert_eq!(documents, expected);
}

#[test]
fn a_kind_is_found_by_any_of_its_names() {
    for name in ["SummaryRule", "summaryrules", "summaryrule", "sr", "SR"] {
        assert_eq!(crds::of_kind(name).unwrap().spec.names.kind, "SummaryRule");
    }
    assert_eq!(crds::of_kind("nosuch"), None);
}

/// Go's clients write `""` for a text that is not set: no check stands against it but those of the reference.
#[test]
fn an_empty_text_is_as_good_as_none() {
    let checked: BTreeSet<&str> = BTreeSet::from([
        "ADXCluster spec.clusterName",
        "ADXCluster spec.endpoint",
        "ADXCluster spec.role",
        "ADXCluster spec.databases[].databaseName",
        "ADXCluster spec.databases[].telemetryType",
        "ADXCluster spec.federation.federatedTargets[].heartbeatDatabase",
        "ADXCluster spec.federation.federatedTargets[].heartbeatTable",
        "ADXCluster spec.federation.heartbeatDatabase",
        "ADXCluster spec.federation.heartbeatTable",
        "ADXCluster spec.federation.heartbeatTTL",
        "Alerter spec.notificationEndpoint",
        "Collector spec.ingestorEndpoint",
        "SummaryRule spec.backfill.requestId",
        "SummaryRule spec.backfill.startTime",
        "SummaryRule spec.backfill.endTime",
        "ManagementCommand spec.scope",
        // Ours, which no client of the reference writes, and without which a principal is none.
        "ADXCluster spec.provision.principals[].principalId",
        "ADXCluster spec.provision.principals[].principalType",
        "ADXCluster spec.provision.principals[].role",
    ]);
    let mut found = BTreeSet::new();
    for crd in crds::all() {
        let crd = serde_json::to_value(crd).unwrap();
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap();
        for (path, words) in fields(&crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]) {
            let checks = ["pattern=", "minLength=", "format=", "enum="];
            let is_checked = words.iter().any(|word| checks.iter().any(|check| word.starts_with(check)));
            if path.starts_with("spec.") && words.contains("string") && is_checked {
                found.insert(format!("{kind} {path}"));
            }
        }
    }
    assert_eq!(found.iter().map(String::as_str).collect::<BTreeSet<_>>(), checked);
}
