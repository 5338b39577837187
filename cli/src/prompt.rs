//! Questions to the person at the terminal, whatever standard input and output are.

use crate::error::Error;
use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr};
use siforge_oci::{Credentials, Secret};
use std::fs::File;
use std::io::{self, Read, Write};

/// Longer than any password or token that a person pastes.
const LONGEST_LINE: usize = 16 << 10;

/// Asks for what was not given.
pub(crate) fn credentials(registry: &str, username: Option<&str>) -> Result<Credentials, Error> {
    let failed = |source| Error::Prompt { source };
    let mut terminal = File::options().read(true).write(true).open("/dev/tty").map_err(failed)?;
    let username = match username {
        Some(username) => username.to_owned(),
        None => ask(&mut terminal, &format!("User name for {registry}: "), true)?.expose().trim().to_owned(),
    };
    if username.is_empty() {
        return Err(Error::NoPassword { why: "no user name was given" });
    }
    let password = ask(&mut terminal, &format!("Password of {username:?} for {registry}: "), false)?;
    match password.expose().is_empty() {
        true => Err(Error::NoPassword { why: "no password was given" }),
        false => Ok(Credentials::Password { username, password }),
    }
}

/// Asks for a passphrase, which is not shown.
pub(crate) fn passphrase(question: &str) -> Result<Secret, Error> {
    let failed = |source| Error::AskPassphrase { source };
    let mut terminal = File::options().read(true).write(true).open("/dev/tty").map_err(failed)?;
    ask(&mut terminal, question, false)
}

/// Asks for what may be shown.
pub(crate) fn line(question: &str) -> Result<String, Error> {
    let failed = |source| Error::AskLine { source };
    let mut terminal = File::options().read(true).write(true).open("/dev/tty").map_err(failed)?;
    Ok(ask(&mut terminal, question, true)?.expose().trim().to_owned())
}

fn ask(terminal: &mut File, question: &str, echo: bool) -> Result<Secret, Error> {
    let failed = |source| Error::Prompt { source };
    let _quiet = Quiet::new(terminal).map_err(failed)?;
    terminal.write_all(question.as_bytes()).map_err(failed)?;
    let line = read_line(terminal, echo);
    terminal.write_all(b"\r\n").map_err(failed)?;
    match line.map_err(failed)? {
        Some(line) => Ok(Secret::new(line)),
        None => Err(Error::Interrupted { signal: "Ctrl-C" }),
    }
}

/// A terminal that shows nothing and sends no signals, until this is dropped. The kernel's own line editing would leave it
/// so when Ctrl-C ends the program.
struct Quiet {
    terminal: File,
    before: Termios,
}

impl Quiet {
    fn new(terminal: &File) -> io::Result<Self> {
        let terminal = terminal.try_clone()?;
        let before = tcgetattr(&terminal)?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO | LocalFlags::ECHONL | LocalFlags::ICANON | LocalFlags::ISIG);
        quiet.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
        quiet.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
        tcsetattr(&terminal, SetArg::TCSAFLUSH, &quiet)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // A terminal that is gone needs no mending.
        let _ = tcsetattr(&self.terminal, SetArg::TCSAFLUSH, &self.before);
    }
}

/// A line, edited by backspace and Ctrl-U; None for Ctrl-C, and for Ctrl-D or an end without a character.
fn read_line(terminal: &mut (impl Read + Write), echo: bool) -> io::Result<Option<String>> {
    let mut line: Vec<u8> = Vec::new();
    let mut byte = [0];
    loop {
        if terminal.read(&mut byte)? == 0 || byte[0] == 0x04 {
            if line.is_empty() {
                return Ok(None);
            }
            break;
        }
        let before = line.len();
        match byte[0] {
            b'\r' | b'\n' => break,
            0x03 => return Ok(None),
            0x08 | 0x7f => {
                // The whole of a character in UTF-8.
                while line.pop().is_some_and(|last| last & 0xc0 == 0x80) {}
                if echo && line.len() < before {
                    terminal.write_all(b"\x08 \x08")?;
                }
            }
            0x15 => line.clear(),
            _ if line.len() == LONGEST_LINE => return Err(io::ErrorKind::InvalidInput.into()),
            other => {
                line.push(other);
                if echo {
                    terminal.write_all(&[other])?;
                }
            }
        }
    }
    String::from_utf8(line).map(Some).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives bytes and keeps what is written.
    struct Script<'a> {
        keys: &'a [u8],
        shown: Vec<u8>,
    }

    impl Read for Script<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.keys.read(buffer)
        }
    }

    impl Write for Script<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.shown.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines() {
        let check = |keys: &[u8], expect: Option<&str>| {
            for echo in [true, false] {
                let mut script = Script { keys, shown: Vec::new() };
                assert_eq!(read_line(&mut script, echo).expect("line").as_deref(), expect, "{keys:?}");
                assert!(echo || script.shown.is_empty(), "{:?}", script.shown);
            }
        };
        check(b"abc\rrest", Some("abc"));
        check(b"abc\n", Some("abc"));
        check(b"abc", Some("abc"));
        check(b"ab\x04", Some("ab"));
        check(b"abx\x7f\x08\x08\x08c\r", Some("c"));
        check("aä\u{7f}b\r".as_bytes(), Some("ab"));
        check(b"wrong\x15right\r", Some("right"));
        check(b"\r", Some(""));
        check(b"ab\x03", None);
        check(b"", None);
        let endless = vec![b'x'; LONGEST_LINE + 1];
        assert!(read_line(&mut Script { keys: &endless, shown: Vec::new() }, false).is_err());
        assert!(read_line(&mut Script { keys: b"\xff\r", shown: Vec::new() }, false).is_err());
    }
}
