//! What a command in a container sees of the host, and what it may write.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use siforge_tests::{Siforge, run};

use super::{assert_refused, refused, site};

/// A folder of `siforge`'s user with the file `f`.
fn folder(siforge: &Siforge, name: &str) -> String {
    let dir = siforge.out().join(name);
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("f"), "of the host").unwrap();
    for path in [dir.clone(), dir.join("f")] {
        siforge.give(&path);
    }
    dir.display().to_string()
}

#[track_caller]
fn sh(siforge: &Siforge, options: &[&str], script: &str, want: &str) {
    let ran = siforge.run(&[&["exec"], options, &["tiny.sif", "sh", "-c", script]].concat());
    assert_eq!(ran.clone().ok().stdout, want, "{}: {ran}", siforge.who());
}

#[test]
fn binds_are_where_they_were_asked_for() {
    for siforge in &site().users {
        let host = folder(siforge, "bound");
        let spec = |rest: &str| format!("{host}{rest}");
        sh(siforge, &["--bind", &spec(":/data")], "cat /data/f; echo new > /data/written", "of the host");
        assert_eq!(fs::read_to_string(format!("{host}/written")).unwrap(), "new\n");
        sh(
            siforge,
            &["--bind", &spec(":/data:ro")],
            "cat /data/f; echo x 2>&- > /data/f || echo refused",
            "of the hostrefused\n",
        );
        sh(siforge, &["--bind", &spec(":/not/in/the/image")], "cat /not/in/the/image/f", "of the host");
        sh(siforge, &["--bind", &spec("/f:/etc/one")], "cat /etc/one", "of the host");
        sh(siforge, &["-B", &spec(":/a"), "-B", &spec(":/b")], "cat /a/f /b/f", "of the hostof the host");
        sh(siforge, &["-B", &format!("{host}:/a,{host}:/b:ro")], "cat /a/f /b/f", "of the hostof the host");
        sh(siforge, &["-B", &host], &format!("cat {host}/f"), "of the host");
        let mut command = siforge.command();
        command.env("APPTAINER_BIND", spec(":/by-variable"));
        assert_eq!(run(command.args(["exec", "tiny.sif", "cat", "/by-variable/f"])).ok().stdout, "of the host");
        // A link in the image may not lead a bind out of it.
        sh(siforge, &["-B", &spec(":/bin/../../../../etc/data")], "cat /etc/data/f", "of the host");
    }
    refused(&["exec", "-B", "/no/such:/x", "tiny.sif", "true"], &["/no/such"]);
    refused(&["exec", "-B", ":::", "tiny.sif", "true"], &[":::"]);
}

#[test]
fn home_and_working_directory() {
    for siforge in &site().users {
        let home = siforge.home().display().to_string();
        let out = siforge.out().display().to_string();
        sh(siforge, &[], "pwd; test -e tiny.sif && echo here", &format!("{out}\nhere\n"));
        sh(siforge, &[], "echo $HOME; test -d $HOME && echo there", &format!("{home}\nthere\n"));
        sh(siforge, &["--no-home"], "echo $HOME; ls -A $HOME 2>&- | wc -l", &format!("{home}\n0\n"));
        let host = folder(siforge, "home");
        sh(siforge, &["--home", &format!("{host}:/h/ome")], "echo $HOME; cat ~/f", "/h/ome\nof the host");
        sh(siforge, &["--home", &host], "cat $HOME/f", "of the host");
        sh(siforge, &["--cwd", "/etc"], "pwd", "/etc\n");
        sh(siforge, &["--pwd", "/usr/bin"], "pwd", "/usr/bin\n");
        sh(siforge, &["--no-mount", "cwd,tmp"], "ls /tmp | wc -l", "0\n");
        let private = folder(siforge, "private");
        fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).unwrap();
        let mut command = siforge.command();
        command.current_dir(&private).args(["exec", "../tiny.sif", "cat", "f"]);
        assert_eq!(run(&mut command).ok().stdout, "of the host", "{}", siforge.who());
    }
    refused(&["exec", "--cwd", "/none", "tiny.sif", "true"], &["/none"]);
}

