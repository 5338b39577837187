//! Which proxy a URL is asked for through: Go's rules (golang.org/x/net/http/httpproxy), which podman, Apptainer and
//! Kubernetes follow, and `ALL_PROXY` besides. Pure: the caller reads the variables.
//!
//! ```text
//!   HTTPS_PROXY=http://proxy.site:3128      for https URLs; HTTP_PROXY for http ones, ALL_PROXY for what has none
//!   NO_PROXY=registry.site,                 it and its subdomains
//!            .site, *.site                  subdomains only
//!            registry.site:5000             this port only
//!            10.0.0.7, 10.0.0.0/8, ::1      an address, a network
//!            *                              everything
//! ```
//! localhost and loopback addresses are never asked for through a proxy.

use crate::Secret;
use reqwest::Url;
use std::net::{IpAddr, Ipv6Addr};

/// The proxies of the environment. A proxy's URL may hold a password.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    http: Option<Secret>,
    https: Option<Secret>,
    all: Option<Secret>,
    /// NO_PROXY.
    except: Vec<Exception>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Exception {
    All,
    Network {
        address: u128,
        bits: u32,
    },
    Address {
        address: IpAddr,
        port: Option<u16>,
    },
    Domain {
        /// With a dot before it.
        suffix: String,
        /// The name without the dot is meant too.
        itself: bool,
        port: Option<u16>,
    },
}

impl Proxies {
    /// `variable` gives a variable's value. Capitals come first.
    pub fn new(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let either = |name: &str| {
            let values = [name.to_owned(), name.to_ascii_lowercase()];
            values.iter().find_map(|name| variable(name).filter(|value| !value.trim().is_empty()))
        };
        let secret = |name: &str| either(name).map(Secret::new);
        // A web server that runs a program sets this, and HTTP_PROXY from a header "Proxy:" of whoever asks.
        let served = variable("REQUEST_METHOD").is_some();
        let http = if served { None } else { secret("HTTP_PROXY") };
        let except = either("NO_PROXY").unwrap_or_default();
        let except = except.split(',').filter_map(exception).collect();
        Self { http, https: secret("HTTPS_PROXY"), all: secret("ALL_PROXY"), except }
    }

    /// The proxy's URL for `url`; None: straight there.
    pub(crate) fn of(&self, url: &Url) -> Option<&Secret> {
        let proxy = match url.scheme() {
            "https" => self.https.as_ref(),
            _ => self.http.as_ref(),
        };
        let proxy = proxy.or(self.all.as_ref())?;
        let host = url.host_str()?.trim_end_matches('.').to_ascii_lowercase();
        let address = address(&host);
        let loopback = host == "localhost" || address.is_some_and(|address| address.is_loopback());
        let port = url.port_or_known_default();
        let direct = loopback || self.except.iter().any(|except| except.fits(&host, address, port));
        (!direct).then_some(proxy)
    }
}

impl Exception {
    fn fits(&self, host: &str, ip: Option<IpAddr>, at: Option<u16>) -> bool {
        match self {
            Self::All => true,
            Self::Network { address, bits } => ip.is_some_and(|ip| {
                let differ = number(ip) ^ address;
                bits.checked_sub(1).is_none_or(|_| differ >> (128 - bits) == 0)
            }),
            Self::Address { address, port } => ip == Some(*address) && port.is_none_or(|port| at == Some(port)),
            Self::Domain { suffix, itself, port } => {
                let named = host.ends_with(suffix.as_str()) || (*itself && host == &suffix[1..]);
                named && port.is_none_or(|port| at == Some(port))
            }
        }
    }
}

/// An entry of NO_PROXY; None for one that says nothing.
fn exception(entry: &str) -> Option<Exception> {
    let entry = entry.trim().to_ascii_lowercase();
    if entry == "*" {
        return Some(Exception::All);
    }
    if let Some((network, bits)) = entry.split_once('/') {
        let (ip, bits) = (network.parse::<IpAddr>().ok()?, bits.parse::<u32>().ok()?);
        let (least, most) = if ip.is_ipv4() { (96, 32) } else { (0, 128) };
        let address = number(ip);
        return (bits <= most).then_some(Exception::Network { address, bits: least + bits });
    }
    // More than one colon without brackets is an IPv6 address.
    let (host, port) = match entry.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port.parse().ok()?)),
        _ => (entry.as_str(), None),
    };
    if let Some(address) = address(host) {
        return Some(Exception::Address { address, port });
    }
    let host = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host);
    let itself = !host.starts_with('.');
    let suffix = if itself { format!(".{host}") } else { host.to_owned() };
    (suffix.len() > 1).then_some(Exception::Domain { suffix, itself, port })
}

