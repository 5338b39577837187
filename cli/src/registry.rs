//! How a registry is reached: its mirrors, credentials and certificates; and `siforge registry login|logout|list`.

use crate::cli::{Global, List, Login, Logout, Registry, RegistryCommand, TlsOptions};
use crate::config::{Config, RegistryPaths};
use crate::error::Error;
use crate::prompt;
use serde_json::json;
use siforge_oci::{
    Client, Credentials, Endpoint, Keyring, Listed, Location, Place, Registries, Secret, Tls, add_certs, one_line,
    read_file, with_login, without_login,
};
use siforge_reference::ImageRef;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A CA bundle is some 200 kB; more is a mistake.
const CA_FILE_LIMIT: u64 = 16 << 20;
/// registries.conf of a site with many mirrors has some KiB.
const CONF_LIMIT: u64 = 1 << 20;
/// As the prompt.
const LONGEST_PASSWORD: u64 = 16 << 10;

/// A client for an image: its mirrors first, each with what there is for it.
pub(crate) async fn connect(
    global: &Global,
    config: &Config,
    options: &Registry,
    image: &ImageRef,
) -> Result<Client, Error> {
    let paths = &config.registries;
    let username = options.docker_username.as_deref();
    let prompted = match options.docker_login {
        true => Some(prompt::credentials(&image.registry, username.or(paths.username()))?),
        false => None,
    };
    let keyring = paths.keyring(username, options.authfile.as_deref(), prompted);
    let locations = registries(paths)?.locations(image)?;
    let last = locations.len().saturating_sub(1);
    let wishes = wishes(config, &options.tls)?;
    let (mut endpoints, mut said) = (Vec::new(), Vec::new());
    for (at, location) in locations.into_iter().enumerate() {
        let shown = format!("{}/{}", location.registry, location.repository);
        // What the command line says is for the registry, not for its mirrors.
        let mirrors = Tls { proxies: wishes.proxies.clone(), ..Tls::default() };
        let wishes = if at == last { wishes.clone() } else { mirrors };
        let found = endpoint(paths, &keyring, image, location, wishes).await;
        match found {
            Ok((endpoint, mut warnings)) => {
                warnings.retain(|warning| !said.contains(warning));
                warn(global, &warnings);
                said.extend(warnings);
                endpoints.push(endpoint);
            }
            // There is another place to go on at.
            Err(error) if at < last => warn(global, &[format!("the mirror {shown} is passed over: {error}")]),
            Err(error) => return Err(error),
        }
    }
    if let Some(endpoint) = endpoints.last().filter(|endpoint| endpoint.credentials.is_none() && !global.is_quiet()) {
        // Apptainer's words.
        eprintln!("info: no credentials for {} found: only pulls of public images will succeed", endpoint.registry);
    }
    let client = Client::connect(image, endpoints).await?;
    for error in client.passed_over() {
        warn(global, &[format!("a mirror is passed over: {error}")]);
    }
    Ok(client)
}

/// What there is for a place of the image, and warnings.
async fn endpoint(
    paths: &RegistryPaths,
    keyring: &Keyring,
    image: &ImageRef,
    location: Location,
    elsewhere: Tls,
) -> Result<(Endpoint, Vec<String>), Error> {
    let Location { registry, repository, insecure } = location;
    let here = ImageRef { registry, repository, ..image.clone() };
    // What was typed is for the registry that was named: neither for its mirrors nor for another in its place.
    let chosen = match here.registry == image.registry {
        true => keyring.find(&here).await?,
        false => keyring.find_stored(&here).await?,
    };
    let mut tls = elsewhere.clone();
    tls.insecure_skip_verify |= insecure;
    let mut warnings = add_certs(&mut tls, &cert_folders(paths), &here.registry)?;
    let elsewhere = pointed_at(elsewhere, &tls);
    warnings.extend(chosen.warnings);
    let (ImageRef { registry, repository, .. }, credentials) = (here, chosen.credentials);
    Ok((Endpoint { registry, repository, credentials, tls, elsewhere, try_http: insecure }, warnings))
}

/// For whom a registry points at: a site's own authority has signed its token server too, so it is trusted with that. What
/// else is said of the registry, that it is insecure or knows this user by a certificate, is not said of others.
fn pointed_at(wishes: Tls, registry: &Tls) -> Tls {
    Tls { ca_bundle: registry.ca_bundle.clone(), ..wishes }
}

/// How a web server is spoken with.
pub(crate) fn server_tls(config: &Config, options: &Registry) -> Result<Tls, Error> {
    Ok(Tls { plain_http: false, ..wishes(config, &options.tls)? })
}

/// What the command line says, and the proxies of the environment.
fn wishes(config: &Config, options: &TlsOptions) -> Result<Tls, Error> {
    Ok(Tls {
        plain_http: options.no_https,
        insecure_skip_verify: options.tls_insecure_skip_verify,
        ca_bundle: ca_bundle(options.tls_ca_file.as_deref())?,
        proxies: config.registries.proxies.clone(),
        ..Tls::default()
    })
}

