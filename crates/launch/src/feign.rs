//! A filter (seccomp(2), BPF) for builds by a root that is alone in its user namespace: no other owner and no other identity
//! can be had there, so package managers are told that they have them.
//!
//! ```text
//!  another architecture's call              → as it is
//!  chown, fchown, lchown, fchownat          → 0, nothing done: files stay root's
//!  setuid … setgroups, setfsuid, setfsgid   → 0, nothing done: the process stays root
//!  mknod, mknodat of a device               → 0, nothing made: the kernel makes none in a user namespace
//!  everything else                          → as it is
//! ```
//! The idea is Charliecloud's (`ch-image --force=seccomp`, 2022). A program that looks afterwards sees that nothing changed.

use libc::sock_filter;

/// linux/filter.h and linux/bpf_common.h.
const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Of struct seccomp_data: the call's number, the architecture, and the low half of an argument (both are little-endian here).
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const fn argument(index: u32) -> u32 {
    16 + 8 * index
}

/// linux/audit.h.
#[cfg(target_arch = "x86_64")]
const OWN: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const OWN: u32 = 0xc000_00b7;
/// Nowhere else is anything feigned: no architecture has this number.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const OWN: u32 = u32::MAX;
/// Calls of x32 on x86-64 have this bit.
const OTHER_ABI: u32 = 0x4000_0000;

const IDS: [libc::c_long; 11] = [
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
];
#[cfg(target_arch = "x86_64")]
const OLD_IDS: [libc::c_long; 2] = [libc::SYS_chown, libc::SYS_lchown];
#[cfg(not(target_arch = "x86_64"))]
const OLD_IDS: [libc::c_long; 0] = [];

/// Number and the argument that is the mode.
#[cfg(target_arch = "x86_64")]
const NODES: [(libc::c_long, u32); 2] = [(libc::SYS_mknod, 1), (libc::SYS_mknodat, 2)];
#[cfg(not(target_arch = "x86_64"))]
const NODES: [(libc::c_long, u32); 1] = [(libc::SYS_mknodat, 2)];

/// The program.
pub(crate) fn filter() -> Vec<sock_filter> {
    let step = |code, k| sock_filter { code, jt: 0, jf: 0, k };
    // Skips so many steps if it is not so.
    let unless = |k, skip| sock_filter { code: EQUAL, jt: 0, jf: skip, k };
    let as_it_is = step(RETURN, libc::SECCOMP_RET_ALLOW);
    let feigned = step(RETURN, libc::SECCOMP_RET_ERRNO);
    let mut program = vec![
        step(LOAD, ARCHITECTURE),
        sock_filter { code: EQUAL, jt: 1, jf: 0, k: OWN },
        as_it_is,
        step(LOAD, NUMBER),
        sock_filter { code: AT_LEAST, jt: 0, jf: 1, k: OTHER_ABI },
        as_it_is,
    ];
    for number in IDS.iter().chain(&OLD_IDS) {
        program.extend([unless(*number as u32, 1), feigned]);
    }
    for (number, mode) in NODES {
        program.extend([
            unless(number as u32, 7),
            step(LOAD, argument(mode)),
            step(AND, libc::S_IFMT),
            unless(libc::S_IFCHR, 1),
            feigned,
            unless(libc::S_IFBLK, 1),
            feigned,
            as_it_is,
        ]);
    }
    program.push(as_it_is);
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program returns for a call, by the rules of classic BPF.
    fn verdict(number: u32, architecture: u32, arguments: [u32; 3]) -> u32 {
        let program = filter();
        let (mut at, mut value) = (0, 0);
        loop {
            let step = program[at];
            at += 1;
            match step.code {
                LOAD => {
                    value = match step.k {
                        NUMBER => number,
                        ARCHITECTURE => architecture,
                        offset => arguments[(offset as usize - 16) / 8],
                    }
                }
                AND => value &= step.k,
                EQUAL | AT_LEAST => {
                    let holds = if step.code == EQUAL { value == step.k } else { value >= step.k };
                    at += usize::from(if holds { step.jt } else { step.jf });
                }
                RETURN => return step.k,
                other => panic!("{other}"),
            }
        }
    }

    #[test]
    fn what_is_feigned() {
        let check = |number: libc::c_long, arguments, expect| {
            assert_eq!(verdict(number as u32, OWN, arguments) == libc::SECCOMP_RET_ERRNO, expect, "{number}");
        };
        for number in IDS.iter().chain(&OLD_IDS) {
            check(*number, [0; 3], true);
        }
        for (number, mode) in NODES {
            let with = |kind: u32| {
                let mut arguments = [0; 3];
                arguments[mode as usize] = kind | 0o644;
                arguments
            };
            check(number, with(libc::S_IFCHR), true);
            check(number, with(libc::S_IFBLK), true);
            check(number, with(libc::S_IFIFO), false);
            check(number, with(libc::S_IFREG), false);
        }
        for number in [libc::SYS_openat, libc::SYS_getuid, libc::SYS_fchmod, libc::SYS_execve] {
            check(number, [libc::S_IFCHR; 3], false);
        }
        assert_eq!(verdict(libc::SYS_setuid as u32, 0x4000_0003, [0; 3]), libc::SECCOMP_RET_ALLOW);
        assert_eq!(verdict(OTHER_ABI | libc::SYS_setuid as u32, OWN, [0; 3]), libc::SECCOMP_RET_ALLOW);
    }
}
