//! A valid base and one change per case; what is compared is the whole list of mounts, as short lines.

use super::*;

fn host() -> Host {
    Host {
        uid: 1000,
        gid: 100,
        groups: vec![100, 27],
        user: Some(UserEntry {
            name: "ann".into(),
            gecos: String::new(),
            home: "/home/ann".into(),
            shell: "/bin/sh".into(),
        }),
        group_names: vec![(100, "users".into())],
        cwd: "/home/ann/work".into(),
    }
}

fn request() -> Request {
    Request { argv: vec!["true".into()], ..Request::default() }
}

/// The host's file system: everything these tests name.
fn kind(path: &Path) -> Option<PathKind> {
    const DIRECTORIES: [&str; 12] = [
        "/home/ann",
        "/home/ann/work",
        "/tmp",
        "/var/tmp",
        "/proc",
        "/sys",
        "/data",
        "/scratch/ann",
        "/dev",
        "/usr",
        "/usr/src",
        "/opt",
    ];
    const FILES: [&str; 7] =
        ["/etc/localtime", "/etc/hosts", "/etc/resolv.conf", "/dev/null", "/dev/zero", "/dev/tty", "/data/file"];
    let path = path.to_str()?;
    if DIRECTORIES.contains(&path) {
        Some(PathKind::Directory)
    } else if FILES.contains(&path) {
        Some(PathKind::File)
    } else {
        None
    }
}

/// `source → target flags`, `!` for required.
fn line(mount: &Mount) -> String {
    let source = match &mount.source {
        Source::Bind(path) if *path == mount.target => "same".to_owned(),
        Source::Bind(path) => path.display().to_string(),
        Source::Proc => "proc".to_owned(),
        Source::Tmpfs { mode, .. } => format!("tmpfs:{mode:o}"),
        Source::Dev { .. } => "dev".to_owned(),
        Source::Devpts => "devpts".to_owned(),
        Source::Mqueue => "mqueue".to_owned(),
        Source::Passwd(entry) => format!("passwd:{}", entry.home.display()),
        Source::Group { groups, .. } => format!("group:{}", groups.len()),
        Source::Text(text) => format!("text:{}", text.trim_end()),
    };
    let flags = [(mount.read_only, " ro"), (!mount.nodev, " dev"), (mount.required, " !")];
    let flags: String = flags.iter().filter(|(set, _)| *set).map(|(_, word)| *word).collect();
    format!("{source} {}{flags}", mount.target.display())
}

fn lines(request: &Request, host: &Host) -> Vec<String> {
    make(request, host, &kind).unwrap().mounts.iter().map(line).collect()
}

const KERNEL: [&str; 3] = ["same /proc !", "same /sys", "same /dev dev !"];
const FILES: [&str; 3] = ["same /etc/localtime", "same /etc/hosts", "same /etc/resolv.conf"];
const HOME: [&str; 1] = ["same /home/ann"];
const TEMPORARY: [&str; 2] = ["same /tmp", "same /var/tmp"];
const ACCOUNTS: [&str; 2] = ["passwd:/home/ann /etc/passwd", "group:1 /etc/group"];
const MINIMAL_DEV: [&str; 6] = [
    "dev /dev !",
    "same /dev/null dev",
    "same /dev/zero dev",
    "same /dev/tty dev",
    "tmpfs:1777 /dev/shm !",
    "devpts /dev/pts dev !",
];

fn all(parts: &[&[&str]]) -> Vec<String> {
    parts.iter().flat_map(|part| part.iter().map(|s| (*s).to_owned())).collect()
}

#[test]
fn defaults() {
    let plan = make(&request(), &host(), &kind).unwrap();
    assert_eq!(plan.mounts.iter().map(line).collect::<Vec<_>>(), all(&[&KERNEL, &FILES, &HOME, &TEMPORARY, &ACCOUNTS]));
    assert_eq!(plan.namespaces, Namespaces::default());
    assert_eq!(plan.cwd, [Path::new("/home/ann/work"), Path::new("/home/ann"), Path::new("/")]);
    assert!(plan.no_new_privileges && !plan.cwd_required && !plan.writable_tmpfs);
}

