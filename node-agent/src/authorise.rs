//! Who may have which image: the ref's access rules against what the kernel says about the caller. Pure, fail-closed.
//!
//! - A name means its current revision, by that revision's rules.
//! - A name with a digest means that digest if the name points at it, or did so in a revision that is kept; the rules are the
//!   current revision's all the same, so that closing an image closes its past too. A removed name opens nothing.
//! - A caller in a pod is not known to this socket (its uid is anyone's choice): it is refused. Pods come by the runtime.

use siforge_reference::Digest;
use siforge_store::{Caller, Ref};

/// What the caller may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// The image digest.
    pub digest: Digest,
    /// The ref's revision; 0 when the digest was given.
    pub revision: u64,
    /// The artifact's bytes.
    pub size: u64,
}

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// There is no such name.
    Unknown,
    /// The rules do not name the caller.
    NotAllowed,
    /// The name is there, and never pointed at this digest (that is known).
    OtherDigest,
}

/// Decides. `history` is asked only when a digest other than the current one is wanted; its error is passed on.
pub fn decide<E>(
    current: Option<&Ref>,
    wanted: Option<&Digest>,
    caller: &Caller,
    history: impl FnOnce() -> Result<Vec<Ref>, E>,
) -> Result<Result<Granted, Denied>, E> {
    let Some(current) = current else {
        return Ok(Err(Denied::Unknown));
    };
    if !current.allows(caller) {
        return Ok(Err(Denied::NotAllowed));
    }
    let Some(wanted) = wanted else {
        return Ok(Ok(Granted { digest: current.digest, revision: current.revision, size: current.size }));
    };
    if current.digest == *wanted {
        return Ok(Ok(Granted { digest: *wanted, revision: 0, size: current.size }));
    }
    let earlier = history()?.into_iter().find(|earlier| earlier.digest == *wanted);
    Ok(earlier.map(|earlier| Granted { digest: *wanted, revision: 0, size: earlier.size }).ok_or(Denied::OtherDigest))
}

/// Whether /proc/PID/cgroup (cgroups(7)) shows a process of a pod: the kubelet puts every pod below a group of this name, with
/// either cgroup driver and version. An agent in a cgroup namespace of its own sees its neighbours as `/../…` (cgroup_namespaces(7)),
/// which may hide that group: whoever is shown so may be in a pod, and counts as one.
pub fn is_in_pod(cgroup: &str) -> bool {
    cgroup
        .lines()
        .any(|line| line.splitn(3, ':').nth(2).is_some_and(|path| path.contains("kubepods") || path.starts_with("/..")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use siforge_store::{Access, Namespaces, Provenance, RefContent};

    fn digest(n: u8) -> Digest {
        Digest::from_bytes([n; 32])
    }

    fn reference(revision: u64, of: u8, access: Access) -> Ref {
        let source = Provenance {
            reference: "docker://r/i:latest".into(),
            digest: digest(100),
            recipe: digest(101),
            builder_version: "1".into(),
        };
        let content = RefContent {
            namespace: "lab".into(),
            name: "i".into(),
            digest: digest(of),
            size: u64::from(of) * 10,
            platform: "linux/amd64".into(),
            source,
            access,
            published_at: 0,
        };
        Ref { revision, generation: 0, content }
    }

    fn caller(uid: u32, gids: &[u32]) -> Caller {
        Caller { uid, gids: gids.to_vec(), namespace: None }
    }

    fn check(name: &str, access: Access, caller: &Caller, wanted: Option<u8>, expected: Result<(u8, u64), Denied>) {
        let current = reference(2, 2, access.clone());
        let history =
            || Ok::<_, ()>(vec![current.clone(), reference(1, 1, Access { everyone: true, ..access.clone() })]);
        let wanted = wanted.map(digest);
        let decided = decide(Some(&current), wanted.as_ref(), caller, history).unwrap();
        let expected =
            expected.map(|(of, revision)| Granted { digest: digest(of), revision, size: u64::from(of) * 10 });
        assert_eq!(decided, expected, "{name}");
    }

    #[test]
    fn rules_of_the_current_revision_decide() {
        let closed = Access::default;
        let everyone = || Access { everyone: true, ..Access::default() };
        let group = || Access { gids: vec![50], ..Access::default() };
        let user = caller(1000, &[1000]);
        check("closed", closed(), &user, None, Err(Denied::NotAllowed));
        check("root", closed(), &caller(0, &[0]), None, Ok((2, 2)));
        check("everyone", everyone(), &user, None, Ok((2, 2)));
        check("uid", Access { uids: vec![1000], ..closed() }, &user, None, Ok((2, 2)));
        check("other uid", Access { uids: vec![1001], ..closed() }, &user, None, Err(Denied::NotAllowed));
        check("group", group(), &caller(1000, &[1000, 50]), None, Ok((2, 2)));
        check("other group", group(), &user, None, Err(Denied::NotAllowed));
        check("current digest", everyone(), &user, Some(2), Ok((2, 0)));
        check("earlier digest", everyone(), &user, Some(1), Ok((1, 0)));
        check("no such digest", everyone(), &user, Some(9), Err(Denied::OtherDigest));
        check("earlier digest, closed since", closed(), &user, Some(1), Err(Denied::NotAllowed));
        let pod = Caller { namespace: Some("other".into()), ..caller(0, &[0]) };
        check(
            "a pod's root",
            Access { namespaces: Namespaces::Same, ..everyone() },
            &pod,
            None,
            Err(Denied::NotAllowed),
        );
    }

    #[test]
    fn a_removed_name_opens_nothing() {
        let decided = decide(None, Some(&digest(1)), &caller(0, &[]), || -> Result<Vec<Ref>, ()> { panic!("asked") });
        assert_eq!(decided, Ok(Err(Denied::Unknown)));
    }

    #[test]
    fn pods_are_told_by_their_cgroup() {
        let cases = [
            ("0::/kubepods.slice/kubepods-burstable.slice/cri-containerd-1.scope\n", true),
            ("12:cpu:/kubepods/besteffort/pod1/2\n0::/\n", true),
            ("0::/../../pod1/cri-containerd-2\n", true),
            ("0::/user.slice/user-1000.slice/session-3.scope\n", false),
            ("0::/system.slice/slurmstepd.scope/job_1/step_0/user/task_0\n", false),
            ("", false),
        ];
        for (text, expected) in cases {
            assert_eq!(is_in_pod(text), expected, "{text}");
        }
    }
}
