//! `WWW-Authenticate`: how a registry wants to be asked (RFC 9110, 11.6.1). Pure.
//!
//! ```text
//!   Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/x:pull"
//!   Basic realm="ci"
//! ```
//! There may be several headers, and several challenges in one, separated by the same commas as their parameters.

/// A challenge that can be met; those of other schemes are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

/// The challenges of one header, in its order.
pub(crate) fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = header.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let (word, after) = rest.split_at(rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len()));
        let after = after.trim_start_matches([' ', '\t']);
        rest = match after.strip_prefix('=') {
            Some(value) => {
                let (value, after) = parameter(value.trim_start_matches([' ', '\t']));
                if let Some((_, parameters)) = challenges.last_mut() {
                    parameters.push((word.to_ascii_lowercase(), value));
                }
                after
            }
            None => {
                challenges.push((word.to_ascii_lowercase(), Vec::new()));
                after
            }
        };
        rest = rest.trim_start_matches([' ', '\t', ',']);
    }
    challenges.into_iter().filter_map(|(scheme, parameters)| challenge(&scheme, parameters)).collect()
}

/// A token or quoted string, and what follows it.
fn parameter(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = text.split_at(text.find([' ', '\t', ',']).unwrap_or(text.len()));
        return (value.to_owned(), rest);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

fn challenge(scheme: &str, parameters: Vec<(String, String)>) -> Option<Challenge> {
    let find = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer { realm: find("realm")?, service: find("service") }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bearer(realm: &str, service: Option<&str>) -> Challenge {
        Challenge::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) }
    }

    #[test]
    fn headers() {
        let check = |header: &str, expect: &[Challenge]| assert_eq!(parse(header), expect, "{header}");
        check(
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a:pull,push""#,
            &[bearer("https://auth.docker.io/token", Some("registry.docker.io"))],
        );
        check(r#"bearer  Realm = "r" , error="invalid_token""#, &[bearer("r", None)]);
        check(r#"Basic realm="ci""#, &[Challenge::Basic]);
        check("Basic", &[Challenge::Basic]);
        check(r#"Basic realm=ci, Bearer realm=r,service=s"#, &[Challenge::Basic, bearer("r", Some("s"))]);
        check(r#"Negotiate, Digest realm="x", Basic realm="a, \"b\"""#, &[Challenge::Basic]);
        check("Bearer", &[]);
        check(r#"Bearer realm="open"#, &[bearer("open", None)]);
        check("", &[]);
        check(",,=,", &[]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_header_is_read(header in r#"[BbaersicRlm ="\\,é\t]{0,60}"#) {
            parse(&header);
        }
    }
}
