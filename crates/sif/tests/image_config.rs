//! OCI config in; objects, labels and files out. The expected texts are those of Apptainer 1.4.5 for the same config.

use siforge_sif::image_config::{FileKind, ImageConfig, Source, parse_rfc3339, plan};
use siforge_sif::inspect::{Metadata, parse_labels};
use std::collections::BTreeMap;

const CONFIG: &str = r#"{"architecture": "amd64", "os": "linux", "created": "2021-02-03T04:05:06.789+02:00", "history": [{}], "rootfs": {"type": "layers",
  "diff_ids": ["sha256:00", "sha256:01"]}, "config": {"User": "u:g", "ExposedPorts": {"80/tcp": {}, "443": {}}, "Env": ["A=<&>\u2028",
  "PATH=/p", "dup=1", "dup=2", "we.ird=3", "NOEQ"], "Entrypoint": [], "Cmd": null, "Volumes": {"/v": {}}, "WorkingDir": "", "Labels": {"x": "<b>&é",
  "a": "q\"\n\u007f\b"}, "StopSignal": "SIGQUIT", "Healthcheck": {"Test": ["CMD", "x"], "Interval": 30}, "OnBuild": ["RUN x"],
  "Shell": ["/bin/sh", "-c"], "Hostname": "h", "Domainname": "", "Tty": true, "Image": "sha256:x", "ArgsEscaped": true, "Zed": 1}}"#;

fn source() -> Source {
    Source { bootstrap: "docker".into(), from: "r.example/tiny@sha256:1".into(), time: None }
}

fn parse(json: &str) -> ImageConfig {
    ImageConfig::parse(json.as_bytes()).unwrap()
}

#[test]
fn oci_config_is_what_the_reference_writes() {
    let contents = plan(&parse(CONFIG), &source(), &BTreeMap::new()).unwrap();
    let expected = concat!(
        r#"{"Healthcheck":{"Test":["CMD","x"],"Interval":30},"Env":["A=\u003c\u0026\u003e\u2028","PATH=/p","dup=1","dup=2","we.ird=3","NOEQ"],"#,
        r#""Hostname":"h","Image":"sha256:x","Labels":{"a":"q\"\n"#,
        "\u{7f}",
        r#"\b","x":"\u003cb\u003e\u0026é"},"OnBuild":["RUN x"],"Tty":true,"User":"u:g","#,
        r#""Volumes":{"/v":{}},"ExposedPorts":{"443":{},"80/tcp":{}},"ArgsEscaped":true,"StopSignal":"SIGQUIT","Shell":["/bin/sh","-c"]}"#
    );
    assert_eq!(String::from_utf8(contents.oci_config_json).unwrap(), expected);
}

