//! What a header's `Bootstrap:` asks for. Pure; names of tools and their arguments are the reference's (apptainer
//! `internal/pkg/build/sources/conveyorPacker_*.go`).

use super::Error;
use siforge_definition::{Header, Keyword};

/// Where a stage's root file system comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bootstrap {
    /// An image, by the reference that `siforge build` takes for it.
    Image(String),
    /// A SIF file or a directory.
    Local(String),
    /// Nothing: an empty directory.
    Scratch,
    /// A program of a distribution fills the directory; the first of these that the host has.
    Tools(Vec<Tool>),
}

/// A program that makes a root file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    pub program: String,
    /// Where one word is [`ROOT`], the directory stands.
    pub arguments: Vec<String>,
    /// The package that has it, on the distribution that it is of.
    pub package: &'static str,
}

/// Stands for the root directory in a tool's arguments.
pub const ROOT: &str = "\0root";

impl Bootstrap {
    /// Of a stage's header. `file` is for messages; `architecture` as Go calls it.
    pub fn of(file: &str, header: &Header, architecture: &str) -> Result<Self, Error> {
        let asked = Asked { file, header };
        let agent = asked.need(Keyword::Bootstrap, "Bootstrap: AGENT")?;
        Ok(match agent.to_lowercase().as_str() {
            "docker" => Self::Image(format!("docker://{}", asked.prefixed()?)),
            "oras" => Self::Image(format!("oras://{}", asked.from()?.trim_start_matches("oras://"))),
            agent @ ("oci" | "oci-archive" | "docker-archive" | "docker-daemon") => {
                Self::Image(format!("{agent}:{}", asked.from()?))
            }
            "localimage" => Self::Local(asked.from()?.to_owned()),
            "scratch" => Self::Scratch,
            "debootstrap" => Self::Tools(asked.debootstrap(architecture)?),
            "yum" | "dnf" => Self::Tools(asked.yum()?),
            "zypper" => Self::Tools(asked.zypper()?),
            "arch" => Self::Tools(asked.arch()),
            "busybox" => return Err(asked.wrong(Keyword::Bootstrap, "busybox fetches a binary over plain HTTP, unchecked: use Bootstrap: docker and From: busybox")),
            "library" => return Err(asked.wrong(Keyword::Bootstrap, "library:// images are not supported: push the image to an OCI registry and use Bootstrap: oras, or use Bootstrap: docker")),
            "shub" => return Err(asked.wrong(Keyword::Bootstrap, "Singularity Hub is no more: use Bootstrap: docker, or a SIF file with Bootstrap: localimage")),
            "buildkit" | "dockerfile" => return Err(asked.wrong(Keyword::Bootstrap, "Dockerfiles are not built: build an OCI archive with buildah or podman and use Bootstrap: oci-archive")),
            _ => return Err(asked.wrong(Keyword::Bootstrap, "no such agent: use docker, oras, oci, oci-archive, docker-archive, docker-daemon, localimage, scratch, debootstrap, yum, dnf, zypper or arch")),
        })
    }
}

struct Asked<'a> {
    file: &'a str,
    header: &'a Header,
}