fn warn(global: &Global, warnings: &[String]) {
    for warning in warnings.iter().filter(|_| !global.is_quiet()) {
        eprintln!("warning: {warning}");
    }
}

fn ca_bundle(path: Option<&Path>) -> Result<Option<Vec<u8>>, Error> {
    path.map(|path| crate::files::read_limited(path, CA_FILE_LIMIT)).transpose()
}

fn cert_folders(paths: &RegistryPaths) -> Vec<PathBuf> {
    let user = paths.user_containers.iter().chain([&paths.system_containers]).map(|folder| folder.join("certs.d"));
    user.chain(["/etc/docker/certs.d".into()]).collect()
}

/// registries.conf and its drop-ins: the user's alone when there is one, as containers/image has it.
fn registries(paths: &RegistryPaths) -> Result<Registries, Error> {
    let user = paths.user_containers.as_ref();
    let user_file = user.map(|folder| folder.join("registries.conf")).filter(|path| path.is_file());
    let (main, folders) = match (&paths.conf, user_file) {
        (Some(named), _) => (named.clone(), vec![Some(&paths.system_containers), user]),
        (None, Some(own)) => (own, vec![user]),
        (None, None) => (paths.system_containers.join("registries.conf"), vec![Some(&paths.system_containers), user]),
    };
    let mut registries = Registries::default();
    if paths.conf.is_some() || main.exists() {
        add(&mut registries, &main)?;
    }
    for folder in folders.into_iter().flatten() {
        // A folder that is not there, or not for us, has no drop-ins.
        let entries = std::fs::read_dir(folder.join("registries.conf.d")).into_iter().flatten();
        let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
        files.sort();
        for file in &files {
            add(&mut registries, file)?;
        }
    }
    Ok(registries)
}

fn add(registries: &mut Registries, path: &Path) -> Result<(), Error> {
    let text = crate::files::read_limited(path, CONF_LIMIT)?;
    Ok(registries.add(&path.display().to_string(), &String::from_utf8_lossy(&text))?)
}

pub(crate) fn run(global: &Global, config: &Config, command: &RegistryCommand) -> Result<(), Error> {
    match command {
        RegistryCommand::Login(options) => login(global, config, options),
        RegistryCommand::Logout(options) => logout(global, config, options),
        RegistryCommand::List(options) => list(config, options),
    }
}

fn login(global: &Global, config: &Config, options: &Login) -> Result<(), Error> {
    let image = registry_of(&options.registry)?;
    let name = name(&image);
    let path = login_file(config, options.authfile.as_deref())?;
    // Before anybody types a password: a file that could not be written.
    let before = read_file(&path)?;
    let edit = |source| Error::EditLogins { path: path.clone(), source };
    with_login(before.as_deref(), &name, &Credentials::new("", "")).map_err(edit)?;
    let credentials = credentials(config, options, &image.registry)?;

    let paths = &config.registries;
    let insecure = registries(paths)?.is_insecure(&name)?;
    let elsewhere = wishes(config, &options.tls)?;
    let mut tls = elsewhere.clone();
    tls.insecure_skip_verify |= insecure;
    warn(global, &add_certs(&mut tls, &cert_folders(paths), &image.registry)?);
    let elsewhere = pointed_at(elsewhere, &tls);
    let ImageRef { registry, repository, .. } = image.clone();
    let known = Some(credentials.clone());
    let endpoint = Endpoint { registry, repository, credentials: known, tls, elsewhere, try_http: insecure };
    let wanted = crate::pull::block_on(async {
        let client = Client::connect(&image, vec![endpoint]).await?;
        Ok(client.verify().await?)
    })?;
    let text = with_login(before.as_deref(), &name, &credentials).map_err(edit)?;
    crate::files::replace(&path, text.expose().as_bytes(), 0o600)
        .map_err(|source| Error::WriteLogins { path: path.clone(), source })?;
    if !global.is_quiet() {
        if !wanted {
            eprintln!("warning: {} takes anybody, so nobody has looked at the password", image.registry);
        }
        eprintln!("info: the credentials for {name} are in {}", path.display());
    }
    Ok(())
}

fn credentials(config: &Config, options: &Login, registry: &str) -> Result<Credentials, Error> {
    let username = options.username.as_deref().or(config.registries.username());
    let password = match options.password_stdin {
        true => Some(password_of(io::stdin())?),
        false => config.registries.password().cloned(),
    };
    match (username, password) {
        (Some(username), Some(password)) => Ok(Credentials::Password { username: username.to_owned(), password }),
        (None, Some(_)) if options.password_stdin => {
            Err(Error::NoPassword { why: "--password-stdin goes with --username" })
        }
        (username, _) => prompt::credentials(registry, username),
    }
}