#[test]
fn contained_is_without_the_hosts_files() {
    for siforge in &site().users {
        let script = "ls -A /tmp /var/tmp $HOME 2>&- | grep -v :$ | grep -c . ; touch /tmp/x $HOME/y && echo writable; ls /dev | grep -c sd; test -c /dev/null && pwd";
        let home = siforge.home().display().to_string();
        sh(siforge, &["--contain"], script, &format!("0\nwritable\n0\n{home}\n"));
        assert!(!siforge.home().join("y").exists());
        sh(
            siforge,
            &["--containall"],
            "echo $$ | grep -c '^[123]$'; ls /proc | grep -c '^[0-9]*$' | grep -c '^[1-6]$'",
            "1\n1\n",
        );
        sh(siforge, &["--no-mount", "proc"], "ls /proc | wc -l", "0\n");
    }
}

#[test]
fn a_new_pid_namespace_has_our_init() {
    for siforge in &site().users {
        sh(siforge, &["--pid"], "cat /proc/1/comm; ls -d /proc/[0-9]* | wc -l | grep -c '^[1-5]$'", "appinit\n1\n");
        // Orphans are reaped: no zombie stays when its parent has gone.
        let script = "(sleep 0.05 & ); i=0; while [ $i -lt 200 ] && ls /proc/[0-9]*/comm | xargs cat 2>&- | grep -q sleep; do i=$((i+1)); usleep 20000; done; grep -l '^State:.Z' /proc/[0-9]*/status 2>&- | wc -l";
        sh(siforge, &["--pid"], script, "0\n");
        sh(siforge, &["--hostname", "inside"], "hostname", "inside\n");
        sh(siforge, &["--net"], "grep : /proc/net/dev | cut -d: -f1 | tr -d ' '", "lo\n");
    }
}

#[test]
fn the_image_is_read_only_unless_asked_otherwise() {
    for siforge in &site().users {
        sh(siforge, &[], "touch /etc/x 2>&1 | grep -c 'Read-only'; touch /new 2>&- || echo no", "1\nno\n");
        sh(
            siforge,
            &["--writable-tmpfs"],
            "echo mine > /etc/x && cat /etc/x; rm /bin/ls && ! test -e /bin/ls && echo gone; mkdir /a && echo made",
            "mine\ngone\nmade\n",
        );
        sh(siforge, &[], "test -e /bin/ls && ! test -e /etc/x && echo as before", "as before\n");
        sh(siforge, &["--scratch", "/scratch"], "touch /scratch/x && ls /scratch", "x\n");
        sh(
            siforge,
            &[],
            "grep -c \"^$(id -nu):\" /etc/passwd; test -s /etc/resolv.conf || test -e /etc/resolv.conf; echo $?",
            "1\n0\n",
        );
    }
}

/// The modes of the host's files hold inside.
#[test]
fn a_user_gains_nothing_inside() {
    let site = site();
    let [root, user] = &site.users;
    let secret = root.out().join("secret");
    fs::write(&secret, "root's").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let secret = secret.display().to_string();
    for options in [&[][..], &["--pid"], &["--writable-tmpfs"], &["--contain"]] {
        let bind = format!("{secret}:/secret");
        let words = [
            &["exec", "--bind", &bind],
            options,
            &[
                "tiny.sif",
                "sh",
                "-c",
                "cat /secret; mount -t tmpfs x /mnt; mknod /tmp/n c 1 3; chown 0:0 $HOME; echo > /etc/hostname; id -u",
            ],
        ]
        .concat();
        let ran = user.run(&words);
        assert!(!ran.stdout.contains("root's"), "{ran}");
        if ran.success() {
            assert_eq!(ran.stdout, format!("{}\n", user.uid()), "{ran}");
        }
    }
    let sif = root.out().join("private.sif");
    fs::copy(root.out().join("tiny.sif"), &sif).unwrap();
    fs::set_permissions(&sif, fs::Permissions::from_mode(0o600)).unwrap();
    let sif = sif.display().to_string();
    for words in [&["exec", &sif, "true"][..], &["inspect", &sif]] {
        assert_refused(user, &user.run(words), &["private.sif", "Permission denied"]);
    }
    // As the reference: root keeps what it has, a user can get no more.
    for (siforge, want) in [(root, "0"), (user, "1")] {
        let ran = siforge.run(&["exec", "tiny.sif", "grep", "NoNewPrivs", "/proc/self/status"]);
        assert_eq!(ran.ok().stdout, format!("NoNewPrivs:\t{want}\n"), "{}", siforge.who());
    }
}