#[test]
fn working_directories() {
    let check = |cwd: &str, extra: &[&str]| {
        let host = Host { cwd: cwd.into(), ..host() };
        assert_eq!(lines(&request(), &host), all(&[&KERNEL, &FILES, &HOME, &TEMPORARY, extra, &ACCOUNTS]), "{cwd}");
    };
    check("/data", &["same /data"]);
    check("/usr/src", &["same /usr/src"]);
    for hidden in ["/", "/usr", "/opt", "/proc/1", "/sys", "/dev/shm", "/tmp/x", "/gone"] {
        check(hidden, &[]);
    }
}

#[test]
fn homes() {
    let check = |home: Home, expect: &[&str], passwd: &str| {
        let request = Request { home, ..request() };
        let host = Host { cwd: "/".into(), ..host() };
        let accounts = [passwd, ACCOUNTS[1]];
        assert_eq!(lines(&request, &host), all(&[&KERNEL, &FILES, expect, &TEMPORARY, &accounts]));
    };
    check(Home::None, &[], ACCOUNTS[0]);
    let at = |source: &str, target: &str| Home::At { source: source.into(), target: target.into() };
    check(at("/data", "/data"), &["same /data !"], "passwd:/data /etc/passwd");
    check(at("/data", "/root"), &["/data /root !"], "passwd:/root /etc/passwd");
}

#[test]
fn without_a_home_the_working_directory_still_comes() {
    let request = Request { home: Home::None, ..request() };
    assert_eq!(lines(&request, &host()), all(&[&KERNEL, &FILES, &TEMPORARY, &["same /home/ann/work"], &ACCOUNTS]));
}

#[test]
fn left_out() {
    let check = |no: NoMount, gone: &[&str]| {
        let request = Request { no_mount: vec![no.clone()], ..request() };
        let host = Host { cwd: "/".into(), ..host() };
        let mut expect = all(&[&KERNEL, &FILES, &HOME, &TEMPORARY, &ACCOUNTS]);
        expect.retain(|line| !gone.contains(&line.as_str()));
        assert_eq!(lines(&request, &host), expect, "{no:?}");
    };
    check(NoMount::Proc, &KERNEL[..1]);
    check(NoMount::Sys, &KERNEL[1..2]);
    check(NoMount::Dev, &KERNEL[2..]);
    check(NoMount::Home, &HOME);
    check(NoMount::Tmp, &TEMPORARY);
    check(NoMount::BindPaths, &FILES[..2]);
    check(NoMount::Path("/etc/hosts".into()), &FILES[1..2]);
    check(NoMount::Path("/etc/resolv.conf".into()), &FILES[2..]);
    check(NoMount::Path("/tmp".into()), &TEMPORARY[..1]);
}

