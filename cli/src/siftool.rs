//! `siforge sif`: a SIF's header and data objects, shown and changed.

use crate::cli::{SifAdd, SifCommand, SifObject};
use crate::config::Config;
use crate::error::Error;
use sha2::{Digest as _, Sha256};
use siforge_sif::edit::{Delete, Editor, Link, Object};
use siforge_sif::{Arch, DataType, Descriptor, Header, Sif, format, show};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Descriptors of a new SIF and where they begin, as the reference has them.
const DESCRIPTORS: i64 = 48;
const TABLE_OFFSET: i64 = 4096;

pub(crate) fn run(config: &Config, command: &SifCommand) -> Result<(), Error> {
    match command {
        SifCommand::Header(file) => print(&show::header(open(&file.path)?.header())),
        SifCommand::List(file) => print(&show::list(open(&file.path)?.descriptors())),
        SifCommand::Info(object) => print(&show::info(find(&open(&object.path)?, object)?)),
        SifCommand::Dump(object) => {
            let sif = open(&object.path)?;
            dump(&sif, find(&sif, object)?, &object.path)
        }
        SifCommand::New(file) => create(config, &file.path),
        SifCommand::Add(add) => {
            let failed = |source| Error::Read { path: add.data.clone(), source };
            let mut data = File::open(&add.data).map_err(failed)?;
            let object = object(add, &mut data).map_err(|why| Error::SifAdd { why })?;
            data.rewind().map_err(failed)?;
            edit(config, &add.path, |editor| editor.add(object, &mut data).map(drop))
        }
        SifCommand::Del(object) => edit(config, &object.path, |editor| editor.delete(object.id, Delete::default())),
        SifCommand::Setprim(object) => edit(config, &object.path, |editor| editor.set_primary(object.id)),
    }
}

fn print(text: &str) -> Result<(), Error> {
    print!("{text}");
    Ok(())
}

fn open(path: &Path) -> Result<Sif, Error> {
    let file = File::open(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    Sif::open(file).map_err(|source| Error::Sif { path: path.to_owned(), source })
}

fn find<'a>(sif: &'a Sif, object: &SifObject) -> Result<&'a Descriptor, Error> {
    let found = sif.descriptors().iter().find(|descriptor| descriptor.id == object.id);
    found.ok_or_else(|| Error::SifObject { path: object.path.clone(), id: object.id })
}

fn dump(sif: &Sif, descriptor: &Descriptor, path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let mut file = sif.file().try_clone().map_err(failed)?;
    file.seek(io::SeekFrom::Start(descriptor.offset)).map_err(failed)?;
    let mut out = io::stdout().lock();
    io::copy(&mut file.take(descriptor.size), &mut out).and_then(|_| out.flush()).map_err(failed)
}

fn edit(
    config: &Config,
    path: &Path,
    change: impl FnOnce(&mut Editor) -> Result<(), siforge_sif::edit::Error>,
) -> Result<(), Error> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    let file = file.map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let failed = |source| Error::EditSif { path: path.to_owned(), source };
    let mut editor = Editor::open(file).map_err(failed)?;
    editor.set_time(now(config));
    change(&mut editor).map_err(failed)
}

fn now(config: &Config) -> i64 {
    let since = || SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs().try_into().ok();
    config.source_date_epoch.or_else(since).unwrap_or_default()
}

/// A file that is there already stays: what would overwrite it is hardly meant.
fn create(config: &Config, path: &Path) -> Result<(), Error> {
    let failed = |source| Error::CreateSif { path: path.to_owned(), source };
    let mut uuid = [0; 16];
    File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut uuid)).map_err(failed)?;
    // RFC 9562, version 4.
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    let length = DESCRIPTORS * format::DESCRIPTOR_LEN as i64;
    let time = now(config);
    let header = Header {
        launch: [0; 32],
        arch: Arch::Unknown,
        uuid,
        ctime: time,
        mtime: time,
        descriptors_free: DESCRIPTORS,
        descriptors_total: DESCRIPTORS,
        descriptors_offset: TABLE_OFFSET,
        descriptors_len: length,
        data_offset: TABLE_OFFSET + length,
        data_len: 0,
    };
    let file = OpenOptions::new().write(true).create_new(true).mode(0o755).open(path).map_err(failed)?;
    let written = file
        .set_len(header.data_offset.unsigned_abs())
        .and_then(|()| file.write_all_at(&header.encode(), 0))
        .and_then(|()| file.sync_all());
    written.map_err(|error| {
        // It is ours, and no SIF.
        let _ = std::fs::remove_file(path);
        failed(error)
    })
}

/// The object that is asked for, or what is wrong.
fn object(add: &SifAdd, data: &mut File) -> Result<Object, String> {
    let data_type = DataType::from_code(0x4000 + add.datatype);
    let mut object = Object::new(data_type);
    object.group = Some(add.groupid).filter(|group| *group != 0);
    object.link = add.link.map_or(Link::None, Link::Object);
    object.alignment = add.alignment.unwrap_or(object.alignment);
    object.name = add.filename.clone().unwrap_or_default();
    object.extra = match data_type {
        DataType::Partition => match (add.partfs, add.parttype, add.partarch) {
            (Some(filesystem), Some(kind), Some(arch)) => {
                let numbers = [filesystem.to_le_bytes(), kind.to_le_bytes()].concat();
                [numbers, format!("{arch:02}\0").into_bytes()].concat()
            }
            _ => return Err("--datatype 4 needs --partfs, --parttype and --partarch".into()),
        },
        DataType::Signature => match (add.signhash, &add.signentity) {
            (Some(hash), Some(entity)) => {
                let entity = fingerprint(entity).ok_or("--signentity is not 40 hexadecimal digits")?;
                [&hash.to_le_bytes()[..], &entity].concat()
            }
            _ => return Err("--datatype 5 needs --signhash and --signentity".into()),
        },
        DataType::Sbom => {
            let format = add.sbomformat.as_deref().ok_or("--datatype 9 needs --sbomformat")?;
            let format = if format == "github" { "github-json" } else { format };
            let known = show::SBOM_FORMATS.iter().position(|known| *known == format);
            let code = known
                .ok_or_else(|| format!("--sbomformat {format:?} is not one of {}", show::SBOM_FORMATS.join(", ")))?;
            (code as i32 + 1).to_le_bytes().to_vec()
        }
        DataType::OciRootIndex | DataType::OciBlob => {
            digest(data).map_err(|error| format!("read the data: {error}"))?
        }
        _ => Vec::new(),
    };
    Ok(object)
}

fn fingerprint(text: &str) -> Option<Vec<u8>> {
    if text.len() != 40 || !text.is_ascii() {
        return None;
    }
    (0..20).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()).collect()
}

/// `sha256:<hex>`
fn digest(data: &mut File) -> io::Result<Vec<u8>> {
    let (mut sha, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match data.read(&mut buffer)? {
            0 => break,
            n => sha.update(&buffer[..n]),
        }
    }
    let hex: String = sha.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("sha256:{hex}").into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_forty_digits() {
        let check = |text: &str, expect: Option<(u8, u8)>| {
            let found = fingerprint(text).map(|bytes| (bytes[0], bytes[19]));
            assert_eq!(found, expect, "{text}");
        };
        check("433FE984155206BD962725E20E8713472A879943", Some((0x43, 0x43)));
        check("433fe984155206bd962725e20e8713472a879943", Some((0x43, 0x43)));
        for wrong in
            ["", "433FE9", "433FE984155206BD962725E20E8713472A87994é", "x33FE984155206BD962725E20E8713472A879943"]
        {
            check(wrong, None);
        }
    }
}
