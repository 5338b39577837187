//! A valid base and one change per case.

use super::*;
use crate::failure::Reaction;
use serde_json::{Value, json};

/// The base with `change` merged into its spec; null removes a member.
fn spec(change: Value) -> SingularityImageSpec {
    let mut spec = json!({ "source": { "docker": { "reference": "127.0.0.1:5000/lab/cow:1" } } });
    merge(&mut spec, &change);
    serde_json::from_value(spec).unwrap()
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                if value.is_null() {
                    into.remove(key);
                } else {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (into, from) => *into = from.clone(),
    }
}

#[test]
fn the_base_is_valid() {
    let validated = validate(&spec(json!({}))).unwrap();
    assert_eq!(validated.origin.to_string(), "docker://127.0.0.1:5000/lab/cow:1");
    assert_eq!(validated.recipe, Recipe::default());
    assert_eq!(validated.interval, Some(Duration::from_secs(3600)));
    assert_eq!(validated.timeout, DEFAULT_TIMEOUT);
    assert_eq!(
        validated.access,
        AccessRules { namespaces: NamespaceRule::Same, uids: vec![], gids: vec![], everyone: false }
    );
    assert_eq!(validated.history, 2);
}

/// Each change is refused as `reason`, and the message begins with the field.
fn refused(reason: Reason, cases: &[(Value, &str)]) {
    for (change, field) in cases {
        let failure = validate(&spec(change.clone())).expect_err(&change.to_string());
        assert_eq!((failure.reaction, failure.reason), (Reaction::Stalled, reason), "{change}: {}", failure.message);
        assert!(failure.message.starts_with(&format!("{field}:")), "{change}: {}", failure.message);
    }
}

#[test]
fn what_this_version_cannot_do_is_refused() {
    let no_docker = |other: &str, value: Value| json!({ "source": { "docker": null, other: value } });
    refused(
        Reason::Unsupported,
        &[
            (no_docker("oras", json!({ "reference": "x" })), "spec.source.oras"),
            (no_docker("http", json!({ "url": "https://x/y.sif" })), "spec.source.http"),
            (no_docker("definition", json!({ "inline": "Bootstrap: scratch" })), "spec.source.definition"),
            (json!({ "verify": { "cosign": { "keys": [] } } }), "spec.verify"),
            (json!({ "sign": { "secretKeyRef": { "name": "a", "key": "b" } } }), "spec.sign"),
            (json!({ "warm": { "nodeSelector": {} } }), "spec.warm"),
            (json!({ "platforms": ["linux/arm64"] }), "spec.platforms"),
            (json!({ "platforms": ["linux/amd64", "linux/arm64"] }), "spec.platforms"),
            (json!({ "build": { "class": "big" } }), "spec.build.class"),
        ],
    );
}

#[test]
fn wrong_sources_are_refused() {
    refused(
        Reason::InvalidReference,
        &[(json!({ "source": { "docker": { "reference": "lab/UPPER" } } }), "spec.source.docker.reference")],
    );
    let archive =
        |path: &str| json!({ "source": { "docker": null, "archive": { "format": "OCILayout", "path": path } } });
    refused(
        Reason::InvalidSpec,
        &[
            (archive("../other/x"), "spec.source.archive.path"),
            (archive("a/../../x"), "spec.source.archive.path"),
            (archive("/etc"), "spec.source.archive.path"),
        ],
    );
    refused(
        Reason::InvalidSpec,
        &[
            (json!({ "source": { "docker": null } }), "spec.source"),
            (
                json!({ "source": { "docker": { "tls": { "plainHTTP": true, "insecureSkipVerify": true } } } }),
                "spec.source.docker.tls",
            ),
            (json!({ "source": { "docker": { "tls": { "caBundle": {} } } } }), "spec.source.docker.tls.caBundle"),
        ],
    );
}

