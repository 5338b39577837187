//! `--sif`, `--sif-bind`, `--sif-batch`: what they may say, and what follows from them. Pure.

use std::ffi::{OsStr, OsString};

use siforge_launch::Bind;
use siforge_reference::StoreRef;

use crate::error::Error;

/// The value of --sif that undoes another one (sbatch's, or SIFORGE_SLURM_SIF).
const NONE: &str = "none";
/// Longest value of an option that is looked at: a reference is no longer than a path and a scheme.
const VALUE_LIMIT: usize = 64 * 1024;

/// Reserved step ids (slurm.h): NO_VAL counts down from 0xfffffffe.
const SLURM_INTERACTIVE_STEP: u32 = 0xffff_fffa;
const SLURM_BATCH_SCRIPT: u32 = 0xffff_fffb;
const SLURM_EXTERN_CONT: u32 = 0xffff_fffc;

/// An option of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Image,
    Bind,
    Batch,
}

impl Which {
    /// All of them; SPANK calls back with the place in this list.
    pub(crate) const ALL: [Which; 3] = [Which::Image, Which::Bind, Which::Batch];
}

/// What was given, as typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Given {
    image: Option<OsString>,
    bind: Option<OsString>,
    batch: bool,
}

impl Given {
    /// Takes an option; says why it can't be used. It is kept all the same, for the node to refuse.
    pub(crate) fn take(&mut self, which: Which, value: Option<OsString>, namespace: Option<&str>) -> Result<(), Error> {
        let value = value.unwrap_or_default();
        match which {
            Which::Image => {
                let checked = image(&value, namespace).map(drop);
                self.image = Some(value);
                checked
            }
            Which::Bind => {
                let checked = binds(&value).map(drop);
                self.bind = Some(value);
                checked
            }
            Which::Batch => {
                self.batch = true;
                Ok(())
            }
        }
    }

    /// What is not given by options, from the environment.
    pub(crate) fn or(self, image: Option<OsString>, bind: Option<OsString>) -> Self {
        let given = |value: Option<OsString>| value.filter(|value| !value.is_empty());
        Self { image: self.image.or_else(|| given(image)), bind: self.bind.or_else(|| given(bind)), batch: self.batch }
    }

    /// The image, as the agent understands it; `None`: the step runs on the host.
    pub(crate) fn image(&self, namespace: Option<&str>) -> Result<Option<String>, Error> {
        self.image.as_deref().map_or(Ok(None), |value| image(value, namespace))
    }

    pub(crate) fn binds(&self) -> Result<Vec<Bind>, Error> {
        self.bind.as_deref().map_or(Ok(Vec::new()), binds)
    }

    /// As given, for APPTAINER_BIND.
    pub(crate) fn bind_text(&self) -> OsString {
        self.bind.clone().unwrap_or_default()
    }

    /// Whether a step enters the image at all.
    pub(crate) fn enters(&self, step: u32) -> bool {
        let asked = self.image.as_deref().is_some_and(|image| image != NONE);
        asked
            && match step {
                SLURM_BATCH_SCRIPT => self.batch,
                // salloc's shell and the step that adopts ssh sessions belong to the host.
                SLURM_INTERACTIVE_STEP | SLURM_EXTERN_CONT => false,
                _ => true,
            }
    }
}

/// Whether a step runs a batch script.
pub(crate) fn is_batch(step: u32) -> bool {
    step == SLURM_BATCH_SCRIPT
}