/// Standard input to its end, without the line's end.
fn password_of(input: impl Read) -> Result<Secret, Error> {
    let mut text = String::new();
    input.take(LONGEST_PASSWORD + 1).read_to_string(&mut text).map_err(|source| Error::Prompt { source })?;
    let secret = Secret::new(text.trim_end_matches(['\r', '\n']));
    match (secret.expose().is_empty(), text.len() as u64 > LONGEST_PASSWORD) {
        (true, _) => Err(Error::NoPassword { why: "standard input is empty" }),
        (_, true) => Err(Error::NoPassword { why: "standard input is too long" }),
        _ => Ok(secret),
    }
}

fn logout(global: &Global, config: &Config, options: &Logout) -> Result<(), Error> {
    let name = name(&registry_of(&options.registry)?);
    let path = login_file(config, options.authfile.as_deref())?;
    let missing = || Error::NotLoggedIn { path: path.clone(), name: name.clone() };
    let before = read_file(&path)?.ok_or_else(missing)?;
    let edited = without_login(&before, &name);
    let (text, found) = edited.map_err(|source| Error::EditLogins { path: path.clone(), source })?;
    if !found {
        return Err(missing());
    }
    crate::files::replace(&path, text.expose().as_bytes(), 0o600)
        .map_err(|source| Error::WriteLogins { path: path.clone(), source })?;
    if !global.is_quiet() {
        eprintln!("info: {} has no credentials for {name} any more", path.display());
    }
    Ok(())
}

fn list(config: &Config, options: &List) -> Result<(), Error> {
    let places = match &options.authfile {
        Some(path) => vec![Place::File { path: path.clone(), required: true }],
        None => config.registries.places.clone(),
    };
    let mut rows = Vec::new();
    for place in places {
        if let Some((file, parsed)) = place.read()? {
            rows.extend(parsed.list().into_iter().map(|listed| (listed, file.clone())));
        }
    }
    match options.json {
        true => {
            let show = |(Listed { key, username, helper }, file)| json!({ "registry": key, "username": username, "helper": helper, "file": file });
            println!("{:#}", rows.into_iter().map(show).collect::<serde_json::Value>());
        }
        false => {
            println!("{:<40} {:<20} FILE", "REGISTRY", "USER");
            for (Listed { key, username, helper }, file) in rows {
                let helper = helper.map(|helper| format!("(docker-credential-{helper})"));
                let user = username.or(helper).unwrap_or_else(|| "(token)".to_owned());
                // Whoever wrote the file could write to the terminal.
                println!("{:<40} {:<20} {}", one_line(&key), one_line(&user), one_line(&file));
            }
        }
    }
    Ok(())
}

/// An image that stands for `[docker://]HOST[/PATH]`; without a path its repository is `library`, which no login is for.
fn registry_of(value: &str) -> Result<ImageRef, Error> {
    let wrong = || Error::RegistryName { value: value.to_owned() };
    let name = ["docker://", "oras://", "https://", "http://"].iter().find_map(|scheme| value.strip_prefix(scheme));
    let name = name.unwrap_or(value).trim_end_matches('/');
    let (host, path) = name.split_once('/').unwrap_or((name, ""));
    let path = if path == "v1" || path == "v2" { "" } else { path };
    let image: ImageRef =
        format!("{host}/{}", if path.is_empty() { NO_PATH } else { path }).parse().map_err(|_| wrong())?;
    // A host that the grammar takes for a path is none.
    let hub = host == "docker.io" || host == "index.docker.io";
    match (image.registry == host || hub) && image.digest.is_none() && !path.contains([':', '@']) {
        true => Ok(image),
        false => Err(wrong()),
    }
}

const NO_PATH: &str = "library/login";

fn name(image: &ImageRef) -> String {
    match image.repository.as_str() {
        NO_PATH => image.registry.clone(),
        path => format!("{}/{path}", image.registry),
    }
}

fn login_file(config: &Config, authfile: Option<&Path>) -> Result<PathBuf, Error> {
    authfile.map(Path::to_owned).or_else(|| config.registries.logins.clone()).ok_or(Error::NoLoginFile)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_of_a_login() {
        let check = |value: &str, expect: Option<&str>| {
            assert_eq!(registry_of(value).ok().map(|image| name(&image)).as_deref(), expect, "{value}");
        };
        check("docker://quay.io", Some("quay.io"));
        check("quay.io/", Some("quay.io"));
        check("quay.io/org", Some("quay.io/org"));
        check("oras://127.0.0.1:5000/a/b", Some("127.0.0.1:5000/a/b"));
        check("docker.io", Some("docker.io"));
        check("https://index.docker.io/v1/", Some("docker.io"));
        for wrong in ["", "quay", "docker://", "quay.io/a:tag", "quay.io/a@sha256:1", "quay.io/A", "a b.c", "-x"] {
            check(wrong, None);
        }
    }
}
