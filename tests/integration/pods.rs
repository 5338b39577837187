//! Images of the store as the roots of pods: the real operator, agent, runtime, containerd and kubelet.

mod install;
mod shadow_registry;
mod site;

use std::time::Duration;

use siforge_tests::{Compression, Tar, images, wait_until};
use site::{DEADLINE, Site};

/// What Pod Security `restricted` asks of a container.
const RESTRICTED: &str = "allowPrivilegeEscalation: false, runAsNonRoot: true, capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}";

/// A container's fields: what it runs, as whom, and whether its root is read-only.
fn container(script: &str, security: &str) -> String {
    format!("command: [sh, -c, {script:?}], securityContext: {{{security}{RESTRICTED}}}")
}

#[test]
fn pods_have_images_of_the_store_as_their_root() {
    let site = Site::start();
    root_is_the_image(&site);
    image_says_what_runs_and_as_whom(&site);
    unknown_images_wait_with_the_reason(&site);
    access_is_asked_for_the_pods_namespace(&site);
    other_containers_are_left_alone(&site);
    jobs_do_not_fail_for_an_image_that_is_late(&site);
    running_pods_need_no_agent(&site);
    nothing_is_left(&site);
}

/// No byte but `/etc/passwd` and `/etc/group` comes by containerd: a shell that answers is the image's.
fn root_is_the_image(site: &Site) {
    let script = "cat /proof; id -u; echo $TINY $MORE; echo w > /tmp/w && cat /tmp/w; ls -a / | tr '\\n' ' '";
    let more = "env: [{name: MORE, value: more}]";
    site.run_pod("root", "tiny", &format!("{}, {more}", container(script, "runAsUser: 1234, ")));
    let log = site.finished("root");
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines[..4], ["made of layers", "1234", "yes more", "w"], "{log}");
    assert!(lines[4].contains(" .singularity.d ") && !lines[4].contains(".siforge-image"), "{log}");

    let script = "echo w > /tmp/w || echo read-only; touch /etc/hosts 2>&1; test -s /etc/hosts && echo hosts";
    let security = "runAsUser: 1234, readOnlyRootFilesystem: true, ";
    site.run_pod("read-only", "tiny", &container(script, security));
    let log = site.finished("read-only");
    assert!(log.contains("read-only\n") && log.contains("hosts\n"), "{log}");
}

/// Entrypoint, command, working directory and user are the image's own, with its own passwd and group.
fn image_says_what_runs_and_as_whom(site: &Site) {
    let accounts = Tar::new()
        .file("etc/passwd", 0o644, "root:x:0:0::/:/bin/sh\nmoo:x:4321:4322::/barn:/bin/sh\n")
        .file("etc/group", 0o644, "root:x:0:\nmoo:x:4322:\nherd:x:4323:moo\n")
        .dir("barn", 0o755);
    let image = images::tiny()
        .layer(accounts.finish(), Compression::Gzip)
        .config("Entrypoint", serde_json::json!(["/bin/sh", "-c", "id; pwd; echo $0 $1", "entry"]))
        .config("Cmd", serde_json::json!(["default"]))
        .config("User", serde_json::json!("4321"))
        .config("WorkingDir", serde_json::json!("/barn"));
    site.push("cow", &image);
    site.publish("cow", "All");
    let who = "uid=4321(moo) gid=4322(moo) groups=4322(moo),4323(herd)\n/barn\n";
    let security = format!("securityContext: {{{RESTRICTED}}}");
    for (pod, args, words) in [("default", "", "entry default"), ("args", "args: [other], ", "entry other")] {
        site.run_pod(pod, "cow", &format!("{args}{security}"));
        assert_eq!(site.finished(pod), format!("{who}{words}\n"), "{pod}");
    }
    site.run_pod("command", "cow", &format!("command: [/bin/pwd], {security}"));
    assert_eq!(site.finished("command"), "/barn\n");
}

/// The reason is on the pod, and the pod starts when there is no reason any more.
fn unknown_images_wait_with_the_reason(site: &Site) {
    let hello = container("echo hello", "runAsUser: 1, ");
    site.run_pod("typo", "tini", &hello);
    let namespace = &site.namespace;
    site.waits_for("typo", &format!("no image {namespace}/tini is published; the nearest name is {namespace}/tiny"));
    site.run_pod("revision", "tiny:7", &hello);
    site.waits_for("revision", &format!("{namespace}/tiny has no revision 7"));

    site.run_pod("early", "late", &hello);
    site.waits_for("early", &format!("no image {namespace}/late is published"));
    site.publish("late", "Same");
    assert_eq!(site.finished("early"), "hello\n");
}

