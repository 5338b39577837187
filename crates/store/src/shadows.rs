//! Shadows: what the image that stands for an artifact in a pod is made of, so that nobody has to read the artifact for it.
//!
//! ```json
//! {"format":1,"digest":"sha256:…","architecture":"amd64",
//!  "config":{"Cmd":["cow"],"Env":["PATH=/bin"]},        the image config's `config`
//!  "passwd":"root:x:0:0:…","group":"root:x:0:"}         absent: the image has none
//! {"format":1,"digest":"sha256:…","architecture":"amd64","config":{},"unfit":"…"}
//! ```
//!
//! A function of the artifact alone, written when it is published and never changed: made by `link`, and the first one stays.

use crate::durable::{self, Link};
use crate::{Error, Store};
use serde::{Deserialize, Serialize};
use siforge_reference::Digest;

const FORMAT: u32 = 1;
/// Most bytes of each part. Twenty times what distributions ship; a container runtime reads all of it at each start.
pub const PART_LIMIT: usize = 64 << 10;
/// Most bytes of a shadow that are read: three parts, of which escapes make six bytes of one at most.
const LIMIT: u64 = (3 * 6 * PART_LIMIT as u64) + (64 << 10);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shadow {
    pub format: u32,
    /// The artifact's image digest.
    pub digest: Digest,
    /// As Go names it: `amd64`.
    pub architecture: String,
    /// The image config's `config`, as an object.
    pub config: serde_json::Value,
    /// `/etc/passwd`. What is not UTF-8 is replaced: the numbers and names that a runtime looks for are ASCII.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passwd: Option<String>,
    /// `/etc/group`, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Why the image cannot be a pod's root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfit: Option<String>,
}

/// What a shadow is made of, as it was found in the image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// The image config's `config` as JSON.
    pub config: Vec<u8>,
    pub passwd: Option<Vec<u8>>,
    pub group: Option<Vec<u8>>,
}

impl Shadow {
    /// The shadow of an artifact. Parts that no runtime could use make it unfit. Pure.
    pub fn new(digest: Digest, architecture: &str, parts: &Parts) -> Self {
        let empty = serde_json::Value::Object(serde_json::Map::new());
        let base = Self {
            format: FORMAT,
            digest,
            architecture: architecture.to_owned(),
            config: empty,
            passwd: None,
            group: None,
            unfit: None,
        };
        match parts.check() {
            Ok(config) => {
                let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
                let (passwd, group) = (parts.passwd.as_ref().map(text), parts.group.as_ref().map(text));
                Self { config, passwd, group, ..base }
            }
            Err(reason) => Self { unfit: Some(reason), ..base },
        }
    }
}

impl Parts {
    fn check(&self) -> Result<serde_json::Value, String> {
        let parts = [
            ("image config", Some(&self.config)),
            ("/etc/passwd", self.passwd.as_ref()),
            ("/etc/group", self.group.as_ref()),
        ];
        for (name, part) in parts {
            let len = part.map_or(0, Vec::len);
            if len > PART_LIMIT {
                return Err(format!("its {name} has {len} bytes, a pod's image may have {PART_LIMIT}"));
            }
        }
        match serde_json::from_slice(&self.config) {
            Ok(config @ serde_json::Value::Object(_)) => Ok(config),
            Ok(_) => Err("its image config is no JSON object".to_owned()),
            Err(error) => Err(format!("its image config is no JSON: {error}")),
        }
    }
}

impl Store {
    /// The shadow of an artifact; None if nobody wrote one.
    pub fn shadow(&self, digest: &Digest) -> Result<Option<Shadow>, Error> {
        let path = self.layout().shadow(digest);
        let shadow: Option<Shadow> = durable::read_json(&path, LIMIT, FORMAT)?;
        match shadow {
            Some(shadow) if shadow.digest != *digest => {
                Err(Error::Damaged { path, reason: format!("it is the shadow of {}", shadow.digest) })
            }
            shadow => Ok(shadow),
        }
    }

