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

/// What opens one registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// For Basic authentication, and for token servers.
    Password { username: String, password: Secret },
    /// Docker's `identitytoken`: an OAuth 2 refresh token that the registry's token server exchanges for access tokens.
    Identity { token: Secret },
    /// Docker's `registrytoken`: sent to the registry as it is.
    Bearer { token: Secret },
}

impl Credentials {
    pub fn new(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self::Password { username: username.into(), password: Secret::new(password) }
    }

    /// Whose they are, when they say so.
    pub fn username(&self) -> Option<&str> {
        match self {
            Self::Password { username, .. } => Some(username),
            Self::Identity { .. } | Self::Bearer { .. } => None,
        }
    }

    /// The secret part.
    pub fn secret(&self) -> &Secret {
        match self {
            Self::Password { password: secret, .. }
            | Self::Identity { token: secret }
            | Self::Bearer { token: secret } => secret,
        }
    }

    /// The value of an `Authorization` header (RFC 7617), from a user name and password.
    pub(crate) fn basic(&self) -> Option<Secret> {
        let Self::Password { username, password } = self else {
            return None;
        };
        let pair = Zeroizing::new(format!("{username}:{}", password.expose()));
        Some(Secret::new(format!("Basic {}", STANDARD.encode(pair.as_bytes()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_is_rfc_7617s_example() {
        let credentials = Credentials::new("Aladdin", "open sesame");
        assert_eq!(credentials.basic().expect("a pair").expose(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    }

    #[test]
    fn a_secret_is_not_printed() {
        let credentials = Credentials::new("ci", "hunter2");
        assert_eq!(format!("{credentials:?}"), r#"Password { username: "ci", password: *** }"#);
        assert_eq!(format!("{:#?}", credentials.secret()), "***");
    }
}
