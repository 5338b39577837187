//! What `siforge-agent status` prints. Pure.

use std::fmt::Write;

use siforge_agent_api::StatusReply;

/// Lines for people.
pub fn text(status: &StatusReply) -> String {
    let mut out = format!("siforge-agent {}, store {}\n", status.version, status.store);
    let count = match status.mounts.len() {
        0 => "no image is mounted".to_owned(),
        1 => "1 image is mounted".to_owned(),
        n => format!("{n} images are mounted"),
    };
    // Writing to a String does not fail.
    let _ = writeln!(out, "{count}");
    for mount in &status.mounts {
        let leases = if mount.leases.is_empty() { "-".to_owned() } else { mount.leases.join(" ") };
        let _ = writeln!(out, "  {}  leases: {leases}\n    {}", mount.digest, mount.path);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use siforge_agent_api::MountStatus;

    #[test]
    fn mounts_are_listed_with_their_leases() {
        let mount = |digest: &str, leases: &[&str]| MountStatus {
            digest: digest.into(),
            path: format!("/m/{digest}"),
            leases: leases.iter().map(|lease| (*lease).to_owned()).collect(),
        };
        let mut status = StatusReply { version: "1".into(), store: "/s".into(), ..StatusReply::default() };
        assert_eq!(text(&status), "siforge-agent 1, store /s\nno image is mounted\n");
        status.mounts = vec![mount("a", &["slurm-1", "x"]), mount("b", &[])];
        let expected = "siforge-agent 1, store /s\n2 images are mounted\n  a  leases: slurm-1 x\n    /m/a\n  b  leases: -\n    /m/b\n";
        assert_eq!(text(&status), expected);
    }
}