/// A reference to an image of the store, `sif://namespace/name[@digest]` where the namespace is known.
fn image(value: &OsStr, namespace: Option<&str>) -> Result<Option<String>, Error> {
    let invalid = || Error::Image { value: value.to_owned() };
    let text = value.to_str().filter(|text| text.len() <= VALUE_LIMIT).ok_or_else(invalid)?;
    if text == NONE {
        return Ok(None);
    }
    let name = text.strip_prefix("sif://").unwrap_or(text);
    let place = name.split('@').next().unwrap_or_default();
    if place.contains('/') {
        let reference: StoreRef = text.parse().map_err(|_| invalid())?;
        return Ok(Some(reference.to_string()));
    }
    let complete = |namespace: &str| format!("{namespace}/{name}").parse::<StoreRef>().map_err(|_| invalid());
    match namespace {
        Some(namespace) => Ok(Some(complete(namespace)?.to_string())),
        // The agent completes it; here any namespace will do to check the rest.
        None => complete("x").map(|_| Some(name.to_owned())),
    }
}

fn binds(value: &OsStr) -> Result<Vec<Bind>, Error> {
    Ok(Bind::parse_list(value)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images() {
        let check = |text: &str, namespace: Option<&str>, expect: Result<Option<&str>, ()>| {
            let got = image(OsStr::new(text), namespace).map_err(drop);
            assert_eq!(got, expect.map(|image| image.map(str::to_owned)), "{text}");
        };
        let digest = format!("@sha256:{}", "a".repeat(64));
        check("none", None, Ok(None));
        check("lab/lolcow", None, Ok(Some("sif://lab/lolcow")));
        check("sif://lab/lolcow", Some("x"), Ok(Some("sif://lab/lolcow")));
        check("lolcow", Some("lab"), Ok(Some("sif://lab/lolcow")));
        check("lolcow", None, Ok(Some("lolcow")));
        let whole = format!("lolcow{digest}");
        check(&whole, None, Ok(Some(&whole)));
        check(&whole, Some("lab"), Ok(Some(&format!("sif://lab/{whole}"))));
        for wrong in ["", "/x.sif", "./x.sif", "docker://lolcow", "lab/x/y", "Lab/x", "lolcow@x", "a b"] {
            check(wrong, None, Err(()));
            check(wrong, Some("lab"), Err(()));
        }
    }

    #[test]
    fn options_win_over_the_environment_and_none_over_all() {
        let mut given = Given::default();
        let variables = || (Some("lab/a".into()), Some("/x".into()));
        let with = |given: &Given| {
            let (image, bind) = variables();
            given.clone().or(image, bind)
        };
        assert_eq!(with(&given).image(None).expect("image"), Some("sif://lab/a".into()));
        assert!(with(&given).enters(0));
        given.take(Which::Image, Some("lab/b".into()), None).expect("take");
        assert_eq!(with(&given).image(None).expect("image"), Some("sif://lab/b".into()));
        assert_eq!(with(&given).bind_text(), "/x");
        given.take(Which::Image, Some("none".into()), None).expect("take");
        assert_eq!(with(&given).image(None).expect("image"), None);
        assert!(!with(&given).enters(0));
        assert!(!given.clone().or(Some("".into()), None).enters(0));
    }

    #[test]
    fn steps_that_enter() {
        let mut given = Given::default();
        assert!(!given.enters(0));
        given.take(Which::Image, Some("lab/a".into()), None).expect("take");
        let check = |given: &Given, step: u32, expect: bool| {
            assert_eq!(given.enters(step), expect, "{step:x}");
        };
        check(&given, 0, true);
        check(&given, SLURM_BATCH_SCRIPT, false);
        check(&given, SLURM_INTERACTIVE_STEP, false);
        check(&given, SLURM_EXTERN_CONT, false);
        given.take(Which::Batch, None, None).expect("take");
        check(&given, SLURM_BATCH_SCRIPT, true);
        check(&given, SLURM_INTERACTIVE_STEP, false);
    }

    #[test]
    fn what_is_refused_is_kept() {
        let mut given = Given::default();
        given.take(Which::Image, Some("/x.sif".into()), None).expect_err("a path");
        assert!(given.enters(0));
        given.image(None).expect_err("still a path");
        given.take(Which::Bind, Some("a:b".into()), None).expect_err("a relative target");
        given.binds().expect_err("still relative");
    }
}
