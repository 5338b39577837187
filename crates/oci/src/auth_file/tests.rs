use super::*;

fn encoded(text: &str) -> String {
    STANDARD.encode(text)
}

fn found(image: &str, file: &Value) -> Result<Option<String>, InvalidAuthFile> {
    let image: ImageRef = image.parse().expect(image);
    let found = AuthFile::parse(file.to_string().as_bytes())?.credentials(&image)?;
    Ok(found.map(|credentials| match &credentials {
        Credentials::Password { username, password } => format!("{username}:{}", password.expose()),
        Credentials::Identity { token } => format!("identity {}", token.expose()),
        Credentials::Bearer { token } => format!("bearer {}", token.expose()),
    }))
}

#[test]
fn which_key_is_taken() {
    let check = |image: &str, keys: &[&str], expect: Option<&str>| {
        let auths = keys.iter().map(|key| ((*key).to_owned(), json!({ "auth": encoded(&format!("u:for {key}")) })));
        let file = json!({ "auths": auths.collect::<Map<_, _>>() });
        assert_eq!(found(image, &file), Ok(expect.map(|key| format!("u:for {key}"))), "{image} {keys:?}");
    };
    check("r.example:5000/a/b", &["r.example:5000"], Some("r.example:5000"));
    check("r.example:5000/a/b", &["https://r.example:5000"], Some("https://r.example:5000"));
    check("r.example:5000/a/b", &["r.example"], None);
    check("r.example/a/b", &["r.example:5000"], None);
    check("r.example/a/b", &["r.example/a", "r.example", "r.example/a/b"], Some("r.example/a/b"));
    check("r.example/a/b", &["r.example/a", "r.example"], Some("r.example/a"));
    check("r.example/ab/b", &["r.example/a"], None);
    check("r.example/ab/b", &["r.example/a", "r.example"], Some("r.example"));
    check("quay.io/org/x", &["quay.io/other", "quay.io/org/"], Some("quay.io/org/"));
    check("r.example/a/b", &["*.example"], Some("*.example"));
    check("x.r.example/a/b", &["*.example"], None);
    check("lolcow", &["https://index.docker.io/v1/"], Some("https://index.docker.io/v1/"));
    check("lolcow", &["registry-1.docker.io"], Some("registry-1.docker.io"));
    check("lolcow", &["docker.io", "docker.io/library"], Some("docker.io/library"));
    check("lolcow", &["index.docker.io.evil.example"], None);
    // Of two that fit equally well, what today's tools write.
    check("r.example/a", &["https://r.example", "r.example", "http://r.example"], Some("r.example"));
    check("r.example/a", &["https://r.example/v1/", "r.example"], Some("r.example"));
    check("r.example/a", &["*.example", "https://r.example"], Some("https://r.example"));
    check("lolcow", &["docker.io", "https://index.docker.io/v1/", "index.docker.io"], Some(HUB_KEY));
}

#[test]
fn what_an_entry_holds() {
    let check = |entry: Value, expect: Option<&str>| {
        let file = json!({ "auths": { "r.example": entry } });
        assert_eq!(found("r.example/a", &file), Ok(expect.map(str::to_owned)), "{entry}");
    };
    check(json!({ "auth": encoded("u:p:q") }), Some("u:p:q"));
    check(json!({ "auth": encoded("$oauthtoken:key") }), Some("$oauthtoken:key"));
    check(json!({ "auth": encoded("u:p\0\0") }), Some("u:p"));
    check(json!({ "auth": encoded("u:pp").trim_end_matches('=') }), Some("u:pp"));
    check(json!({ "username": "u", "password": "p" }), Some("u:p"));
    check(json!({ "username": "u" }), None);
    check(json!({}), None);
    check(json!({ "auth": encoded("<token>:"), "identitytoken": "t" }), Some("identity t"));
    check(json!({ "registrytoken": "t", "email": "x" }), Some("bearer t"));
    // An empty entry does not hide a shorter key's.
    let both = json!({ "auths": { "r.example/a": {}, "r.example": { "auth": encoded("u:p") } } });
    assert_eq!(found("r.example/a", &both), Ok(Some("u:p".to_owned())));
}