#[test]
fn wrong_builds_are_refused() {
    refused(
        Reason::InvalidSpec,
        &[
            (json!({ "build": { "level": 23 } }), "spec.build.level"),
            (json!({ "build": { "compression": "Gzip", "level": 13 } }), "spec.build.level"),
            (json!({ "build": { "blockSize": "300Ki" } }), "spec.build.blockSize"),
            (json!({ "build": { "blockSize": "32Ki" } }), "spec.build.blockSize"),
            (json!({ "build": { "blockSize": "2Mi" } }), "spec.build.blockSize"),
            (json!({ "build": { "timeout": "0s" } }), "spec.build.timeout"),
            (json!({ "build": { "limits": { "uncompressedBytes": "0" } } }), "spec.build.limits.uncompressedBytes"),
            (json!({ "build": { "limits": { "files": 0 } } }), "spec.build.limits.files"),
        ],
    );
}

#[test]
fn other_wrong_fields_are_refused() {
    refused(
        Reason::InvalidSpec,
        &[
            (json!({ "platforms": [] }), "spec.platforms"),
            (json!({ "interval": "soon" }), "spec.interval"),
            (json!({ "interval": "10ms" }), "spec.interval"),
            (json!({ "revisionHistoryLimit": -1 }), "spec.revisionHistoryLimit"),
            (json!({ "access": { "namespaces": { "from": "Selector" } } }), "spec.access.namespaces"),
            (json!({ "access": { "posix": { "uids": [-1] } } }), "spec.access.posix.uids"),
        ],
    );
}

#[test]
fn what_is_understood() {
    let check = |change: Value, look: &dyn Fn(&Validated) -> bool| {
        let validated =
            validate(&spec(change.clone())).unwrap_or_else(|failure| panic!("{change}: {}", failure.message));
        assert!(look(&validated), "{change}: {validated:?}");
    };
    check(json!({ "source": { "docker": { "reference": "docker://lolcow" } } }), &|v| {
        v.origin.to_string() == "docker://docker.io/library/lolcow:latest"
    });
    let archive = json!({ "format": "DockerArchive", "path": "images/cow.tar" });
    check(json!({ "source": { "docker": null, "archive": archive } }), &|v| {
        v.origin.to_string() == "docker-archive:images/cow.tar" && v.pull_secrets.is_empty()
    });
    check(json!({ "build": { "compression": "Xz" } }), &|v| v.recipe.codec == Codec::Xz { level: 6 });
    check(json!({ "build": { "compression": "None" } }), &|v| v.recipe.codec == Codec::None);
    check(json!({ "interval": "0s" }), &|v| v.interval.is_none());
    check(json!({ "interval": "1s" }), &|v| v.interval == Some(Duration::from_secs(1)));
    check(json!({ "build": { "compression": "Gzip" } }), &|v| v.recipe.codec == Codec::Gzip { level: 6 });
    check(json!({ "build": { "level": 19 } }), &|v| v.recipe.codec == Codec::Zstd { level: 19 });
    check(json!({ "build": { "blockSize": "1Mi" } }), &|v| v.recipe.block_size == 1 << 20);
    check(json!({ "build": { "labels": { "a": "b" } } }), &|v| v.recipe.labels.len() == 1);
    check(json!({ "build": { "limits": { "uncompressedBytes": "1Gi", "files": 10 } } }), &|v| {
        v.limits.uncompressed_bytes == 1 << 30 && v.limits.files == 10
    });
    check(json!({ "build": { "timeout": "90s" } }), &|v| v.timeout == Duration::from_secs(90));
    check(json!({ "access": { "namespaces": { "from": "All" } } }), &|v| {
        v.access.everyone && v.access.namespaces == NamespaceRule::All
    });
    check(json!({ "access": { "namespaces": { "from": "All" }, "posix": { "uids": [1000], "gids": [7] } } }), &|v| {
        !v.access.everyone && v.access.uids == [1000] && v.access.gids == [7]
    });
    check(json!({ "access": { "posix": {} } }), &|v| !v.access.everyone);
    check(json!({ "source": { "docker": { "pullSecrets": [{ "name": "a" }] } } }), &|v| v.pull_secrets == ["a"]);
    let key = json!({ "name": "ca", "key": "ca.crt" });
    check(json!({ "source": { "docker": { "tls": { "caBundle": { "secretKeyRef": key } } } } }), &|v| {
        matches!(v.transport.ca, Some(CaSource::Secret(_)))
    });
}