#[test]
fn objects_and_labels() {
    let contents = plan(&parse(CONFIG), &source(), &BTreeMap::from([("x".into(), "mine".into())])).unwrap();
    assert_eq!(contents.definition, b"bootstrap: docker\nfrom: r.example/tiny@sha256:1\n\n");
    let metadata = Metadata::parse(&contents.inspect_json).unwrap();
    let labels = [
        ("a", "q\"\n\u{7f}\u{8}"),
        ("org.label-schema.build-arch", "amd64"),
        ("org.label-schema.build-date", "Wednesday_3_February_2021_02:05:06_UTC"),
        ("org.label-schema.schema-version", "1.0"),
        ("org.label-schema.usage.singularity.deffile.bootstrap", "docker"),
        ("org.label-schema.usage.singularity.deffile.from", "r.example/tiny@sha256:1"),
        ("x", "mine"),
    ];
    let labels: BTreeMap<String, String> =
        labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    assert_eq!(metadata.labels, labels);
    assert_eq!(metadata.deffile, "bootstrap: docker\nfrom: r.example/tiny@sha256:1");
    assert!(metadata.runscript.starts_with("#!/bin/sh\n") && !metadata.runscript.ends_with('\n'));
    let text = String::from_utf8(contents.inspect_json.clone()).unwrap();
    assert!(
        text.starts_with(
            r##"{"data":{"attributes":{"environment":{"/.singularity.d/env/10-docker2singularity.sh":"#!/bin/sh\n"##
        ),
        "{text}"
    );
    assert!(text.ends_with(r#"},"type":"container"}"#.trim_start_matches('}')) && !text.contains('&'));
    let names: Vec<String> = contents.objects().iter().map(|object| object.name.clone()).collect();
    assert_eq!(names, ["", "inspect-metadata.json", "oci-config.json"]);

    let regular = |path: &str| {
        let file = contents.files.iter().find(|file| file.path == path).unwrap_or_else(|| panic!("{path}"));
        match &file.kind {
            FileKind::Regular(bytes) => (file.mode, bytes.clone()),
            other => panic!("{path}: {other:?}"),
        }
    };
    let (mode, json) = regular(".singularity.d/labels.json");
    assert_eq!((mode, parse_labels(&json).unwrap()), (0o644, labels));
    assert!(json.starts_with(b"{\n\t\"a\": ") && json.ends_with(b"\n}"));
    assert_eq!(regular(".singularity.d/Singularity"), (0o644, contents.definition.clone()));
    assert_eq!(regular(".singularity.d/oci-config.json"), (0o644, contents.oci_config_json.clone()));
    assert_eq!(regular(".singularity.d/runscript").0, 0o755);
}

#[test]
fn the_tree_is_the_references() {
    let contents = plan(&parse("{}"), &source(), &BTreeMap::new()).unwrap();
    let mut paths: Vec<&str> =
        contents.files.iter().map(|file| file.path.trim_start_matches(".singularity.d")).collect();
    paths.sort_unstable();
    let expected = [
        "",
        ".exec",
        ".run",
        ".shell",
        ".test",
        "/Singularity",
        "/actions",
        "/actions/exec",
        "/actions/run",
        "/actions/shell",
        "/actions/start",
        "/actions/test",
        "/env",
        "/env/01-base.sh",
        "/env/10-docker2singularity.sh",
        "/env/90-environment.sh",
        "/env/94-appsbase.sh",
        "/env/95-apps.sh",
        "/env/99-base.sh",
        "/env/99-runtimevars.sh",
        "/labels.json",
        "/libs",
        "/oci-config.json",
        "/runscript",
        "/startscript",
        "environment",
        "singularity",
    ];
    assert_eq!(paths, expected);
    for (index, file) in contents.files.iter().enumerate() {
        if let Some((parent, _)) = file.path.rsplit_once('/') {
            assert!(
                contents.files[..index].iter().any(|earlier| earlier.path == parent),
                "{} comes after its parent",
                file.path
            );
        }
    }
    assert_eq!(contents.created, 0);
    assert_eq!(contents.oci_config_json, b"{}");
}

#[test]
fn nulls_and_absences_are_nothing() {
    let all_null = r#"{"architecture": null, "created": null, "rootfs": null, "config": {"Env": null, "Cmd": null, "Entrypoint": null,
        "Labels": null, "ExposedPorts": {"1": null}, "Volumes": null, "User": null, "WorkingDir": null, "Healthcheck": null}}"#;
    let config = parse(all_null);
    assert_eq!(config.config.exposed_ports.len(), 1);
    assert_eq!((config.architecture, config.created, config.diff_ids.len()), (None, None, 0));
    assert_eq!(parse("{}"), parse(r#"{"config": null}"#));
}

#[test]
fn bad_configs_are_refused() {
    let table = [
        ("", "no valid JSON"),
        ("[", "no valid JSON"),
        (r#"{"config": {"Env": "x"}}"#, "no valid JSON"),
        (r#"{"created": "yesterday"}"#, "created time \"yesterday\""),
        (r#"{"config": {"Env": ["A=\u0000"]}}"#, "Env holds a NUL byte"),
        (r#"{"config": {"Cmd": ["\u0000"]}}"#, "Cmd holds a NUL byte"),
    ];
    for (json, expected) in table {
        let error = ImageConfig::parse(json.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{json}: {error}");
    }
    let many = format!(r#"{{"config": {{"Env": [{}"A=1"]}}}}"#, r#""A=1","#.repeat(70_000));
    assert!(ImageConfig::parse(many.as_bytes()).unwrap_err().to_string().contains("70001 entries"));
    assert!(ImageConfig::parse(&vec![b' '; 9 << 20]).unwrap_err().to_string().contains("at most"));
    let deep = "[".repeat(100_000);
    assert!(ImageConfig::parse(deep.as_bytes()).is_err());
    let bad = Source { from: "a\nb".into(), ..source() };
    assert!(plan(&parse("{}"), &bad, &BTreeMap::new()).is_err());
}

#[test]
fn times() {
    let table = [
        ("1970-01-01T00:00:00Z", Some(0)),
        ("1969-12-31T23:59:59.5Z", Some(-1)),
        ("2000-02-29T12:00:00Z", Some(951_825_600)),
        ("2021-02-03T04:05:06.789+02:00", Some(1_612_317_906)),
        ("0001-01-01T00:00:00Z", Some(-62_135_596_800)),
        ("2016-12-31T23:59:60Z", Some(1_483_228_800)),
        ("2021-02-29T00:00:00Z", None),
        ("2021-13-01T00:00:00Z", None),
        ("2021-01-01T24:00:00Z", None),
        ("2021-01-01T00:00:00", None),
        ("2021-01-01T00:00:00.Z", None),
        ("2021-01-01T00:00:00Zx", None),
        ("2021-01-01T00:00:00+1:00", None),
        ("é021-01-01T00:00:00Z", None),
        ("", None),
    ];
    for (text, expected) in table {
        assert_eq!(parse_rfc3339(text), expected, "{text}");
    }
}

#[test]
fn inspect_reads_what_apptainer_writes() {
    let json = r##"{"data":{"attributes":{"apps":{"foo":{"runscript":"#!/bin/sh\necho","labels":{"v":"1"}}},"environment":{"/e":"x"},
        "labels":{"l":"1"},"runscript":"r","test":"t","helpfile":"h","deffile":"d","startscript":"s","new":1}},"type":"container"}"##;
    let metadata = Metadata::parse(json.as_bytes()).unwrap();
    assert_eq!((metadata.test.as_str(), metadata.helpfile.as_str()), ("t", "h"));
    assert_eq!(metadata.apps["foo"].labels["v"], "1");
    let empty = Metadata::parse(br#"{"data":{"attributes":{"labels":null}},"type":"container"}"#).unwrap();
    assert_eq!(empty, Metadata::default());
    assert!(Metadata::parse(b"{}").is_err());
}
