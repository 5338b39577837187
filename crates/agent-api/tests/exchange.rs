//! Both sides over real sockets, and what neither may accept.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

use siforge_agent_api::*;

/// A client, and a thread that serves one connection with `answer`.
fn with_server<T>(
    answer: impl Fn(&mut Connection, Request) -> Result<(), Error> + Sync,
    ask: impl FnOnce(&mut Client) -> T,
) -> T {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("agent.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut connection = Connection::new(listener.accept().unwrap().0, Limits::SERVER).unwrap();
            while let Ok(Some(request)) = connection.read_request("1.2.3") {
                answer(&mut connection, request).unwrap();
            }
        });
        let mut client = Client::connect(&socket).unwrap();
        ask(&mut client)
    })
}

#[test]
fn every_method() {
    let answer = |connection: &mut Connection, request: Request| match request.method {
        Method::Mount => {
            let parameters: MountRequest = request.parameters().unwrap();
            assert_eq!(parameters.reference, "lab/lolcow");
            assert_eq!(parameters.user_namespace, request.descriptors.first().map(|_| true));
            let reply = MountReply { digest: "sha256:ab".into(), revision: 7, ..MountReply::default() };
            connection.reply(&reply, &[File::open("/etc").unwrap().as_fd()])
        }
        Method::Warm => {
            let WarmRequest { lease, budget_ms, .. } = request.parameters().unwrap();
            assert_eq!((lease.as_deref(), budget_ms), (Some("job-1"), Some(20)));
            connection.reply(&WarmReply { ready: true, ..WarmReply::default() }, &[])
        }
        Method::Release => connection.reply(&serde_json::json!({}), &[]),
        Method::Resolve => connection
            .refuse(&Refusal::NotFound { message: "no image lab/lolcov".into(), nearest: Some("lab/lolcow".into()) }),
        Method::Status => {
            // Longer than one read.
            let leases = (0..2000).map(|n| format!("lease-{n}")).collect();
            connection.reply(&StatusReply { leases, ..StatusReply::default() }, &[])
        }
    };
    with_server(answer, |client| {
        let request = MountRequest { reference: "lab/lolcow".into(), ..MountRequest::default() };
        let namespace = File::open("/proc/self/ns/user").unwrap();
        for namespace in [None, Some(namespace.as_fd())] {
            let (reply, mount) = client.mount(&request, namespace).unwrap();
            assert_eq!((reply.digest.as_str(), reply.revision, reply.mount_fd), ("sha256:ab", 7, 0));
            let (got, want) = (File::from(mount).metadata().unwrap(), std::fs::metadata("/etc").unwrap());
            assert_eq!((got.dev(), got.ino()), (want.dev(), want.ino()));
        }
        let warm = WarmRequest { reference: "lab/lolcow".into(), lease: Some("job-1".into()), budget_ms: Some(20) };
        assert!(client.warm(&warm).unwrap().ready);
        client.release("job-1").unwrap();
        let refused = client.resolve("lab/lolcov").unwrap_err().to_string();
        assert_eq!(refused, "no image lab/lolcov (did you mean lab/lolcow?)");
        assert_eq!(client.status().unwrap().leases.len(), 2000);
    });
}

#[test]
fn descriptors_are_close_on_exec() {
    let (left, right) = UnixStream::pair().unwrap();
    let mut sender = Connection::new(left, Limits::CLIENT).unwrap();
    let mut receiver = Connection::new(right, Limits::CLIENT).unwrap();
    sender.send(b"{}".to_vec(), &[File::open("/etc").unwrap().as_fd()]).unwrap();
    let frame = receiver.receive().unwrap().unwrap();
    let flags = rustix::io::fcntl_getfd(&frame.descriptors[0]).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
}

#[test]
fn the_peer_is_known() {
    let (left, _right) = UnixStream::pair().unwrap();
    let peer = peer(&left).unwrap();
    assert_eq!((peer.pid, peer.uid), (std::process::id(), rustix::process::geteuid().as_raw()));
}