#[test]
fn contained() {
    let base = Request { contain: Contain::Minimal, ..request() };
    let home = ["tmpfs:700 /home/ann !"];
    let temporary = ["tmpfs:1777 /tmp !", "tmpfs:1777 /var/tmp !"];
    let kernel = &KERNEL[..2];
    assert_eq!(lines(&base, &host()), all(&[kernel, &MINIMAL_DEV, &FILES, &home, &temporary, &ACCOUNTS]));
    let plan = make(&base, &host(), &kind).unwrap();
    assert_eq!(plan.cwd, [Path::new("/home/ann"), Path::new("/")]);

    let all_contained = Request { contain: Contain::All, ..request() };
    let plan = make(&all_contained, &host(), &kind).unwrap();
    assert_eq!(plan.namespaces, Namespaces { pid: true, ipc: true, ..Namespaces::default() });
    let kernel = ["proc /proc !", "same /sys"];
    let queue = ["mqueue /dev/mqueue"];
    let expect = all(&[&kernel, &MINIMAL_DEV, &queue, &FILES, &home, &temporary, &ACCOUNTS]);
    assert_eq!(plan.mounts.iter().map(line).collect::<Vec<_>>(), expect);

    let workdir = Request { workdir: Some("/scratch/ann".into()), scratch: vec!["/s/x".into()], ..base };
    let plan = make(&workdir, &host(), &kind).unwrap();
    let below = ["home", "tmp", "var_tmp", "scratch/s/x"].map(|name| Path::new("/scratch/ann").join(name));
    assert_eq!(plan.create, below);
    let bound: Vec<&Source> = plan
        .mounts
        .iter()
        .filter(|m| below.iter().any(|b| m.source == Source::Bind(b.clone())))
        .map(|m| &m.source)
        .collect();
    assert_eq!(bound.len(), 4);
}

#[test]
fn binds() {
    let check = |bind: Bind, expect: Result<&str, PlanError>| {
        let request = Request { binds: vec![bind], ..request() };
        let got = make(&request, &host(), &kind);
        let got = got.map(|plan| plan.mounts.iter().map(line).nth_back(2).unwrap());
        assert_eq!(got, expect.map(str::to_owned));
    };
    let bind = |source: &str, target: &str| Bind { target: target.into(), ..Bind::same(source) };
    check(bind("/data", "/data"), Ok("same /data !"));
    check(bind("/data/file", "/f"), Ok("/data/file /f !"));
    check(Bind { read_only: true, ..bind("/data", "/d") }, Ok("/data /d ro !"));
    check(Bind { optional: true, ..bind("/data", "/d") }, Ok("/data /d"));
    check(Bind { optional: true, ..bind("/none", "/d") }, Ok("same /var/tmp"));
    check(bind("/none", "/d"), Err(PlanError::NoSource("/none".into())));
    check(bind("none", "/d"), Err(PlanError::NoSource("/home/ann/work/none".into())));
    check(bind("/data", "/a/.."), Err(PlanError::OverRoot("/data".into())));
}

#[test]
fn refused() {
    let check = |request: Request, expect: &str| {
        assert_eq!(make(&request, &host(), &kind).unwrap_err().to_string(), expect);
    };
    check(Request { cwd: Some("x".into()), ..request() }, "cwd x: not an absolute path");
    check(Request { scratch: vec!["x".into()], ..request() }, "scratch x: not an absolute path");
    let home = Home::At { source: "/none".into(), target: "/none".into() };
    check(Request { home, ..request() }, "home /none: not a directory on the host");
    let home = Home::At { source: "/data".into(), target: "/".into() };
    check(Request { home, ..request() }, "bind /data: cannot be mounted over / of the container");
}

#[test]
fn one_change_each() {
    let plan = |request: Request| make(&request, &host(), &kind).unwrap();
    let named = plan(Request { hostname: Some("node".into()), ..request() });
    assert!(named.namespaces.uts);
    assert!(named.mounts.iter().map(line).any(|l| l == "text:node /etc/hostname"));
    let cwd = plan(Request { cwd: Some("/opt".into()), ..request() });
    assert_eq!((cwd.cwd, cwd.cwd_required), (vec![PathBuf::from("/opt")], true));
    let root = Host { uid: 0, ..host() };
    assert!(!make(&request(), &root, &kind).unwrap().no_new_privileges);
}

#[test]
fn without_a_passwd_entry() {
    let host = Host { user: None, group_names: vec![], cwd: "/".into(), ..host() };
    let plan = make(&request(), &host, &kind).unwrap();
    assert_eq!(plan.mounts.iter().map(line).collect::<Vec<_>>(), all(&[&KERNEL, &FILES, &TEMPORARY]));
    assert_eq!(plan.cwd, [Path::new("/")]);
}
