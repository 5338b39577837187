//! Users who mean harm: one may not hold the agent up, nor get more of an image than is shown.

use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use siforge_agent_api::{Connection, Limits, Refusal};
use siforge_tests::{User, need, wait_until};

use super::site::{DEADLINE, Site};
use super::{everyone, mount, refusal, warm};

/// A TCP socket whose close(2) waits an hour for a peer that does not read.
fn lingering() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let sender = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    let (silent, _) = listener.accept().expect("accept");
    let hour = Some(Duration::from_secs(3600));
    rustix::net::sockopt::set_socket_linger(&sender, hour).expect("linger");
    sender.set_nonblocking(true).expect("set non-blocking");
    while std::io::Write::write(&mut &sender, &[0; 1 << 16]).is_ok() {}
    (sender, silent)
}

#[test]
fn closing_what_a_refused_client_sent_holds_nobody_up() {
    let site = Site::new();
    let agent = site.start(&[]);
    // Every place is taken.
    let mut taken = Vec::new();
    wait_until(DEADLINE, "the agent is busy", || {
        taken.extend((0..64).map(|_| site.client()));
        let last = taken.last_mut().map(|client| client.status());
        matches!(last, Some(Err(_)))
    });
    assert!(matches!(refusal(site.client().status()), Refusal::Busy { .. }));

    // What comes meanwhile is accepted, refused, and closed together with its unread descriptor.
    let (sender, silent) = lingering();
    agent.signal(Signal::STOP);
    let stream = UnixStream::connect(site.socket()).expect("connect");
    let mut hostile = Connection::new(stream, Limits::CLIENT).expect("connection");
    hostile.send(b"{}".to_vec(), &[sender.as_fd()]).expect("send");
    drop(sender);
    agent.signal(Signal::CONT);

    drop(taken);
    wait_until(DEADLINE, "the agent answers", || site.client().status().is_ok());
    silent.shutdown(Shutdown::Both).expect("shut down");
}

#[test]
fn a_mount_of_a_live_device_keeps_its_flags() {
    let site = Site::new();
    let digest = site.publish("tiny", everyone());
    let _agent = site.start(&["--linger", "1"]);
    let mut holder = site.hold(None, "lab/tiny");
    wait_until(DEADLINE, "the image is unmounted", || site.mounts(&digest) == 0);
    site.client().mount(&mount("lab/tiny"), None).expect("mount");
    assert_eq!((site.mounts(&digest), site.loops(&digest)), (1, 1));
    // Locked flags stay even for root, who could not give them away then.
    let remounted = siforge_tests::run::run(
        Command::new(need::program("mount")).args(["-o", "remount,bind,ro,nosuid,dev"]).arg(site.mount_point(&digest)),
    );
    assert!(!remounted.status.success(), "{remounted}");
    assert_eq!(holder.read(), "tiny");
}

#[test]
fn no_user_fills_a_node_with_leases() {
    let site = Site::new();
    for name in ["first", "second"] {
        site.publish(name, everyone());
    }
    let _agent = site.start(&["--max-mounts", "4"]);
    let user = User::ordinary();
    let lease = |image: &str| site.ask(Some(user), image, &["lease=mine"])["error"].clone();
    assert!(lease("lab/first").is_null());
    let error = lease("lab/second");
    assert!(error.as_str().is_some_and(|text| text.contains("its share")), "{error}");
    assert!(site.ask(Some(user), "lab/second", &[])["error"].is_null());
    site.client().warm(&warm("lab/second", "roots")).expect("warm");
}