/// `late` is for its own namespace alone. A file of an ordinary image that claims to be it changes nothing.
fn access_is_asked_for_the_pods_namespace(site: &Site) {
    let other = site.other_namespace();
    let hello = container("echo hello", "runAsUser: 1, ");
    let reason = format!("a pod of the namespace {} may not use the image {}/late", other.namespace, site.namespace);
    other.run_pod_of("stranger", &format!("siforge.dev/{}/late", site.namespace), &hello);
    other.fails_with("stranger", &reason);

    let marker = site.marker("late");
    let forged = images::tiny_with(Compression::Gzip)
        .layer(Tar::new().file(".siforge-image", 0o444, marker).finish(), Compression::Gzip);
    site.node.import("localhost/test/forged:1", &forged);
    other.run_pod_of("forged", "localhost/test/forged:1", &hello);
    other.fails_with("forged", &reason);

    other.run_pod_of(
        "guest",
        &format!("siforge.dev/{}/tiny", site.namespace),
        &container("cat /proof", "runAsUser: 1, "),
    );
    assert_eq!(other.finished("guest"), "made of layers\n");
}

/// The runtime passes on what is not marked.
fn other_containers_are_left_alone(site: &Site) {
    site.node.import("localhost/test/plain:1", &images::tiny_with(Compression::Gzip));
    site.run_pod_of("plain", "localhost/test/plain:1", &container("test -e /proof || echo plain", "runAsUser: 1, "));
    assert_eq!(site.finished("plain"), "plain\n");
}

/// The example, with an image that is published after its pod was made.
fn jobs_do_not_fail_for_an_image_that_is_late(site: &Site) {
    let path = siforge_tests::binaries::source_root().join("examples/pods/job.yaml");
    let example = std::fs::read_to_string(path).expect("read the example");
    let image = format!("siforge.dev/{}/herd", site.namespace);
    let job = example.replace("siforge.dev/default/lolcow", &image).replace("fortune | cowsay", "cat /proof");
    let job = job.replace("name: cow\nspec", &format!("name: cow\n  namespace: {}\nspec", site.namespace));
    site.cluster.apply(&job).ok();
    let label = ["-n", &site.namespace, "-l", "batch.kubernetes.io/job-name=cow"];
    let why = "jsonpath={.items[0].status.containerStatuses[0].state.waiting.message}";
    let pods = || site.cluster.kubectl(&[&["get", "pods", "-o", why], &label[..]].concat());
    wait_until(DEADLINE, "the pod says what it waits for", || pods().stdout.contains("/herd is published"));
    site.push("herd", &site::with_proof());
    site.publish("herd", "Same");
    let done = ["wait", "--for=condition=Complete", "--timeout=120s", "-n", &site.namespace, "job/cow"];
    site.cluster.kubectl(&done).ok();
    let failed = ["get", "job", "cow", "-n", &site.namespace, "-o", "jsonpath={.status.failed}"];
    assert_eq!(site.cluster.kubectl(&failed).ok().stdout, "");
    assert_eq!(site.cluster.kubectl(&[&["logs"], &label[..]].concat()).ok().stdout, "made of layers\n");
}

/// The agent is needed to make a container and for nothing else; without it the reason is on the pod.
fn running_pods_need_no_agent(site: &Site) {
    site.run_pod("runs", "tiny", &container("while :; do sleep 1; done", "runAsUser: 1, "));
    site.wait_phase("runs", "Running");
    site.run_pod("second", "tiny", &container("sleep 1000", "runAsUser: 1, "));
    site.wait_phase("second", "Running");
    assert_eq!(site.mounts_of("tiny"), 1, "one kernel mount for all containers of an image");
    let exec = ["exec", "-n", &site.namespace, "runs", "--", "sh", "-c", "cat /proof; id -u"];
    assert_eq!(site.cluster.kubectl(&exec).ok().stdout, "made of layers\n1\n");

    site.agent.kill9();
    assert_eq!(site.cluster.kubectl(&exec).ok().stdout, "made of layers\n1\n");
    site.run_pod("orphan", "tiny", &container("echo hello", "runAsUser: 1, "));
    site.waits_for("orphan", "connection refused");
    let agent = site.start_agent();
    assert_eq!(site.finished("orphan"), "hello\n");
    assert_eq!(site.cluster.kubectl(&exec).ok().stdout, "made of layers\n1\n");
    drop(agent);
}

/// Pods take their overlays with them.
fn nothing_is_left(site: &Site) {
    site.cluster.kubectl(&["delete", "pods", "-n", &site.namespace, "--all", "--timeout=100s"]).ok();
    let overlays = || site.mounts("overlay").len();
    wait_until(Duration::from_secs(30), "no overlay is left", || overlays() == 0);
    wait_until(DEADLINE, "no squashfs is left", || site.mounts("squashfs").is_empty());
}