/// Bytes from a client that does not use this crate; the text of the server's answer or of its error.
fn raw(bytes: &[u8], descriptors: usize, limits: Limits) -> String {
    let (client, server) = UnixStream::pair().unwrap();
    thread::scope(|scope| {
        let server = scope.spawn(move || {
            let mut connection = Connection::new(server, limits).unwrap();
            match connection.read_request("1.2.3") {
                Ok(Some(request)) => format!("call {:?}", request.method),
                Ok(None) => "closed".to_owned(),
                Err(e) => e.to_string(),
            }
        });
        let file = File::open("/etc").unwrap();
        let fds = vec![file.as_fd(); descriptors];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
        if descriptors > 0 {
            assert!(control.push(rustix::net::SendAncillaryMessage::ScmRights(&fds)));
        }
        let part = [std::io::IoSlice::new(bytes)];
        let sent = rustix::net::sendmsg(&client, &part, &mut control, rustix::net::SendFlags::NOSIGNAL).unwrap();
        assert_eq!(sent, bytes.len());
        if limits.transfer > Duration::from_secs(1) {
            client.shutdown(std::net::Shutdown::Write).unwrap();
        }
        let error = server.join().unwrap();
        let mut answer = String::new();
        // The client's socket may have been reset with unread bytes in it.
        let _ = (&client).read_to_string(&mut answer);
        if answer.is_empty() { error } else { answer.trim_end_matches('\0').to_owned() }
    })
}

#[test]
fn what_a_server_refuses() {
    let check = |bytes: &str, descriptors: usize, expect: &str| {
        let got = raw(bytes.as_bytes(), descriptors, Limits::SERVER);
        assert!(got.starts_with(expect), "{bytes:.80}: {got}");
    };
    check("", 0, "closed");
    check("{\"method\":\"dev.siforge.Agent.Status\"}\0", 0, "call Status");
    check("{\"method\":\"dev.siforge.Agent.Status\",\"parameters\":{}}\0", 1, "call Status");
    check("{\"method\":\"dev.siforge.Agent.Status\"}\0", 2, "message on the agent's socket carries more than 1 ");
    check("{\"method\":\"dev.siforge.Agent.Status\"}\0", 7, "message on the agent's socket carries more than 1 ");
    check("{\"method\":\"dev.siforge.Agent.Status\"}\0{", 0, "more than one message");
    check("{\"method\":\"dev.siforge.Agent.Status\"}", 0, "the agent's socket was closed");
    check("{\"method\":7}\0", 0, "malformed varlink message");
    check("[]\0", 0, "malformed varlink message");
    check("\0", 0, "malformed varlink message");
    check(
        &format!("{{\"method\":\"{}\"}}\0", "x".repeat(65536)),
        0,
        "message on the agent's socket exceeds 65536 bytes",
    );
    check(&format!("{}\0", "[".repeat(60000)), 0, "malformed varlink message");
    let answer =
        "{\"error\":\"org.varlink.service.MethodNotFound\",\"parameters\":{\"method\":\"dev.siforge.Agent.X\"}}";
    check("{\"method\":\"dev.siforge.Agent.X\"}\0", 0, answer);
    let answer = "{\"error\":\"org.varlink.service.InterfaceNotFound\",\"parameters\":{\"interface\":\"a.b\"}}";
    check("{\"method\":\"a.b.C\"}\0", 0, answer);
    let answer = "{\"error\":\"org.varlink.service.InvalidParameter\"";
    check("{\"method\":\"dev.siforge.Agent.Status\",\"more\":true}\0", 0, answer);
    check("{\"method\":\"org.varlink.service.GetInfo\"}\0", 0, "{\"parameters\":{");
    let call = "{\"method\":\"org.varlink.service.GetInterfaceDescription\",\"parameters\":{\"interface\":\"dev.siforge.Agent\"}}\0";
    check(call, 0, "{\"parameters\":{\"description\":\"# The node agent");
}

