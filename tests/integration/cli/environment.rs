//! The environment of a command: the image's, the caller's and what options say, in the reference's order.

use std::process::Command;

use siforge_tests::run;

use super::{check, site};

/// Runs `echo "[VALUE]"` with the caller's variables `given`, as both.
#[track_caller]
fn shows(given: &[(&str, &str)], options: &[&str], expression: &str, want: &str) {
    for siforge in &site().users {
        let mut command = siforge.command();
        command.envs(given.iter().copied());
        command.arg("exec").args(options).args(["tiny.sif", "sh", "-c", &format!("printf '[%s]' \"{expression}\"")]);
        let ran = run(&mut command).ok();
        assert_eq!(ran.stdout, format!("[{want}]"), "{} {given:?} {options:?}", siforge.who());
    }
}

#[test]
fn who_sets_a_variable_last_wins() {
    shows(&[], &[], "$TINY", "yes");
    shows(&[("FOO", "host")], &[], "$FOO", "host");
    shows(&[("FOO", "host")], &["--cleanenv"], "$FOO", "");
    // A caller's variable gives way to the image's, unless it is meant for the container.
    shows(&[("TINY", "host")], &[], "$TINY", "yes");
    shows(&[("TINY", "host")], &["--cleanenv"], "$TINY", "yes");
    shows(&[("SINGULARITYENV_X", "s")], &["--cleanenv"], "$X", "s");
    shows(&[("APPTAINERENV_X", "a")], &["--cleanenv"], "$X", "a");
    shows(&[("SINGULARITYENV_X", "s"), ("APPTAINERENV_X", "a")], &[], "$X", "a");
    shows(&[("APPTAINERENV_X", "a"), ("X", "host")], &["--env", "X=option"], "$X", "option");
    shows(&[("APPTAINERENV_TINY", "a")], &[], "$TINY", "a");
    shows(&[], &["--env", "TINY=option"], "$TINY", "option");
    shows(&[], &["--env", "A=1,B=2"], "$A-$B", "1-2");
}

#[test]
fn values_are_not_interpreted() {
    let odd = "a  b\n\"c\" 'd' $HOME `id` $(id) \\e * ;&|";
    shows(&[("FOO", odd)], &[], "$FOO", odd);
    // What is meant for the container may name its variables; nothing is ever run.
    let meant = odd.replace("$HOME ", "");
    shows(&[("APPTAINERENV_FOO", &meant)], &[], "$FOO", &meant);
    shows(&[], &["--env", &format!("FOO={meant}")], "$FOO", &meant);
    shows(&[("APPTAINERENV_FOO", "<$TINY ${TINY}>")], &[], "$FOO", "<yes yes>");
    shows(&[("APPTAINERENV_FOO", odd)], &["--no-eval"], "$FOO", odd);
}

#[test]
fn the_path_is_the_images() {
    shows(&[("PATH", "/usr/bin:/host")], &[], "${PATH%%:/usr/local*}", "/bin:/usr/bin");
    shows(&[("APPTAINERENV_PATH", "/bin:/only")], &[], "$PATH", "/bin:/only");
    shows(&[("APPTAINERENV_PREPEND_PATH", "/first")], &[], "${PATH%%:*}", "/first");
    shows(&[("APPTAINERENV_APPEND_PATH", "/last")], &[], "${PATH##*:}", "/last");
    shows(&[("LD_LIBRARY_PATH", "/host")], &[], "$LD_LIBRARY_PATH", "/.singularity.d/libs");
}

#[test]
fn the_container_is_told_its_name() {
    for siforge in &site().users {
        let path = siforge.out().join("tiny.sif").display().to_string();
        let script = "echo $APPTAINER_NAME $SINGULARITY_NAME $APPTAINER_CONTAINER $APPTAINER_COMMAND";
        let ran = siforge.run(&["exec", &path, "sh", "-c", script]).ok();
        assert_eq!(ran.stdout, format!("tiny.sif tiny.sif {path} exec\n"));
    }
}

/// HOME is the account's also where the caller has none, as workflow tools start it (`env - PATH=… singularity exec`).
#[test]
fn a_caller_without_environment_has_a_home() {
    for siforge in &site().users {
        let mut command = siforge.command();
        command.env_remove("HOME").env_remove("USER");
        let ran = run(command.args(["exec", "tiny.sif", "sh", "-c", "echo $HOME; cd && pwd"])).ok();
        let home = siforge.home().display().to_string();
        assert_eq!(ran.stdout, format!("{home}\n{home}\n"), "{}", siforge.who());
    }
}

#[test]
fn variables_come_from_a_file_too() {
    for siforge in &site().users {
        std::fs::write(siforge.out().join("vars"), "# a comment\n\nA=from file\nB=2\n").unwrap();
    }
    check(&["exec", "--env-file", "vars", "--env", "B=3", "tiny.sif", "sh", "-c", "echo $A $B"], 0, "from file 3\n");
}

/// Whom the kernel says we are, by number and by name.
#[test]
fn the_caller_is_the_caller() {
    for siforge in &site().users {
        let name = run(Command::new("id").args(["-nu", &siforge.uid().to_string()])).ok().stdout;
        let ran = siforge.run(&["exec", "tiny.sif", "sh", "-c", "id -u; id -nu; umask"]).ok();
        assert_eq!(ran.stdout, format!("{}\n{name}0022\n", siforge.uid()), "{}", siforge.who());
    }
}
