//! Claims, leases, access and names.

use siforge_reference::Digest;
use siforge_store::names::{check_name, check_namespace, check_node};
use siforge_store::{Access, Acquired, Caller, Claim, Error, Holder, LeaseWriter, Namespaces, Store, Watch};
use std::collections::BTreeSet;
use std::time::Duration;

const PERIOD: Duration = Duration::from_secs(10);

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::init(dir.path(), None).unwrap();
    (dir, store)
}

fn digest(mark: u8) -> Digest {
    Digest::from_bytes([mark; 32])
}

fn mine(acquired: Acquired) -> Claim {
    match acquired {
        Acquired::Mine(claim) => claim,
        Acquired::Held(holder) => panic!("held by {holder:?}"),
    }
}

fn held(acquired: Acquired) -> Holder {
    match acquired {
        Acquired::Held(holder) => holder,
        Acquired::Mine(claim) => panic!("mine: {claim:?}"),
    }
}

#[test]
fn one_of_many_gets_the_claim() {
    let (_root, store) = store();
    let got: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| usize::from(matches!(store.claim(&digest(1), "x").unwrap(), Acquired::Mine(_)))))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(got, 1);
    assert!(store.leftovers().unwrap().is_empty());
}

#[test]
fn a_claim_is_held_raised_and_released() {
    let (_root, store) = store();
    let mut claim = mine(store.claim(&digest(1), "one").unwrap());
    let holder = held(store.claim(&digest(1), "two").unwrap());
    assert_eq!((holder.owner.as_str(), holder.counter), ("one", 0));
    assert!(claim.raise().unwrap());
    assert_eq!(held(store.claim(&digest(1), "two").unwrap()).counter, 1);
    claim.release().unwrap();
    mine(store.claim(&digest(1), "two").unwrap()).release().unwrap();
}

#[test]
fn only_a_claim_that_stands_still_is_dead() {
    let (_root, store) = store();
    let mut claim = mine(store.claim(&digest(1), "one").unwrap());
    let mut watch = Watch::default();
    let look = || held(store.claim(&digest(1), "two").unwrap());
    assert!(!watch.is_dead(&look(), PERIOD * 100, PERIOD), "first seen now, whatever the clock says");
    assert!(!watch.is_dead(&look(), PERIOD * 102, PERIOD));
    claim.raise().unwrap();
    assert!(!watch.is_dead(&look(), PERIOD * 103, PERIOD), "it moved");
    assert!(!watch.is_dead(&look(), PERIOD * 105, PERIOD));
    assert!(watch.is_dead(&look(), PERIOD * 106, PERIOD));
    assert!(!watch.is_dead(&look(), PERIOD, PERIOD), "a clock that went back proves nothing");
}

#[test]
fn a_dead_claim_is_stolen_once_and_its_owner_notices() {
    let (_root, store) = store();
    let mut dead = mine(store.claim(&digest(1), "dead").unwrap());
    let seen = held(store.claim(&digest(1), "thief").unwrap());
    let thefts = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| store.steal_claim(&digest(1), "thief", &seen).unwrap())).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .filter(|acquired| matches!(acquired, Acquired::Mine(_)))
            .count()
    });
    assert!(thefts >= 1);
    assert!(!dead.raise().unwrap());
    dead.release().unwrap();
    assert_eq!(held(store.claim(&digest(1), "late").unwrap()).owner, "thief", "a stolen claim is its thief's");
}

#[test]
fn a_claim_that_moved_is_not_stolen() {
    let (_root, store) = store();
    let mut claim = mine(store.claim(&digest(1), "one").unwrap());
    let seen = held(store.claim(&digest(1), "two").unwrap());
    claim.raise().unwrap();
    assert_eq!(held(store.steal_claim(&digest(1), "two", &seen).unwrap()).counter, 1);
    assert!(claim.raise().unwrap());
}

#[test]
fn a_lease_is_on_the_disk_before_the_open() {
    let (_root, store) = store();
    let mut lease = LeaseWriter::open(&store, "node-1.example").unwrap();
    let read = || store.read_lease("node-1.example").unwrap().unwrap();
    lease.add(&digest(1)).unwrap();
    assert_eq!(read(), *lease.lease());
    assert!(read().digests.contains(&digest(1)));
    let counter = read().counter;
    lease.add(&digest(1)).unwrap();
    assert_eq!(read().counter, counter, "nothing new, nothing written");
    lease.heartbeat().unwrap();
    assert_eq!(read().counter, counter + 1);
    lease.add(&digest(2)).unwrap();
    lease.remove(&digest(1)).unwrap();
    assert_eq!(read().digests, BTreeSet::from([digest(2)]));
    assert_eq!(store.list_leases().unwrap(), ["node-1.example"]);
}

