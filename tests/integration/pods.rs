//! Images of the store as the roots of pods: the real operator, agent, runtime, containerd and kubelet.

mod shadow_registry;
mod site;

use site::Site;

/// What Pod Security `restricted` asks of a container.
const RESTRICTED: &str = "securityContext: {allowPrivilegeEscalation: false, runAsNonRoot: true, runAsUser: 1234, capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}}";

#[test]
fn pods_have_images_of_the_store_as_their_root() {
    let site = Site::start();
    root_is_the_image(&site);
}

/// No byte but `/etc/passwd` and `/etc/group` comes by containerd: a shell that answers is the image's.
fn root_is_the_image(site: &Site) {
    let script = "cat /proof; id; echo $TINY $MORE; echo w > /tmp/w && cat /tmp/w; ls -a / | tr '\\n' ' '";
    let container = format!("command: [sh, -c, \"{script}\"], env: [{{name: MORE, value: more}}], {RESTRICTED}");
    site.run_pod("root", "tiny", &container);
    let log = site.finished("root");
    assert_eq!(log.lines().next(), Some("made of layers"), "{log}");
}