impl Asked<'_> {
    fn wrong(&self, keyword: Keyword, problem: &str) -> Error {
        let line = self.header.field(keyword).or(self.header.fields.first()).map_or(1, |field| field.line);
        Error::Header { file: self.file.to_owned(), line, problem: problem.to_owned() }
    }

    fn need(&self, keyword: Keyword, what: &str) -> Result<&str, Error> {
        self.header.get(keyword).ok_or_else(|| self.wrong(Keyword::Bootstrap, &format!("the header lacks {what}")))
    }

    fn from(&self) -> Result<&str, Error> {
        self.need(Keyword::From, "From: IMAGE")
    }

    fn prefixed(&self) -> Result<String, Error> {
        let parts = [self.header.get(Keyword::Registry), self.header.get(Keyword::Namespace), Some(self.from()?)];
        let parts: Vec<_> = parts.into_iter().flatten().map(|part| part.trim_matches('/')).collect();
        Ok(parts.join("/").trim_start_matches("docker://").to_owned())
    }

    fn words(&self, keyword: Keyword) -> Vec<String> {
        self.header
            .get(keyword)
            .unwrap_or_default()
            .split([' ', ',', '\n', '\t'])
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// `%{OSVERSION}` in a URL is the version that the header names.
    fn url(&self, keyword: Keyword) -> Result<Option<String>, Error> {
        let Some(url) = self.header.get(keyword) else {
            return Ok(None);
        };
        if !url.contains("%{OSVERSION}") {
            return Ok(Some(url.to_owned()));
        }
        let version = self.need(Keyword::OsVersion, "OSVersion: VERSION, which its URL mentions")?;
        Ok(Some(url.replace("%{OSVERSION}", version)))
    }

    fn debootstrap(&self, architecture: &str) -> Result<Vec<Tool>, Error> {
        let version = self.need(Keyword::OsVersion, "OSVersion: RELEASE")?.to_owned();
        let mirror = self
            .url(Keyword::MirrorUrl)?
            .ok_or_else(|| self.wrong(Keyword::Bootstrap, "the header lacks MirrorURL: URL"))?;
        let architecture = match architecture {
            "386" => "i386",
            "arm" => "armhf",
            "ppc64le" => "ppc64el",
            other => other,
        };
        let include = self.words(Keyword::Include);
        let tool =
            |program: &str, package, arguments: Vec<String>| Tool { program: program.to_owned(), arguments, package };
        let list = |first: &[&str]| {
            first.iter().map(|word| (*word).to_owned()).chain(include.iter().cloned()).collect::<Vec<_>>().join(",")
        };
        let debootstrap = vec![
            "--variant=minbase".to_owned(),
            "--exclude=openssl,udev,debconf-i18n,e2fsprogs".to_owned(),
            format!("--include={}", list(&["apt"])),
            format!("--arch={architecture}"),
            version.clone(),
            ROOT.to_owned(),
            mirror.clone(),
        ];
        let mut mmdebstrap =
            vec!["--mode=root".to_owned(), "--variant=minbase".to_owned(), format!("--architectures={architecture}")];
        if !include.is_empty() {
            mmdebstrap.push(format!("--include={}", list(&[])));
        }
        mmdebstrap.extend([version, ROOT.to_owned(), mirror]);
        Ok(vec![tool("debootstrap", "debootstrap", debootstrap), tool("mmdebstrap", "mmdebstrap", mmdebstrap)])
    }

    fn yum(&self) -> Result<Vec<Tool>, Error> {
        let mirror = self
            .url(Keyword::MirrorUrl)?
            .ok_or_else(|| self.wrong(Keyword::Bootstrap, "the header lacks MirrorURL: URL"))?;
        let mut packages = vec!["/etc/redhat-release".to_owned(), "coreutils".to_owned()];
        packages.extend(self.words(Keyword::Include));
        let mut arguments = vec![
            "--noplugins".to_owned(),
            "-y".to_owned(),
            format!("--installroot={ROOT}"),
            "--disablerepo=*".to_owned(),
            format!("--repofrompath=base,{mirror}"),
            "--enablerepo=base".to_owned(),
            "--setopt=base.gpgcheck=0".to_owned(),
        ];
        if let Some(version) = self.header.get(Keyword::OsVersion) {
            arguments.push(format!("--releasever={version}"));
        }
        if let Some(update) = self.url(Keyword::UpdateUrl)? {
            arguments.extend([
                format!("--repofrompath=updates,{update}"),
                "--enablerepo=updates".to_owned(),
                "--setopt=updates.gpgcheck=0".to_owned(),
            ]);
        }
        arguments.extend(self.words(Keyword::SetOpt).into_iter().map(|option| format!("--setopt={option}")));
        arguments.push("install".to_owned());
        arguments.extend(packages);
        let tool = |program: &str, package| Tool { program: program.to_owned(), arguments: arguments.clone(), package };
        Ok(vec![tool("dnf", "dnf"), tool("yum", "yum")])
    }

    fn zypper(&self) -> Result<Vec<Tool>, Error> {
        let mirror = self
            .url(Keyword::MirrorUrl)?
            .ok_or_else(|| self.wrong(Keyword::Bootstrap, "the header lacks MirrorURL: URL"))?;
        let mut arguments: Vec<String> =
            ["--root", ROOT, "--non-interactive", "--gpg-auto-import-keys", "--plus-repo"].map(str::to_owned).to_vec();
        arguments.push(mirror);
        for field in &self.header.fields {
            if let Keyword::OtherUrl(_) = field.keyword {
                arguments.extend(["--plus-repo".to_owned(), field.value.clone()]);
            }
        }
        arguments
            .extend(["install", "--auto-agree-with-licenses", "--download-in-advance", "aaa_base"].map(str::to_owned));
        arguments.extend(self.words(Keyword::Include));
        Ok(vec![Tool { program: "zypper".to_owned(), arguments, package: "zypper" }])
    }

    fn arch(&self) -> Vec<Tool> {
        let mut arguments: Vec<String> = ["-c", "-d", "-G", "-M", ROOT, "base"].map(str::to_owned).to_vec();
        arguments.extend(self.words(Keyword::Include));
        vec![Tool { program: "pacstrap".to_owned(), arguments, package: "arch-install-scripts" }]
    }
}
