//! passwd(5) and group(5) text: finding entries, and adding the user's to an image's files. Pure.
//!
//! ```text
//!  passwd   name:password:uid:gid:gecos:home:shell
//!  group    name:password:gid:member,member
//! ```

use std::os::unix::ffi::OsStrExt;

use crate::host::UserEntry;

/// The entry of a user id.
pub(crate) fn find_user(passwd: &[u8], uid: u32) -> Option<UserEntry> {
    passwd.split(|b| *b == b'\n').find_map(|line| UserEntry::from_line(line, uid))
}

/// Names of those ids that the text knows.
pub(crate) fn find_groups(group: &[u8], ids: &[u32]) -> Vec<(u32, String)> {
    let mut found: Vec<(u32, String)> = Vec::new();
    for line in group.split(|b| *b == b'\n') {
        if let Some(gid) = numeric_field(line, 2)
            && ids.contains(&gid)
            && !found.iter().any(|(known, _)| *known == gid)
            && let Some(name) = line.split(|b| *b == b':').next()
        {
            found.push((gid, String::from_utf8_lossy(name).into_owned()));
        }
    }
    found
}

fn numeric_field(line: &[u8], index: usize) -> Option<u32> {
    std::str::from_utf8(line.split(|b| *b == b':').nth(index)?).ok()?.parse().ok()
}

/// The image's passwd as the container sees it, or `None` if that is the image's own. An entry of `uid` keeps its name
/// and shell and gets the home directory of `entry`; without one, `entry` is added (all as the reference does).
pub(crate) fn with_user(passwd: &[u8], uid: u32, gid: u32, entry: &UserEntry) -> Option<Vec<u8>> {
    let home = entry.home.as_os_str().as_bytes();
    let mut lines = passwd.split(|b| *b == b'\n');
    if let Some(own) = lines.find(|line| numeric_field(line, 2) == Some(uid)) {
        let fields: Vec<&[u8]> = own.split(|b| *b == b':').collect();
        if fields.len() != 7 || fields[5] == home {
            return None;
        }
        let changed = [fields[0], fields[1], fields[2], fields[3], fields[4], home, fields[6]].join(&b':');
        let lines = passwd.split(|b| *b == b'\n');
        let all: Vec<&[u8]> = lines.map(|line| if line == own { changed.as_slice() } else { line }).collect();
        return Some(all.join(&b'\n'));
    }
    let mut text = terminated(passwd);
    text.extend_from_slice(format!("{}:x:{uid}:{gid}:{}:", entry.name, entry.gecos).as_bytes());
    text.extend_from_slice(home);
    text.extend_from_slice(format!(":{}\n", entry.shell).as_bytes());
    Some(text)
}

/// The image's group file with lines for those groups whose id it lacks, or `None` if it has all.
pub(crate) fn with_groups(group: &[u8], user: &str, groups: &[(u32, String)]) -> Option<Vec<u8>> {
    let known: Vec<u32> = group.split(|b| *b == b'\n').filter_map(|line| numeric_field(line, 2)).collect();
    let mut missing = groups.iter().filter(|(gid, _)| !known.contains(gid)).peekable();
    missing.peek()?;
    let mut text = terminated(group);
    for (gid, name) in missing {
        text.extend_from_slice(format!("{name}:x:{gid}:{user}\n").as_bytes());
    }
    Some(text)
}

fn terminated(text: &[u8]) -> Vec<u8> {
    let mut text = text.to_vec();
    if text.last().is_some_and(|b| *b != b'\n') {
        text.push(b'\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/bash\nann:x:1000:100:Ann,,,:/home/ann:/bin/sh";
    const GROUP: &[u8] = b"root:x:0:\nusers:x:100:ann\n";

    #[test]
    fn finds() {
        let ann =
            UserEntry { name: "ann".into(), gecos: "Ann,,,".into(), home: "/home/ann".into(), shell: "/bin/sh".into() };
        assert_eq!(find_user(PASSWD, 1000), Some(ann));
        assert_eq!(find_user(PASSWD, 1), None);
        assert_eq!(find_user(b"broken\n::\nx:x:7\n", 7), None);
        assert_eq!(find_groups(GROUP, &[100, 7]), [(100, "users".to_owned())]);
    }

    #[test]
    fn adds_only_what_is_missing() {
        let bob =
            UserEntry { name: "bob".into(), gecos: String::new(), home: "/home/bob".into(), shell: "/bin/sh".into() };
        let ann = UserEntry { home: "/home/ann".into(), ..bob.clone() };
        assert_eq!(with_user(PASSWD, 1000, 100, &ann), None);
        let moved = b"root:x:0:0:root:/root:/bin/bash\nann:x:1000:100:Ann,,,:/home/bob:/bin/sh".to_vec();
        assert_eq!(with_user(PASSWD, 1000, 100, &bob), Some(moved));
        let added = [PASSWD, b"\nbob:x:1001:100::/home/bob:/bin/sh\n"].concat();
        assert_eq!(with_user(PASSWD, 1001, 100, &bob), Some(added));
        assert_eq!(with_user(b"", 5, 6, &bob), Some(b"bob:x:5:6::/home/bob:/bin/sh\n".to_vec()));
        assert_eq!(with_groups(GROUP, "bob", &[(100, "u".into())]), None);
        let added = [GROUP, b"lab:x:500:bob\n"].concat();
        assert_eq!(with_groups(GROUP, "bob", &[(100, "u".into()), (500, "lab".into())]), Some(added));
    }
}