#[test]
fn an_agent_that_comes_back_keeps_what_its_mounts_use() {
    let (_root, store) = store();
    let mut first = LeaseWriter::open(&store, "n").unwrap();
    first.add(&digest(1)).unwrap();
    let counter = first.lease().counter;
    drop(first);
    let mut second = LeaseWriter::open(&store, "n").unwrap();
    assert!(second.lease().digests.contains(&digest(1)) && second.lease().counter > counter);
    second.replace(BTreeSet::from([digest(3)])).unwrap();
    assert_eq!(store.read_lease("n").unwrap().unwrap().digests, BTreeSet::from([digest(3)]));
    std::fs::write(store.layout().lease("n").unwrap(), "{").unwrap();
    assert!(matches!(LeaseWriter::open(&store, "n"), Err(Error::Damaged { .. })));
}

#[test]
fn a_failed_write_changes_nothing_in_memory() {
    let (root, store) = store();
    let mut lease = LeaseWriter::open(&store, "n").unwrap();
    std::fs::remove_dir_all(root.path().join("leases")).unwrap();
    assert!(lease.add(&digest(1)).is_err());
    assert!(lease.lease().digests.is_empty());
}

#[test]
fn who_may_launch() {
    let caller = |uid, gids: &[u32], namespace: Option<&str>| Caller {
        uid,
        gids: gids.to_vec(),
        namespace: namespace.map(Into::into),
    };
    let same = Access::default();
    let all = Access { namespaces: Namespaces::All, ..Access::default() };
    let list = Access { namespaces: Namespaces::List(vec!["b".into()]), ..Access::default() };
    let people = Access { uids: vec![1000], gids: vec![50], ..Access::default() };
    let everyone = Access { everyone: true, ..Access::default() };
    let table = [
        (&same, caller(1, &[], Some("a")), true),
        (&same, caller(1, &[], Some("b")), false),
        (&same, caller(0, &[0], Some("b")), false),
        (&same, caller(1000, &[1000], None), false),
        (&same, caller(0, &[0], None), true),
        (&all, caller(1, &[], Some("b")), true),
        (&all, caller(1000, &[], None), false),
        (&list, caller(1, &[], Some("b")), true),
        (&list, caller(1, &[], Some("a")), false),
        (&list, caller(1, &[], Some("")), false),
        (&people, caller(1000, &[], None), true),
        (&people, caller(1001, &[7, 50], None), true),
        (&people, caller(1001, &[7], None), false),
        (&people, caller(1000, &[50], Some("b")), false),
        (&everyone, caller(1001, &[], None), true),
        (&everyone, caller(1001, &[], Some("b")), false),
    ];
    for (access, caller, expected) in table {
        assert_eq!(access.allows("a", &caller), expected, "{access:?} {caller:?}");
    }
    let empty: Access = serde_json::from_str("{}").unwrap();
    assert_eq!(empty, Access::default(), "what is not said is not allowed");
}

#[test]
fn only_names_that_a_path_holds() {
    let long = |len: usize| "a".repeat(len);
    for (good, is_label) in [("a", true), ("a-b", true), ("0", true), ("a.b", false), ("a.b-c.d", false)] {
        assert_eq!(check_namespace(good).is_ok(), is_label, "{good}");
        assert!(check_name(good).is_ok() && check_node(good).is_ok(), "{good}");
    }
    assert!(check_namespace(&long(63)).is_ok() && check_namespace(&long(64)).is_err());
    assert!(check_name(&long(253)).is_ok() && check_name(&long(254)).is_err());
    for bad in [
        "",
        ".",
        "..",
        "a/b",
        "/",
        "../a",
        "a..b",
        ".a",
        "a.",
        "-a",
        "a-",
        "A",
        "a_b",
        "a b",
        "é",
        "a\0",
        "a\n",
        "current/..",
        "a.-b",
    ] {
        assert!(check_name(bad).is_err() && check_namespace(bad).is_err() && check_node(bad).is_err(), "{bad:?}");
    }
}