#[test]
fn silent_and_slow_clients_are_let_go() {
    let limit = Duration::from_millis(50);
    let limits = Limits { idle: limit, transfer: limit, ..Limits::SERVER };
    assert_eq!(raw(b"{", 0, limits), "no complete message on the agent's socket within 50 ms");
    // One that drips bytes for ever gets no more time than one that stops.
    let (mut client, server) = UnixStream::pair().unwrap();
    let mut connection = Connection::new(server, limits).unwrap();
    thread::scope(|scope| {
        scope.spawn(move || while client.write_all(b" ").is_ok() {});
        let error = connection.receive().unwrap_err().to_string();
        assert!(error.contains("within 50 ms") || error.contains("exceeds"), "{error}");
        drop(connection);
    });
}

#[test]
fn no_agent_is_said_so() {
    let error = Client::connect(std::path::Path::new("/nonexistent/agent.sock")).unwrap_err().to_string();
    assert!(error.starts_with("connect to the agent at /nonexistent/agent.sock: No such file"), "{error}");
}

#[test]
fn a_newer_agents_error_keeps_its_name() {
    let (client, server) = UnixStream::pair().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("agent.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    drop((client, server));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut connection = Connection::new(listener.accept().unwrap().0, Limits::SERVER).unwrap();
            connection.read_request("2").unwrap().unwrap();
            let text = r#"{"error":"dev.siforge.Agent.Frozen","parameters":{"message":"too cold"}}"#;
            connection.send(text.into(), &[]).unwrap();
        });
        let error = Client::connect(&socket).unwrap().status().unwrap_err().to_string();
        assert_eq!(error, "dev.siforge.Agent.Frozen: too cold");
    });
}

/// The parameter names of a method or error in the description: `name: type` within the parentheses.
fn described(after: &str) -> Vec<String> {
    let start = DESCRIPTION.find(after).unwrap_or_else(|| panic!("{after} is not described")) + after.len();
    let open = DESCRIPTION[start..].find('(').unwrap() + start + 1;
    let close = DESCRIPTION[open..].find(')').unwrap() + open;
    let mut names: Vec<String> = DESCRIPTION[open..close]
        .split(',')
        .filter_map(|field| field.split_once(':').map(|(name, _)| name.trim().to_owned()))
        .collect();
    names.sort();
    names
}

#[test]
fn types_are_those_of_the_description() {
    let names = |value: serde_json::Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    let check = |after: &str, value: serde_json::Value| assert_eq!(names(value), described(after), "{after}");
    let text = || Some("x".to_owned());
    check(
        "method Mount",
        json(&MountRequest { lease: text(), user_namespace: Some(true), namespace: text(), ..Default::default() }),
    );
    check("namespace: ?string\n) ->", json(&MountReply { path_hint: text(), ..Default::default() }));
    check("method Warm", json(&WarmRequest { lease: text(), budget_ms: Some(1), ..Default::default() }));
    check("budget_ms: ?int\n) ->", json(&WarmReply::default()));
    check("method Release", json(&ReleaseRequest::default()));
    check("method Resolve", json(&ResolveRequest::default()));
    check("method Resolve(reference: string) ->", json(&ResolveReply::default()));
    check("method Status() ->", json(&StatusReply::default()));
    check("type Mounted", json(&MountStatus::default()));
    for method in Method::ALL {
        let word = method.name().rsplit('.').next().unwrap();
        assert!(DESCRIPTION.contains(&format!("method {word}(")), "{word}");
        assert_eq!(Method::from_name(method.name()), Some(method));
    }
    let message = || "m".to_owned();
    for refusal in [
        Refusal::NotFound { message: message(), nearest: text() },
        Refusal::NotAllowed { message: message() },
        Refusal::NotReady { message: message() },
        Refusal::Damaged { message: message() },
        Refusal::Busy { message: message() },
        Refusal::InvalidReference { message: message() },
        Refusal::Internal { message: message() },
    ] {
        let value = serde_json::to_value(&refusal).unwrap();
        let word = value["error"].as_str().unwrap().strip_prefix("dev.siforge.Agent.").unwrap().to_owned();
        check(&format!("error {word} "), value["parameters"].clone());
        assert_eq!(serde_json::from_value::<Refusal>(value).unwrap(), refusal);
    }
}

fn json<T: serde::Serialize>(value: &T) -> serde_json::Value {
    serde_json::to_value(value).unwrap()
}
