//! Sections that run: `%pre` and `%setup` on the host, `%post` and `%test` in the container.

use super::root::Root;
use super::{Error, Job};
use siforge_definition::{Script, render};
use siforge_launch::{Bind, Home, Host, Namespaces, NoMount, Request, RootFs, plan};
use siforge_sif::observe::Seen;
use siforge_sif::process::{Mode, Options};
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

/// Where %post may leave labels.
pub(super) const LABELS: &str = "/.build.labels";
/// Where %post may leave environment.
const ENVIRONMENT: &str = "/.singularity.d/env/91-environment.sh";
/// Where %post itself lies while it runs.
const POST: &str = "/.post.script";

/// apt(8) fetches as another user and looks whether it became one, which a root that is alone cannot.
const APT: &str = "/.apt.conf";
const APT_AS_ROOT: &[u8] = b"APT::Sandbox::User \"root\";\n";

pub(super) struct Scripts<'a> {
    pub(super) job: &'a Job<'a>,
    /// The stage's own directory.
    pub(super) dir: &'a Path,
}

impl Scripts<'_> {
    fn failed(&self, section: &str, script: &Script, code: i32) -> Result<(), Error> {
        let (file, section) = (self.job.file.to_owned(), section.to_owned());
        match code {
            0 => Ok(()),
            code => Err(Error::Script { file, line: script.line, section, code }),
        }
    }

    /// Runs a section on the host, with the caller's own rights.
    pub(super) fn on_host(&self, section: &'static str, script: &Script, root: &Path) -> Result<(), Error> {
        (self.job.say)(&format!("running %{section} on this host"));
        let path = self.dir.join(section);
        fs::write(&path, &script.text).map_err(Error::at("write", &path))?;
        let words = render::command(script, &path.to_string_lossy());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env_clear().envs(self.job.environment.iter().map(|(name, value)| (name, value)));
        for prefix in ["APPTAINER", "SINGULARITY"] {
            command.env(format!("{prefix}_ROOTFS"), root).env(format!("{prefix}_ENVIRONMENT"), ENVIRONMENT);
        }
        let status = command.current_dir(self.job.directory).status();
        let status = status.map_err(|source| {
            let (file, line) = (self.job.file.to_owned(), script.line);
            Error::Start { file, line, section, source }
        })?;
        self.failed(section, script, code(status))
    }

    /// Runs `%post`, and then what installs the apps.
    pub(super) fn post(&self, post: Option<&Script>, install: &str, root: &Root) -> Result<(), Error> {
        (self.job.say)("running %post");
        let mut script = post.cloned().unwrap_or_default();
        script.text.push_str(install);
        root.write(Path::new(POST), script.text.as_bytes(), 0o755)?;
        let words = render::command(&script, POST).into_iter().map(OsString::from).collect();
        let mut variables = Vec::new();
        for prefix in ["APPTAINER", "SINGULARITY"] {
            variables.push((format!("{prefix}_ENVIRONMENT").into(), ENVIRONMENT.into()));
            variables.push((format!("{prefix}_LABELS").into(), LABELS.into()));
        }
        if self.job.root_alone {
            root.write(Path::new(APT), APT_AS_ROOT, 0o644)?;
            variables.push(("APT_CONFIG".into(), APT.into()));
        }
        let result = self.in_container(words, variables, root, true);
        root.remove(Path::new(POST))?;
        root.remove(Path::new(APT))?;
        self.failed("post", &script, result?)
    }

    /// Runs the test script that the image has now.
    pub(super) fn test(&self, script: &Script, root: &Root) -> Result<(), Error> {
        (self.job.say)("running %test");
        let code = self.in_container(vec!["/.singularity.d/test".into()], Vec::new(), root, false)?;
        self.failed("test", script, code)
    }

    /// As `exec --cleanenv --cwd /`, without home and working directory; the host's network, its names, and its /tmp.
    fn in_container(
        &self,
        words: Vec<OsString>,
        variables: Vec<(OsString, OsString)>,
        root: &Root,
        writable: bool,
    ) -> Result<i32, Error> {
        let own = Host::observe()?;
        // Passwd and group are the image's.
        let host = Host { user: None, group_names: Vec::new(), groups: Vec::new(), cwd: "/".into(), ..own };
        let mut binds = self.names(root)?;
        for bind in self.job.binds {
            self.mount_point(bind, root, writable)?;
            binds.push(bind.clone());
        }
        let request = Request {
            cwd: Some("/".into()),
            binds,
            home: Home::None,
            namespaces: Namespaces { pid: true, ..Namespaces::default() },
            no_mount: vec![NoMount::Home, NoMount::Cwd, NoMount::BindPaths, NoMount::Path("/etc/resolv.conf".into())],
            writable,
            ..Request::default()
        };
        for path in ["proc", "sys", "dev", "tmp", "var/tmp"] {
            root.make_dirs(Path::new(path))?;
        }
        let mut plan = plan::make(&request, &host, &siforge_launch::path_kind)?;
        let mut env = variables;
        env.extend(self.job.variables.iter().cloned());
        let options = Options { cleanenv: true, env, home: Some("/root".into()), ..Options::default() };
        let process = Seen::look(root.as_fd())?.process(&[], Mode::Exec, &words, &options)?;
        (plan.argv, plan.env) = (process.argv, process.env);
        plan.feign_ids = self.job.root_alone;
        Ok(siforge_launch::run(&plan, RootFs::Directory(root.path.clone()))?)
    }

    /// Copies of the host's, where the image has the files: package managers replace a file that equals their own.
    fn names(&self, root: &Root) -> Result<Vec<Bind>, Error> {
        let mut binds = Vec::new();
        for path in ["/etc/resolv.conf", "/etc/hosts"] {
            let target = Path::new(path);
            let asked = self.job.binds.iter().any(|bind| bind.target == target);
            if asked || root.stat(target).is_none() {
                continue;
            }
            let Ok(mut text) = fs::read(path) else {
                (self.job.warn)(&format!("{path} of this host cannot be read: names may not be found"));
                continue;
            };
            text.push(b'\n');
            let copy = self.dir.join(target.file_name().unwrap_or_default());
            fs::write(&copy, text).map_err(Error::at("write", &copy))?;
            binds.push(Bind { source: copy, target: target.to_owned(), read_only: false, optional: true });
        }
        Ok(binds)
    }

    /// What is bound needs something to be bound on.
    fn mount_point(&self, bind: &Bind, root: &Root, writable: bool) -> Result<(), Error> {
        if !writable || root.stat(&bind.target).is_some() {
            return Ok(());
        }
        match bind.source.is_dir() {
            true => root.make_dirs(&bind.target).map(drop),
            false => root.write(&bind.target, b"", 0o644),
        }
    }
}

/// 128+n after signal n.
pub(super) fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}