    /// Writes a shadow, unless there is one. It is as closed to others as a private artifact.
    pub fn write_shadow(&self, shadow: &Shadow) -> Result<(), Error> {
        let path = self.layout().shadow(&shadow.digest);
        let dir = self.layout().shadows();
        durable::make_dirs(&dir)?;
        let temp = durable::json_temp(&dir, shadow, 0o640)?;
        if let Some(group) = self.agent_group() {
            std::os::unix::fs::fchown(&temp.file, None, Some(group))
                .map_err(Error::io("give to the agent group", temp.path()))?;
        }
        if temp.link(&path)? == Link::Made {
            return Ok(());
        }
        match self.shadow(&shadow.digest) {
            Err(Error::Damaged { .. }) => temp.rename(&path),
            other => other.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest() -> Digest {
        Digest::from_bytes([7; 32])
    }

    fn check(name: &str, parts: Parts, expected: Result<(Option<&str>, Option<&str>), &str>) {
        let shadow = Shadow::new(digest(), "amd64", &parts);
        match expected {
            Ok((passwd, group)) => {
                assert_eq!(shadow.unfit, None, "{name}");
                assert_eq!((shadow.passwd.as_deref(), shadow.group.as_deref()), (passwd, group), "{name}");
            }
            Err(reason) => {
                assert!(shadow.unfit.as_ref().is_some_and(|unfit| unfit.contains(reason)), "{name}: {shadow:?}");
                assert_eq!((&shadow.passwd, shadow.config.to_string().as_str()), (&None, "{}"), "{name}");
            }
        }
    }

    #[test]
    fn parts_are_bounded_and_read_as_they_are() {
        let config = || br#"{"Cmd":["cow"]}"#.to_vec();
        let parts = |passwd: &[u8], group: Option<&[u8]>| Parts {
            config: config(),
            passwd: Some(passwd.to_vec()),
            group: group.map(<[u8]>::to_vec),
        };
        check("both", parts(b"root:x:0:0", Some(b"root:x:0:")), Ok((Some("root:x:0:0"), Some("root:x:0:"))));
        check("no group", parts(b"", None), Ok((Some(""), None)));
        check("none", Parts { config: config(), ..Parts::default() }, Ok((None, None)));
        check("Latin-1", parts(b"j:x:1:1:J\xf6rg", None), Ok((Some("j:x:1:1:J\u{fffd}rg"), None)));
        check("full", parts(&[b'x'; PART_LIMIT], None), Ok((Some(&"x".repeat(PART_LIMIT)), None)));
        check("large passwd", parts(&[b'x'; PART_LIMIT + 1], None), Err("its /etc/passwd has 65537 bytes"));
        check("large group", parts(b"", Some(&[0; PART_LIMIT + 1])), Err("its /etc/group has"));
        for (config, reason) in [("", "is no JSON:"), ("[]", "is no JSON object"), ("{", "is no JSON:")] {
            check(config, Parts { config: config.into(), ..Parts::default() }, Err(reason));
        }
    }

    #[test]
    fn the_first_one_stays_and_a_damaged_one_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::init(dir.path(), None).unwrap();
        let full = [1; PART_LIMIT];
        let parts = Parts { config: b"{}".to_vec(), passwd: Some(full.to_vec()), group: Some(full.to_vec()) };
        let shadow = Shadow::new(digest(), "amd64", &parts);
        assert_eq!(store.shadow(&digest()).unwrap(), None);
        store.write_shadow(&shadow).unwrap();
        assert_eq!(store.shadow(&digest()).unwrap().as_ref(), Some(&shadow));
        store.write_shadow(&Shadow { architecture: "arm64".into(), ..shadow.clone() }).unwrap();
        assert_eq!(store.shadow(&digest()).unwrap().as_ref(), Some(&shadow));

        let path = store.layout().shadow(&digest());
        for bad in ["", "{\"format\":1}"] {
            std::fs::write(&path, bad).unwrap();
            assert!(matches!(store.shadow(&digest()), Err(Error::Damaged { .. })), "{bad}");
            store.write_shadow(&shadow).unwrap();
            assert_eq!(store.shadow(&digest()).unwrap().as_ref(), Some(&shadow));
        }
        let other = Digest::from_bytes([8; 32]);
        std::fs::rename(&path, store.layout().shadow(&other)).unwrap();
        assert!(matches!(store.shadow(&other), Err(Error::Damaged { .. })));
    }
}
