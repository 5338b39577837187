use super::*;
use serde_json::Value;

const COMMITTED: &str = include_str!("../singularityimages.siforge.dev.yaml");

#[test]
fn the_committed_yaml_is_what_the_types_print() {
    assert!(COMMITTED == yaml(), "run: cargo run -p siforge-operator -- crd > crds/singularityimages.siforge.dev.yaml");
}

/// Calls `visit` with the path and body of every schema of the CRD.
fn walk(path: &str, schema: &Value, visit: &mut dyn FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), inner, visit);
    }
    if schema["items"].is_object() {
        walk(&format!("{path}[]"), &schema["items"], visit);
    }
    if schema["additionalProperties"].is_object() {
        walk(&format!("{path}{{}}"), &schema["additionalProperties"], visit);
    }
}

fn root() -> Value {
    serde_json::json!(crd())["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

#[test]
fn everything_is_bounded_and_documented() {
    let mut faults = Vec::new();
    walk("", &root(), &mut |path, schema| {
        let kind = schema["type"].as_str().unwrap_or_default();
        if kind == "string"
            && schema["enum"].is_null()
            && schema["format"] != "date-time"
            && schema["maxLength"].is_null()
        {
            faults.push(format!("{path}: a string without maxLength"));
        }
        if kind == "array" && schema["maxItems"].is_null() {
            faults.push(format!("{path}: a list without maxItems"));
        }
        if kind == "object" && !schema["additionalProperties"].is_null() && schema["maxProperties"].is_null() {
            faults.push(format!("{path}: a map without maxProperties"));
        }
        let scalar_member = path.ends_with("[]") || path.ends_with("{}");
        if !scalar_member && !path.is_empty() && schema["description"].as_str().unwrap_or_default().is_empty() {
            faults.push(format!("{path}: no description for kubectl explain"));
        }
    });
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn enums_are_camel_case() {
    walk("", &root(), &mut |path, schema| {
        for value in schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            assert!(
                value.starts_with(|c: char| c.is_ascii_uppercase()) && value.chars().all(|c| c.is_ascii_alphanumeric()),
                "{path}: {value}"
            );
        }
    });
}

#[test]
fn shape_of_the_resource() {
    let crd = serde_json::json!(crd());
    assert_eq!(crd["metadata"]["name"], "singularityimages.siforge.dev");
    assert_eq!(crd["spec"]["names"]["shortNames"], serde_json::json!(["sif"]));
    let version = &crd["spec"]["versions"][0];
    assert_eq!(version["subresources"], serde_json::json!({ "status": {} }));
    let columns: Vec<_> = version["additionalPrinterColumns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].as_str().unwrap().to_uppercase())
        .collect();
    assert_eq!(columns, ["READY", "STATUS", "DIGEST", "SIZE", "AGE"]);
    let status = &root()["properties"]["status"];
    assert_eq!(status["default"], serde_json::json!({ "observedGeneration": -1 }));
    assert_eq!(status["properties"]["conditions"]["x-kubernetes-list-map-keys"], serde_json::json!(["type"]));
}

#[test]
fn a_minimal_object_reads_with_defaults() {
    let spec: SingularityImageSpec =
        serde_json::from_value(serde_json::json!({ "source": { "docker": { "reference": "lolcow" } } })).unwrap();
    assert_eq!(spec.platforms, ["linux/amd64"]);
    assert_eq!(spec.interval, "1h");
    assert_eq!(spec.revision_history_limit, 2);
    assert!(!spec.suspend);
}
