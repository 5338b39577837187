use super::*;

fn read(text: &str) -> Result<Registries, RegistriesError> {
    let mut registries = Registries::default();
    registries.add("registries.conf", text)?;
    Ok(registries)
}

/// `!` behind an insecure place.
fn places(text: &str, image: &str) -> String {
    let digest = format!("@sha256:{}", "1".repeat(64));
    let image = image.replace("@D", &digest).parse().expect(image);
    match read(text).expect(text).locations(&image) {
        Ok(found) => {
            let show = |place: &Location| {
                format!("{}/{}{}", place.registry, place.repository, if place.insecure { "!" } else { "" })
            };
            found.iter().map(show).collect::<Vec<_>>().join(" ")
        }
        Err(error) => error.to_string(),
    }
}

#[test]
fn where_an_image_is() {
    let check = |text: &str, image: &str, expect: &str| assert_eq!(places(text, image), expect, "{text}\n{image}");
    check("", "lolcow", "docker.io/library/lolcow");
    let moved = "[[registry]]\nprefix='docker.io'\nlocation='site:5000/hub/'\n";
    check(moved, "lolcow", "site:5000/hub/library/lolcow");
    check(moved, "quay.io/a", "quay.io/a");
    check(moved, "docker.io.example/a", "docker.io.example/a");
    let nested = format!("{moved}[[registry]]\nlocation='docker.io/library'\ninsecure=true\n");
    check(&nested, "lolcow", "docker.io/library/lolcow!");
    check(&nested, "lab/lolcow", "site:5000/hub/lab/lolcow");
    let exact = "[[registry]]\nprefix='r.example/a/b'\nlocation='s.example/c'\n";
    check(exact, "r.example/a/b:v1", "s.example/c");
    check(exact, "r.example/a/b/d", "s.example/c/d");
    check(exact, "r.example/a/bc", "r.example/a/bc");
    let wild = "[[registry]]\nprefix='*.example.com'\nlocation='mirror.site'\n";
    check(wild, "a.b.example.com:5000/x/y", "mirror.site/x/y");
    check(wild, "example.com/x", "example.com/x");
    check("[[registry]]\nprefix='*.example.com'\ninsecure=true\n", "a.example.com/x", "a.example.com/x!");
    let blocked = "[[registry]]\nlocation='evil.example'\nblocked=true\n";
    check(blocked, "evil.example/a", "pulling evil.example/a:latest: evil.example is blocked by registries.conf");
    let odd = "[[registry]]\nprefix='r.example'\nlocation='s.example/Upper'\n";
    let says = "pulling r.example/a:latest: its place \"s.example/Upper/a\" by registries.conf is no name of an image";
    check(odd, "r.example/a", says);
}

#[test]
fn mirrors_come_first_in_their_order() {
    let text = "[[registry]]\nlocation='docker.io'\n\
        [[registry.mirror]]\nlocation='m1/hub'\ninsecure=true\n\
        [[registry.mirror]]\nlocation='m2.site'\npull-from-mirror='digest-only'\n\
        [[registry.mirror]]\nlocation='m3.site'\npull-from-mirror='tag-only'\n";
    assert_eq!(places(text, "x/y"), "m1/hub/x/y! m3.site/x/y docker.io/x/y");
    assert_eq!(places(text, "x/y@D"), "m1/hub/x/y! m2.site/x/y docker.io/x/y");
    let all =
        "[[registry]]\nlocation='docker.io'\nmirror-by-digest-only=true\n[[registry.mirror]]\nlocation='m.site'\n";
    assert_eq!(places(all, "x/y"), "docker.io/x/y");
    assert_eq!(places(all, "x/y:v1@D"), "m.site/x/y docker.io/x/y");
}

#[test]
fn later_files_replace_prefixes() {
    let mut registries =
        read("unqualified-search-registries=['a']\n[[registry]]\nlocation='r'\nblocked=true\n").expect("main");
    registries.add("20.conf", "[aliases]\nold=''\n[[registry]]\nprefix='r'\nlocation='s.site'\n").expect("second");
    assert_eq!(registries.registries.len(), 1);
    assert_eq!(registries.registries[0].location, "s.site");
}

#[test]
fn which_logins_may_be_insecure() {
    let text = "[[registry]]\nlocation='r.example'\ninsecure=true\n\
        [[registry]]\nprefix='moved.example'\nlocation='s.site/x'\ninsecure=true\n\
        [[registry]]\nprefix='inside.example'\nlocation='inside.example/x'\ninsecure=true\n\
        [[registry]]\nlocation='p.example/library'\ninsecure=true\n\
        [[registry]]\nprefix='*.wild.example'\nlocation='s.site'\ninsecure=true\n\
        [[registry]]\nlocation='b.example'\nblocked=true\n";
    let registries = read(text).expect("file");
    let check = |name: &str, expect: bool| assert_eq!(registries.is_insecure(name), Ok(expect), "{name}");
    check("r.example", true);
    check("r.example/a", true);
    check("r.example.org", false);
    check("moved.example", false);
    check("inside.example", true);
    check("p.example", false);
    check("p.example/library", true);
    check("a.wild.example", false);
    check("other.example", false);
    let error = registries.is_insecure("b.example").expect_err("blocked").to_string();
    assert!(error.contains("b.example is blocked by registries.conf"), "{error}");
}

#[test]
fn version_1_and_mistakes() {
    let old = "[registries.search]\nregistries=['a']\n[registries.insecure]\nregistries=['i.site']\n[registries.block]\nregistries=['b.site']\n";
    assert_eq!(places(old, "i.site/x"), "i.site/x!");
    assert!(places(old, "b.site/x").contains("is blocked"));
    let check = |text: &str, says: &str| {
        let error = read(text).expect_err(text).to_string();
        assert!(error.starts_with("registries.conf: ") && error.contains(says), "{error}");
    };
    check("[[registry]]\nlocation='a'\n\nblocked='yes'\n", "line 4: invalid type");
    check("[[registry]\n", "line 1: ");
    check("[[registry]]\ninsecure=true\n", "\"\" is not HOST");
    check("[[registry]]\nlocation='https://a/b'\n", "\"https://a/b\" is not HOST[:PORT][/PATH]");
    check("[[registry]]\nprefix='*.a/b'\nlocation='c'\n", "\"*.a/b\" with a wildcard");
    check(
        "[[registry]]\nlocation='a'\n[[registry.mirror]]\nlocation='b'\npull-from-mirror='never'\n",
        "\"never\" is not all",
    );
}
