//! Who may launch what a ref points at. Pure, fail-closed: whoever no rule names is refused.

use serde::{Deserialize, Serialize};

/// The rules of one ref.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    /// For pods, and for jobs that a namespace accounts for.
    #[serde(default)]
    pub namespaces: Namespaces,
    /// People and jobs on a node, by uid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uids: Vec<u32>,
    /// … by primary or supplementary gid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gids: Vec<u32>,
    /// Everyone on a node; also what makes the artifact's file world-readable.
    #[serde(default)]
    pub everyone: bool,
}

/// From which namespaces. A selector is resolved to a list by the operator when it writes the ref.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Namespaces {
    /// The ref's own.
    #[default]
    Same,
    All,
    List(Vec<String>),
}

/// Who asks, as the agent found out by itself (SO_PEERCRED, cgroup, kubelet), never as the caller says.
///
/// An agent that cannot tell whether a process belongs to a pod must refuse it: here a caller without a namespace is a
/// process of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    pub uid: u32,
    /// Primary and supplementary.
    pub gids: Vec<u32>,
    /// The namespace of the pod (or of the job's account).
    pub namespace: Option<String>,
}

impl Access {
    /// Whether `caller` may launch an image of the ref's namespace `owner`.
    ///
    /// In a namespace, the namespace alone decides: uids inside pods are anyone's choice. On the host, root is let in (it can
    /// read the store itself), everyone else by uid, gid or `everyone`.
    pub fn allows(&self, owner: &str, caller: &Caller) -> bool {
        match &caller.namespace {
            Some(namespace) => match &self.namespaces {
                Namespaces::Same => namespace == owner,
                Namespaces::All => true,
                Namespaces::List(list) => list.contains(namespace),
            },
            None => {
                let by_uid = caller.uid == 0 || self.uids.contains(&caller.uid);
                let by_gid = caller.gids.iter().any(|gid| self.gids.contains(gid));
                self.everyone || by_uid || by_gid
            }
        }
    }

    /// Whether the artifact's file may be world-readable.
    pub fn is_public(&self) -> bool {
        self.everyone
    }
}