#[test]
fn what_cannot_be_used_is_not_quoted() {
    let check = |text: &str, says: &str| {
        let image: ImageRef = "r.example/a".parse().expect("reference");
        let result = AuthFile::parse(text.as_bytes()).and_then(|file| file.candidates(&image));
        let error = result.expect_err(text).to_string();
        assert!(error.contains(says) && !error.contains("hunter2"), "{error}");
    };
    check(r#"{"auths": "hunter2"}"#, "not a Docker config (line 1, column 19)");
    check("hunter2", "not a Docker config");
    check(r#"{"auths":{"r.example":{"auth":"hunter2!"}}}"#, "the auth of r.example is not base64");
    check(r#"{"auths":{"r.example":{"auth":"aHVudGVyMg=="}}}"#, "the auth of r.example is not base64 of user:password");
    check(r#"{"credsStore":"../../bin/sh"}"#, "has no name that a program can have");
    assert!(AuthFile::parse(b" \n").is_ok());
}

#[test]
fn where_an_image_is_looked_for() {
    let file = json!({
        "auths": {
            "r.example": { "auth": encoded("u:p") },
            "h.example": { "auth": encoded("u:q") },
            "f.example": { "auth": encoded("u:r") },
        },
        "credHelpers": { "h.example": "gcloud", "https://index.docker.io/v1/": "hub", "f.example": "" },
        "credsStore": "desktop",
    });
    let file = AuthFile::parse(file.to_string().as_bytes()).expect("file");
    let helper = |program: &str, server: &str, named| Candidate::Helper {
        program: program.to_owned(),
        server: server.to_owned(),
        named,
    };
    let here = |password: &str| Candidate::Here(Credentials::new("u", password));
    let check = |image: &str, expect: &[Candidate]| {
        assert_eq!(file.candidates(&image.parse().expect(image)).expect(image), expect, "{image}");
    };
    check("r.example/a", &[here("p"), helper("desktop", "r.example", false)]);
    check("h.example/a", &[helper("gcloud", "h.example", true), here("q"), helper("desktop", "h.example", false)]);
    check("lolcow", &[helper("hub", HUB_KEY, true), helper("desktop", HUB_KEY, false)]);
    check("o.example:5/a", &[helper("desktop", "o.example:5", false)]);
    check("f.example/a", &[here("r")]);
    assert!(!file.list().iter().any(|listed| listed.key == "f.example" && listed.helper.is_some()));
}

#[test]
fn logins_come_and_go_and_the_rest_stays() {
    let before = br#"{"auths":{"quay.io":{"auth":"dTpw","email":"x"}},"HttpHeaders":{"User-Agent":"x"},"new":[1]}"#;
    let login = Credentials::new("ci", "hunter2");
    let after = with_login(Some(before), "https://index.docker.io/v1/", &login).expect("login");
    let json: Value = serde_json::from_str(after.expose()).expect("JSON");
    let auths = json!({ "quay.io": { "auth": "dTpw", "email": "x" }, HUB_KEY: { "auth": encoded("ci:hunter2") } });
    assert_eq!(json, json!({ "auths": auths, "HttpHeaders": { "User-Agent": "x" }, "new": [1] }));

    let (gone, found) = without_login(after.expose().as_bytes(), "docker.io").expect("logout");
    assert!(
        found
            && serde_json::from_str::<Value>(gone.expose()).expect("JSON")
                == serde_json::from_slice::<Value>(before).expect("JSON")
    );
    assert!(!without_login(gone.expose().as_bytes(), "docker.io").expect("logout again").1);

    let new = with_login(None, "quay.io/org/", &login).expect("new file");
    let listed = AuthFile::parse(new.expose().as_bytes()).expect("file").list();
    assert_eq!(listed, [Listed { key: "quay.io/org".to_owned(), username: Some("ci".to_owned()), helper: None }]);
    let own = br#"{"credsStore":"pass","credHelpers":{"quay.io":""}}"#;
    assert!(with_login(Some(own), "quay.io", &login).is_ok());
    let kept = with_login(Some(br#"{"credsStore":"pass"}"#), "quay.io", &login);
    assert_eq!(kept, Err(InvalidAuthFile::KeptByHelper { name: "pass".to_owned() }));
}

#[test]
fn a_login_replaces_all_that_there_were_for_its_name() {
    let check = |keys: &[&str], name: &str, image: &str, left: &[&str]| {
        let old = keys.iter().map(|key| ((*key).to_owned(), json!({ "auth": encoded("u:old") })));
        let file = json!({ "auths": old.collect::<Map<_, _>>() }).to_string();
        let after = with_login(Some(file.as_bytes()), name, &Credentials::new("u", "new")).expect(name);
        let after: Value = serde_json::from_str(after.expose()).expect("JSON");
        assert_eq!(found(image, &after), Ok(Some("u:new".to_owned())), "{keys:?} {name}");
        let keys: Vec<_> = after["auths"].as_object().expect("auths").keys().collect();
        assert_eq!(keys, left, "{name}");
    };
    let several = ["http://r.example", "https://r.example/v1/", "r.example", "r.example/", "r.example/a"];
    check(&several, "r.example", "r.example/b", &["r.example", "r.example/a"]);
    check(&several, "r.example/a", "r.example/a", &several);
    let hub = ["docker.io", "index.docker.io", "https://index.docker.io/v2/", "registry-1.docker.io"];
    check(&hub, "docker.io", "lolcow", &[HUB_KEY]);
}
