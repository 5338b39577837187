//! Passwords and tokens: strings that cannot be printed and do not stay in memory.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// A string that cannot be printed: `Debug` shows `***`, there is no `Display`, and its memory is overwritten when it
/// is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub fn new(secret: impl Into<String>) -> Self {
        Self(Zeroizing::new(secret.into()))
    }

    /// The string itself. Callers put it into a request and nowhere else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl<'de> serde::Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// A user name and password for one registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    pub username: String,
    pub password: Secret,
}

impl Credentials {
    pub fn new(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self { username: username.into(), password: Secret::new(password) }
    }

    /// The value of an `Authorization` header (RFC 7617).
    pub(crate) fn basic(&self) -> Secret {
        let pair = Zeroizing::new(format!("{}:{}", self.username, self.password.expose()));
        Secret::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_is_rfc_7617s_example() {
        let credentials = Credentials::new("Aladdin", "open sesame");
        assert_eq!(credentials.basic().expose(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    }

    #[test]
    fn a_secret_is_not_printed() {
        let credentials = Credentials::new("ci", "hunter2");
        assert_eq!(format!("{credentials:?}"), r#"Credentials { username: "ci", password: *** }"#);
        assert_eq!(format!("{:#?}", credentials.password), "***");
    }
}
