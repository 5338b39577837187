//! How a build ends: well, badly, or by somebody's hand; nothing stays behind.

use super::Bench;
use siforge_tests::{Finished, wait_until};
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(60);

fn write(bench: &Bench, post: &str) {
    fs::write(bench.here().join("x.def"), format!("Bootstrap: localimage\nFrom: base.sif\n{post}")).unwrap();
}

/// Builds with a temporary folder of its own; nothing is in that afterwards, and nothing is mounted there.
fn build(bench: &Bench, options: &[&str]) -> Finished {
    let tmp = bench.siforge.dir().join("tmp");
    fs::create_dir_all(&tmp).unwrap();
    let tmpdir = tmp.display().to_string();
    let words: Vec<&str> = ["--force", "--tmpdir", &tmpdir].iter().chain(options).copied().collect();
    let built = bench.ours("x.sif", "x.def", &words);
    clean(bench);
    built
}

fn clean(bench: &Bench) {
    let tmp = bench.siforge.dir().join("tmp");
    let left: Vec<_> = fs::read_dir(&tmp).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&*tmp.to_string_lossy()), "{mounts}");
    let unfinished = fs::read_dir(bench.here()).unwrap().map(|entry| entry.unwrap().file_name());
    let unfinished: Vec<_> = unfinished.filter(|name| name.to_string_lossy().starts_with('.')).collect();
    assert!(unfinished.is_empty(), "{unfinished:?}");
}

#[test]
fn what_fails_is_named_with_file_line_and_code() {
    let bench = Bench::new();
    let check = |post: &str, expected: &str| {
        write(&bench, post);
        let said = build(&bench, &[]).fails_with(255);
        assert!(said.stderr.contains(expected), "{expected:?}: {said}");
        assert!(!bench.here().join("x.sif").exists());
    };
    check("%post\n    exit 7\n", "x.def:3: %post failed with exit code 7");
    check("%post\n    kill -9 $$\n", "x.def:3: %post was killed by signal 9");
    check("%setup\n    exit 8\n", "x.def:3: %setup failed with exit code 8");
    check("%pre\n    exit 9\n", "x.def:3: %pre failed with exit code 9");
    check("%test\n    exit 5\n", "x.def:3: %test failed with exit code 5");
    check("%files\n    /no/such /x\n", "x.def:4: copy /no/such: no such file or directory");
    check("%files\n    /no/*.such /x\n", "x.def:4: copy /no/*.such: no such file or directory");
    check("%post -c /no/such/shell\n    true\n", "x.def:3: %post failed with exit code 127");
}

#[test]
fn what_a_script_leaves_running_ends_with_it() {
    let bench = Bench::new();
    write(
        &bench,
        "%post\n    sleep 4815 &\n    (setsid sleep 4815 &)\n    echo done > /done\n%setup\n    setsid sleep 4815 &\n",
    );
    build(&bench, &[]).ok();
    let running = run_ps();
    assert!(!running.contains("sleep 4815"), "{running}");
    assert_eq!(bench.ours_in(&["exec", "x.sif", "cat", "/done"]).ok().stdout, "done\n");
}

fn run_ps() -> String {
    let commands = fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
    commands.map(|words| String::from_utf8_lossy(&words).replace('\0', " ") + "\n").collect()
}

#[test]
fn an_interrupted_build_leaves_nothing() {
    let bench = Bench::new();
    write(&bench, "%post\n    sleep 1623\n");
    let tmp = bench.siforge.dir().join("tmp");
    fs::create_dir_all(&tmp).unwrap();
    for signal in ["INT", "TERM", "HUP"] {
        let mut command = bench.siforge.command();
        command.current_dir(bench.here()).args(["-q", "build", "--tmpdir"]).arg(&tmp).args(["x.sif", "x.def"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_until(DEADLINE, "%post runs", || run_ps().contains("sleep 1623"));
        Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
        let status = child.wait().unwrap();
        assert!(!status.success(), "{signal}");
        assert!(!run_ps().contains("sleep 1623"), "{signal}");
        assert!(!bench.here().join("x.sif").exists());
        clean(&bench);
    }
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing() {
    let bench = Bench::new();
    write(&bench, "%post\n    dd if=/dev/zero of=/zeros bs=1M count=64\n");
    let tmp = bench.siforge.dir().join("small");
    fs::create_dir(&tmp).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=8m small {0} && cd {1} && {2} -q build --tmpdir {0} x.sif x.def; code=$?; ls -A {0}; exit $code",
        tmp.display(),
        bench.here().display(),
        siforge_tests::binary("siforge").display(),
    );
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &script]).env("SIFORGE_CACHEDIR", bench.siforge.cache());
    let said = siforge_tests::run(&mut command);
    assert!(!said.success() && said.stdout.is_empty(), "{said}");
    assert!(said.stderr.contains("No space left on device"), "{said}");
    assert!(!bench.here().join("x.sif").exists());
}

#[test]
fn links_in_an_image_do_not_lead_out_of_it() {
    let bench = Bench::new();
    let outside = bench.siforge.dir().join("outside");
    fs::create_dir(&outside).unwrap();
    let hostile = format!(
        "%setup\n    ln -s {0} ${{APPTAINER_ROOTFS}}/out\n    ln -s {0}/file ${{APPTAINER_ROOTFS}}/opt-file\n    rm -rf ${{APPTAINER_ROOTFS}}/.singularity.d/env\n    ln -s {0} ${{APPTAINER_ROOTFS}}/.singularity.d/env\n%files\n    files/a.txt /out/a\n    files/a.txt /opt-file\n    files/dir /out/\n%environment\n    export X=1\n",
        outside.display()
    );
    write(&bench, &hostile);
    let built = build(&bench, &[]);
    let left: Vec<_> = fs::read_dir(&outside).unwrap().collect();
    assert!(left.is_empty(), "{left:?}\n{built}");
}

#[test]
fn sections_are_chosen_by_name() {
    let bench = Bench::new();
    write(
        &bench,
        "%post\n    echo post > /post\n%labels\n    A b\n%environment\n    export T_X=1\n%test\n    exit 3\n",
    );
    build(&bench, &["--notest"]).ok();
    build(&bench, &["--section", "post,labels"]).ok();
    let said = bench.ours_in(&["exec", "x.sif", "sh", "-c", "cat /post; echo [$T_X]"]).ok();
    assert_eq!(said.stdout, "post\n[]\n");
    build(&bench, &["--section", "environment"]).ok();
    let said = bench.ours_in(&["exec", "x.sif", "sh", "-c", "ls /post; echo [$T_X]"]).ok();
    assert_eq!(said.stdout, "[1]\n");
}

#[test]
fn what_is_bound_is_there_and_stays_out_of_the_image() {
    let bench = Bench::new();
    write(&bench, "%post\n    cat /in/a.txt > /copied\n    echo $T_GIVEN >> /copied\n");
    let bind = format!("{}:/in", bench.here().join("files").display());
    build(&bench, &["--bind", &bind, "--env", "T_GIVEN=given"]).ok();
    let said = bench.ours_in(&["exec", "x.sif", "sh", "-c", "cat /copied; ls /in 2>&1"]);
    assert!(said.stdout.starts_with("a\ngiven\n") && !said.stdout.contains("a.txt"), "{said}");
}
