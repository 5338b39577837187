//! The process: environment, exit codes, signals, ids, capabilities.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::support::{Image, NOBODY, USER};

const KEYS: &str = "grep -E '^(NoNewPrivs|CapEff|CapPrm|CapAmb):' /proc/self/status";

#[test]
fn exit_codes_and_output() {
    let image = Image::complete();
    let root = image.root();
    let check = |options: &[&str], command: &[&str], code: i32, stdout: &str, stderr: &str| {
        for uid in [0, USER] {
            let words = [options, &[root], command].concat();
            let output = image.output(uid, &words);
            let seen = (
                output.status.code(),
                String::from_utf8_lossy(&output.stdout).into_owned(),
                String::from_utf8_lossy(&output.stderr).into_owned(),
            );
            assert_eq!(seen, (Some(code), stdout.to_owned(), stderr.to_owned()), "uid {uid} {words:?}");
        }
    };
    for options in [&[][..], &["--pid"]] {
        check(options, &["true"], 0, "", "");
        check(options, &["/bin/sh", "-c", "exit 7"], 7, "", "");
        check(options, &["sh", "-c", "echo $GREETING; pwd; umask"], 0, "hello\n/tmp\n0022\n", "");
        check(options, &["sh", "-c", "sh -c 'kill -9 $$'; exit $?"], 137, "", "Killed\n");
        let missing = "FATAL:   \"nosuch\": executable file not found in $PATH\n";
        check(options, &["nosuch"], 255, "", missing);
        let missing = "FATAL:   execute /bin/nosuch: No such file or directory (os error 2)\n";
        check(options, &["/bin/nosuch"], 255, "", missing);
        check(options, &["/etc/passwd"], 255, "", "FATAL:   execute /etc/passwd: Permission denied (os error 13)\n");
    }
    let missing = "FATAL:   change to working directory /no: No such file or directory (os error 2)\n";
    check(&["--cwd", "/no"], &["true"], 255, "", missing);
    let missing = "FATAL:   bind /no: no such file or directory on the host\n";
    check(&["--bind", "/no"], &["true"], 255, "", missing);
}

#[test]
fn a_signal_ends_the_command_itself() {
    use std::os::unix::process::ExitStatusExt;
    let image = Image::complete();
    let output = image.output(USER, &[image.root(), "sh", "-c", "kill -TERM $$"]);
    assert_eq!(output.status.signal(), Some(15));
    let output = image.output(USER, &["--pid", image.root(), "sh", "-c", "kill -TERM $$"]);
    assert_eq!(output.status.code(), Some(143));
}

#[test]
fn broken_pipes_are_not_ignored() {
    let image = Image::complete();
    let script = "grep ^SigIgn /proc/self/status";
    let text = image.run(USER, &[image.root(), "sh", "-c", script]);
    let mask = u64::from_str_radix(text.split_whitespace().last().unwrap(), 16).unwrap();
    // Other signals may be ignored by whoever runs the tests; SIGPIPE (13) by Rust's start-up.
    assert_eq!(mask & (1 << 12), 0, "{text}");
}

#[test]
fn pid_namespace_has_an_init_and_forwards_signals() {
    let image = Image::complete();
    for uid in [0, USER] {
        let text = image.run(uid, &["--pid", image.root(), "sh", "-c", "cat /proc/1/comm; echo $$"]);
        assert_eq!(text, "appinit\n2\n");
        let mut command = image.launcher(uid);
        command.args(["--pid", image.root(), "sh", "-c"]);
        command.arg("trap 'echo got; exit 5' USR1; echo ready; while true; do sleep 0.05; done");
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        // setpriv became the launcher by exec: same process.
        siforge_launch::syscall::kill(i32::try_from(child.id()).unwrap(), 10);
        assert_eq!(lines.next().unwrap().unwrap(), "got");
        assert_eq!(child.wait().unwrap().code(), Some(5));
    }
}

#[test]
fn killing_the_caller_kills_the_namespace() {
    let image = Image::complete();
    let mut command = image.launcher(USER);
    command.args(["--pid", image.root(), "sh", "-c", "echo ready; sleep 1000"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    child.kill().unwrap();
    child.wait().unwrap();
    // The end of the pipe: every process inside that held it is gone.
    assert!(lines.next().is_none());
}

#[test]
fn users_get_no_capabilities_and_no_new_privileges() {
    let image = Image::complete();
    let none = "0000000000000000";
    for uid in [USER, NOBODY] {
        let text = image.run(uid, &[image.root(), "sh", "-c", KEYS]);
        let words: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(words, ["CapPrm:", none, "CapEff:", none, "CapAmb:", none, "NoNewPrivs:", "1"]);
    }
    let text = image.run(0, &[image.root(), "sh", "-c", KEYS]);
    assert!(text.ends_with("NoNewPrivs:\t0\n"), "{text}");
}

#[test]
fn a_step_shares_one_namespace_and_drops_everything() {
    let image = Image::bare();
    let mut command = image.launcher_with(USER, &[7, 100], &["+sys_admin", "+sys_chroot"]);
    let script =
        format!("id -u; id -G; pwd; {KEYS}; cat /etc/shadow 2>/dev/null || echo closed; readlink /proc/self/ns/user");
    let output = command.args(["--step", image.root(), "/bin/sh", "-c", &script]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = std::fs::read_link("/proc/self/ns/user").unwrap();
    let none = "0000000000000000";
    let expect = format!(
        "{USER}\n{USER} 7 100\n/tmp\nCapPrm:\t{none}\nCapEff:\t{none}\nCapAmb:\t{none}\nNoNewPrivs:\t1\nclosed\n{}\n",
        host.display()
    );
    assert_eq!(text, expect, "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn other_namespaces() {
    let image = Image::complete();
    for uid in [0, USER] {
        let text = image.run(
            uid,
            &[
                "--hostname",
                "inside",
                "--net",
                image.root(),
                "sh",
                "-c",
                "hostname; ls /sys/class/net 2>/dev/null >/dev/null; grep -c : /proc/net/dev",
            ],
        );
        assert_eq!(text, "inside\n1\n");
    }
}

#[test]
fn dry_run_prints_the_plan() {
    let image = Image::complete();
    let text = image.run(USER, &["--dry-run", "--bind", "/usr:/opt:ro", image.root(), "true", "x"]);
    let plan: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(plan["argv"], serde_json::json!(["true", "x"]));
    assert_eq!(plan["uid"], USER);
    let mounts = plan["mounts"].as_array().unwrap();
    let opt = mounts.iter().find(|m| m["target"] == "/opt").unwrap();
    assert_eq!(opt["source"], serde_json::json!({ "bind": "/usr" }));
    assert_eq!(opt["read_only"], true);
}