/// Also in brackets, and an IPv4 address in an IPv6 one is the former.
fn address(host: &str) -> Option<IpAddr> {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

/// IPv4 addresses are those below `::ffff:0:0/96`.
fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => Ipv6Addr::to_bits(ip),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        Proxies::new(&|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    fn proxy_of(variables: &[(&str, &str)], url: &str) -> Option<String> {
        let proxies = proxies(variables);
        assert!(!format!("{proxies:?}").contains("hunter2"));
        proxies.of(&Url::parse(url).expect(url)).map(|proxy| proxy.expose().to_owned())
    }

    #[test]
    fn which_proxy_is_for_a_scheme() {
        let check = |variables: &[(&str, &str)], url: &str, expect: Option<&str>| {
            assert_eq!(proxy_of(variables, url).as_deref(), expect, "{variables:?} {url}");
        };
        let both = [("HTTPS_PROXY", "http://u:hunter2@s:1"), ("http_proxy", "p:2")];
        check(&both, "https://r.example/v2/", Some("http://u:hunter2@s:1"));
        check(&both, "http://r.example/v2/", Some("p:2"));
        check(&both[..1], "http://r.example/", None);
        check(&both[1..], "https://r.example/", None);
        check(&[("ALL_PROXY", "a")], "https://r.example/", Some("a"));
        check(&[("all_proxy", "a"), ("HTTP_PROXY", "p")], "http://r.example/", Some("p"));
        check(&[("HTTP_PROXY", ""), ("http_proxy", "p")], "http://r.example/", Some("p"));
        check(&[("HTTP_PROXY", "p"), ("http_proxy", "q")], "http://r.example/", Some("p"));
        check(&[("HTTP_PROXY", "p"), ("REQUEST_METHOD", "GET")], "http://r.example/", None);
        check(&[], "https://r.example/", None);
    }

    #[test]
    fn what_is_asked_for_straight() {
        let check = |no_proxy: &str, url: &str, direct: bool| {
            let variables = [("ALL_PROXY", "http://p"), ("NO_PROXY", no_proxy)];
            assert_eq!(proxy_of(&variables, url).is_none(), direct, "{no_proxy:?} {url}");
        };
        for loopback in
            ["localhost:5000", "LOCALHOST", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000", "[::ffff:127.0.0.1]"]
        {
            check("", &format!("http://{loopback}/"), true);
        }
        for other in ["localhost.example", "128.0.0.1", "127.0.0.1.example", "[::2]"] {
            check("", &format!("http://{other}/"), false);
        }
        check("*", "https://r.example/", true);
        check("a, *", "https://r.example/", true);
        check("r.example", "https://r.example:5000/", true);
        check("other, R.Example ", "https://a.r.example/", true);
        check("r.example", "https://ar.example/", false);
        for subdomains in [".r.example", "*.r.example"] {
            check(subdomains, "https://a.b.r.example/", true);
            check(subdomains, "https://r.example/", false);
        }
        check("r.example:5000", "https://r.example:5000/", true);
        check("r.example:5000", "https://a.r.example:5000/", true);
        check("r.example:5000", "https://r.example/", false);
        check("r.example:443", "https://r.example/", true);
        check("r.example:80", "http://r.example/", true);
        check("*.r.example:5000", "https://a.r.example:5000/", true);
        check("*.r.example:5000", "https://a.r.example/", false);
        check("10.0.0.7", "http://10.0.0.7:5000/", true);
        check("10.0.0.7:5000", "http://10.0.0.7:5000/", true);
        check("10.0.0.7:5000", "http://10.0.0.7/", false);
        check("10.0.0.7", "http://10.0.0.70/", false);
        check("fd00::7", "http://[fd00::7]:5000/", true);
        check("[fd00::7]:5000", "http://[fd00::7]:5000/", true);
        check("[fd00::7]:5000", "http://[fd00::7]/", false);
        check("10.0.0.0/8", "http://10.9.9.9/", true);
        check("10.0.0.0/8", "http://11.0.0.1/", false);
        check("10.1.2.3/31", "http://10.1.2.2/", true);
        check("0.0.0.0/0", "http://11.0.0.1/", true);
        check("0.0.0.0/0", "http://[fd00::1]/", false);
        check("fd00::/8", "http://[fd12::1]/", true);
        check("::/0", "http://[fd12::1]/", true);
        for nothing in ["", ",", " , ", ".", "*.", ":5000", "r.example:", "r.example:port", "10.0.0.0/33", "x/8", "/"] {
            check(nothing, "http://r.example/", false);
        }
    }
}
